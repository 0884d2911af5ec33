"""What Lightning sees of either path."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from torch import Tensor

Batch = tuple[Tensor, Tensor]  # float32 images (N, C, H, W); classes (N,), or probabilities (N, num_classes) if mixed
B = TypeVar("B", covariant=True)  # of batches


class Loader(Generic[B]):
    """An iterable of batches that begins, each time, where its plan says training stands.

    `__iter__` is a generator: it asks at its first `next`, because on a resume Lightning calls `iter()` before its
    loops have settled where they stand. The length is always that of a whole epoch.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[B]:
        raise NotImplementedError

    def close(self) -> None:
        """End what works for this loader; it can be iterated again."""

    def state_dict(self) -> dict[str, object]:
        """Empty. That the method is there tells Lightning that this loader can resume inside an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Nothing to load."""
