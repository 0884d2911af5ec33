"""What Lightning sees of either path."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

Batch = tuple[Tensor, Tensor]  # float32 images (N, C, H, W); classes (N,), or probabilities (N, num_classes) if mixed


class Loader(ABC):
    """An iterable of batches that begins, each time, where its plan says training stands.

    `__iter__` is a generator: it asks at its first `next`, because on a resume Lightning calls `iter()` before its
    loops have settled where they stand. The length is always that of a whole epoch.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, object]:
        """Empty. That the method is there tells Lightning that this loader can resume inside an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Nothing to load."""
        assert not state_dict
