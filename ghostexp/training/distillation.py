"""Learning from the logits of a trained network (arXiv 1503.02531)."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Distillation:
    """A frozen teacher, and what a student loses by thinking otherwise than it.

    No `nn.Module`: the teacher is in no state dict, no optimizer and no count, and DDP does not know of it.
    Raises ValueError for a temperature or a weight that cannot be.
    """

    def __init__(self, teacher: nn.Module, temperature: float, weight: float) -> None:
        if not temperature > 0:
            raise ValueError(f"loss.distill.temperature={temperature}: a number > 0 is needed")
        if not 0 <= weight <= 1:
            raise ValueError(f"loss.distill.weight={weight}: a number in [0, 1] is needed")
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self.weight = weight

    def __deepcopy__(self, memo: dict) -> Self:
        return self  # for the mean of the weights, which copies the whole module: nothing here ever changes

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the teacher to where, and to the precision in which, the student trains."""
        self.teacher.to(device, dtype)

    def mix(self, hard_loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """(1 - weight) x the loss by the labels + weight x the loss by the teacher, on the same images.

        The latter is the Kullback-Leibler divergence of both distributions softened by the temperature T, times T^2,
        so that its gradient keeps its size at any T.
        """
        with torch.no_grad():
            target = F.log_softmax(self.teacher(images).float() / self.temperature, dim=1)  # (N, num_classes)
        softened = F.log_softmax(logits.float() / self.temperature, dim=1)
        divergence = F.kl_div(softened, target, reduction="batchmean", log_target=True)
        return (1 - self.weight) * hard_loss + self.weight * self.temperature**2 * divergence
