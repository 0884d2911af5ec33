"""Record the confusion matrix of a test and its misclassified images of highest loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_TOP_LOSSES = 25  # misclassified images that are kept


class TopLosses(NamedTuple):
    """Misclassified images, highest loss first."""

    losses: Tensor  # (K,), padded with -inf
    targets: Tensor  # (K,)
    predictions: Tensor  # (K,)
    probabilities: Tensor  # (K,), of the predictions
    ranks: Tensor  # (K,), of the process
    batches: Tensor  # (K,), number of the batch on that rank
    positions: Tensor  # (K,), within that batch
    images: Tensor  # (K, C, H, W), as the network reads them

    def topk(self, k: int) -> "TopLosses":
        """Select the k highest losses, or all if there are fewer."""
        return self.select(self.losses.topk(min(k, len(self.losses))).indices)

    def select(self, which: Tensor) -> "TopLosses":
        """Select by indices or a mask."""
        return TopLosses(*(values[which] for values in self))

    def concat(self, other: "TopLosses") -> "TopLosses":
        """Concatenate with others."""
        return TopLosses(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class TestOutputs(NamedTuple):
    """Confusion matrix and top losses over all devices."""

    confusion: Tensor  # int64 (num_classes, num_classes): rows are targets, columns predictions
    top_losses: TopLosses


class TestRecorder:
    """Accumulates the confusion matrix and the top losses of a test on the device, without synchronising it.

    Torchmetrics' confusion matrix counts by `torch.bincount`, which waits for the device in every batch.
    """

    def __init__(self, num_classes: int, device: torch.device, rank: int = 0) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.rank = rank
        self.batches = 0
        self.top_losses: TopLosses | None = None

    def update(self, images: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: images (N, C, H, W), logits (N, num_classes), classes (N,)."""
        probabilities, predictions = logits.softmax(1).max(1)
        pairs = targets * len(self.confusion) + predictions
        self.confusion.view(-1).index_add_(0, pairs, torch.ones_like(pairs))
        losses = F.cross_entropy(logits, targets, reduction="none")
        losses = losses.where(predictions != targets, -torch.inf)
        ranks, batches = torch.full_like(targets, self.rank), torch.full_like(targets, self.batches)
        positions = torch.arange(len(targets), device=targets.device)
        top_losses = TopLosses(losses, targets, predictions, probabilities, ranks, batches, positions, images).topk(
            NUM_TOP_LOSSES
        )
        self.top_losses = (
            top_losses if self.top_losses is None else self.top_losses.concat(top_losses).topk(NUM_TOP_LOSSES)
        )
        self.batches += 1

    def compute(self, gather: Callable[[Tensor], Tensor]) -> TestOutputs:
        """Gather the outputs of all devices on the CPU; a collective call, after at least one batch on each device.

        gather: maps (...) of this device to (devices, ...), or to itself on one device, as Lightning's `all_gather`.
        """
        assert self.top_losses is not None
        confusion = gather(self.confusion).reshape(-1, *self.confusion.shape).sum(0)
        padded = self._pad(self.top_losses)
        worst = TopLosses(*(gather(values).reshape(-1, *values.shape[1:]) for values in padded))
        worst = worst.select(worst.losses != -torch.inf).topk(NUM_TOP_LOSSES)
        return TestOutputs(confusion.cpu(), TopLosses(*(values.cpu() for values in worst)))

    @staticmethod
    def _pad(worst: TopLosses) -> TopLosses:
        """Pad to NUM_TOP_LOSSES: gathering needs equal shapes on all devices."""
        missing = NUM_TOP_LOSSES - len(worst.losses)
        padded = worst.select(torch.arange(NUM_TOP_LOSSES, device=worst.losses.device).clamp(max=len(worst.losses) - 1))
        padded.losses[NUM_TOP_LOSSES - missing :] = -torch.inf
        return padded
