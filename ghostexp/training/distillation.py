"""Knowledge distillation from the logits of a trained network (Hinton et al., arXiv 1503.02531)."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Distillation:
    """Knowledge-distillation loss with a frozen teacher.

    No `nn.Module`, so that state dict, optimizer, parameter count and DDP leave the teacher out.
    Raises ValueError: temperature or weight out of range.
    """

    def __init__(self, teacher: nn.Module, temperature: float, weight: float) -> None:
        if not temperature > 0:
            raise ValueError(f"loss.distill.temperature={temperature}: must be a number > 0")
        if not 0 <= weight <= 1:
            raise ValueError(f"loss.distill.weight={weight}: must be a number in [0, 1]")
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self.weight = weight

    def __deepcopy__(self, memo: dict) -> Self:
        return self  # weight averaging copies the module; the teacher never changes

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the teacher to the device and dtype of the student."""
        self.teacher.to(device, dtype)

    def loss(self, hard_loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Compute (1 - weight) x hard_loss + weight x distillation loss.

        The latter is the Kullback-Leibler divergence of both distributions softened by the temperature T, times T^2,
        so that its gradient keeps its size at any T.
        """
        with torch.no_grad():
            target = F.log_softmax(self.teacher(images).float() / self.temperature, dim=1)  # (N, num_classes)
        softened = F.log_softmax(logits.float() / self.temperature, dim=1)
        divergence = F.kl_div(softened, target, reduction="batchmean", log_target=True)
        return (1 - self.weight) * hard_loss + self.weight * self.temperature**2 * divergence
