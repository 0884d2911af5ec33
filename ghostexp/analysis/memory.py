"""The memory that inference needs, by running a network without computing anything."""

import copy
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors that live at once, at most, while this is active; `at_start` bytes are there already."""

    def __init__(self, at_start: int = 0) -> None:
        super().__init__()
        self.now = self.peak = at_start
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.known:
            self.known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.now -= size


def peak_memory(network: nn.Module, image_shape: tuple[int, int, int], batch: int = 1) -> int:
    """Bytes of weights, images and maps that inference in float32 holds at once, at most; nothing is computed.

    What a library needs within an operation is not in it.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    weights = sum(tensor.untyped_storage().nbytes() for tensor in shadow.state_dict().values())
    images = torch.empty(batch, *image_shape, device="meta")
    with torch.no_grad(), PeakMemory(weights + images.untyped_storage().nbytes()) as memory:
        shadow(images)
    return memory.peak
