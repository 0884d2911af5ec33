"""What a test says beyond its figures: which classes are taken for which, and the images that are most wrong."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_TOP_LOSSES = 25  # mistakes that are kept


class TopLosses(NamedTuple):
    """Wrong answers, that of the highest loss first."""

    losses: Tensor  # (K,); -inf fills up where there were fewer
    truths: Tensor  # (K,)
    predictions: Tensor  # (K,)
    probabilities: Tensor  # (K,), of the predictions
    ranks: Tensor  # (K,)
    batches: Tensor  # (K,), of that rank
    places: Tensor  # (K,), in that batch
    images: Tensor  # (K, C, H, W), as the network reads them

    def highest(self, count: int) -> "TopLosses":
        """At most `count` of them."""
        return self.at(self.losses.topk(min(count, len(self.losses))).indices)

    def at(self, which: Tensor) -> "TopLosses":
        """Those at indices, or under a mask."""
        return TopLosses(*(values[which] for values in self))

    def beside(self, other: "TopLosses") -> "TopLosses":
        """These and others."""
        return TopLosses(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class TestOutputs(NamedTuple):
    """What all devices found together."""

    confusion: Tensor  # int64 (num_classes, num_classes): rows are truths, columns predictions
    worst: TopLosses


class TestRecorder:
    """Counts the answers of a test and keeps the worst of them, on the device and without waiting for it."""

    def __init__(self, num_classes: int, device: torch.device, rank: int = 0) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.rank = rank
        self.batches = 0
        self.worst: TopLosses | None = None

    def update(self, images: Tensor, logits: Tensor, truths: Tensor) -> None:
        """Add a batch: images (N, C, H, W), logits (N, num_classes), classes (N,)."""
        probabilities, predictions = logits.softmax(1).max(1)
        pairs = truths * len(self.confusion) + predictions
        self.confusion.view(-1).index_add_(0, pairs, torch.ones_like(pairs))
        losses = F.cross_entropy(logits, truths, reduction="none")
        losses = losses.where(predictions != truths, -torch.inf)
        ranks, batches = torch.full_like(truths, self.rank), torch.full_like(truths, self.batches)
        places = torch.arange(len(truths), device=truths.device)
        found = TopLosses(losses, truths, predictions, probabilities, ranks, batches, places, images).highest(
            NUM_TOP_LOSSES
        )
        self.worst = found if self.worst is None else self.worst.beside(found).highest(NUM_TOP_LOSSES)
        self.batches += 1

    def merged(self, gather: Callable[[Tensor], Tensor]) -> TestOutputs:
        """What all devices found, on the CPU; each has to ask, having seen a batch at least.

        gather: (...) of this device to (devices, ...) of all, or to itself where there is one, as Lightning's
        `all_gather`.
        """
        assert self.worst is not None
        confusion = gather(self.confusion).reshape(-1, *self.confusion.shape).sum(0)
        worst = TopLosses(*(gather(values).reshape(-1, *values.shape[1:]) for values in self._filled(self.worst)))
        worst = worst.at(worst.losses != -torch.inf).highest(NUM_TOP_LOSSES)
        return TestOutputs(confusion.cpu(), TopLosses(*(values.cpu() for values in worst)))

    @staticmethod
    def _filled(worst: TopLosses) -> TopLosses:
        """As many on every device, for none can gather what differs in shape."""
        missing = NUM_TOP_LOSSES - len(worst.losses)
        padded = worst.at(torch.arange(NUM_TOP_LOSSES, device=worst.losses.device).clamp(max=len(worst.losses) - 1))
        padded.losses[NUM_TOP_LOSSES - missing :] = -torch.inf
        return padded
