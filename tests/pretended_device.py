"""A pretended accelerator: tensors that claim to be on `pretended:0`, computed on the CPU.

As a GPU does, it refuses operations on tensors of two devices. It counts what costs a GPU time: operations, copies
between the devices, and reads that make the host wait for the device.

Torch cannot unregister a device: `tests/pretended_run.py` uses it in processes of their own.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten

counts: Counter[str] = Counter()  # of this process: operations, syncs, to_device, to_host
places: Counter[str] = Counter()  # of syncs and copies, by the operation that caused them

# Operations whose result the host has to know before it can go on.
SYNCS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero}
SYNCS |= {aten._unique2, aten.unique_consecutive, aten.unique_dim}


class DeviceTensor(Tensor):
    """A tensor on the pretended device; `values` is the CPU tensor behind it."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "DeviceTensor":
        """Wrap a CPU tensor."""
        like = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        wrapper = Tensor._make_wrapper_subclass(cls, values.size(), device=torch.device(NAME, 0), **like)
        wrapper.values = values
        return wrapper

    def __init__(self, values: Tensor) -> None:
        super().__init__()

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.values})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        note("to_host", "pickle")
        return self.values.detach().clone().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return dispatch(func, args, kwargs or {})


def note(kind: str, where: object) -> None:
    """Count a synchronisation or a copy."""
    counts[kind] += 1
    places[f"{kind} {where}"] += 1


def is_pretended(device: Any) -> bool:
    """Return whether a device, or its name, is the pretended one."""
    return device is not None and torch.device(device).type == NAME


def unwrap(value: Any) -> Any:
    """Replace the tensors of the device by those of the CPU."""
    return tree_map_only(DeviceTensor, lambda tensor: tensor.values, value)


def wrap(value: Any) -> Any:
    """Replace the tensors of the CPU by those of the device."""
    return tree_map(
        lambda leaf: DeviceTensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, DeviceTensor) else leaf,
        value,
    )


def tensors_in(value: Any) -> list[Tensor]:
    """List all tensors in nested arguments."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def dispatch(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and count it where it is one of the device."""
    packet = func.overloadpacket
    if packet is aten._to_copy:
        return convert(func, args[0], kwargs)
    if packet is aten.copy_:
        return copy_into(args[0], args[1])
    tensors = tensors_in((args, kwargs))
    here = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    if not here and not is_pretended(kwargs.get("device")):
        return func(*args, **kwargs)
    counts["operations"] += not is_view(func)
    check_devices(packet, args, tensors)
    if packet in SYNCS:
        note("syncs", packet)
    if is_pretended(kwargs.get("device")):
        kwargs = kwargs | {"device": torch.device("cpu")}
    result = func(*unwrap(args), **unwrap(kwargs))
    if not isinstance(result, Tensor | tuple | list):
        return result
    return return_and_correct_aliasing(func, args, kwargs, wrap(result)) if here else wrap(result)


def is_view(func: Any) -> bool:
    """Return whether an operation makes a view, which costs the device nothing."""
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


def check_devices(packet: Any, args: tuple, tensors: list[Tensor]) -> None:
    """Raise RuntimeError for two devices; tensors without dimensions count as numbers, as on a GPU.

    An index may be on the CPU, and is then copied; a mask as an index makes the host wait for its number of elements.
    """
    if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            note("syncs", packet)
        if any(not isinstance(index, DeviceTensor) for index in indices):
            note("to_device", packet)
        tensors = [tensor for tensor in tensors if not any(tensor is index for index in indices)]
    others = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.ndim]
    if others and any(isinstance(tensor, DeviceTensor) for tensor in tensors):
        shapes = [(tuple(tensor.shape), tensor.device.type) for tensor in tensors]
        raise RuntimeError(f"{packet}: expected all tensors on one device, got {shapes}")


def convert(func: Any, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Convert a tensor to another dtype, layout or device."""
    device = kwargs.get("device")
    to_device = isinstance(source, DeviceTensor) if device is None else is_pretended(device)
    if to_device != isinstance(source, DeviceTensor):
        note("to_device" if to_device else "to_host", "to")
        counts["bytes_to_device"] += source.nbytes if to_device else 0
    counts["operations"] += to_device
    rest = kwargs | ({"device": torch.device("cpu")} if to_device else {})
    result = func(unwrap(source), **rest)
    return DeviceTensor(result) if to_device else result


def copy_into(target: Tensor, source: Tensor) -> Tensor:
    """Copy values into a tensor of either device."""
    counts["operations"] += isinstance(target, DeviceTensor)
    if isinstance(target, DeviceTensor) != isinstance(source, DeviceTensor):
        note("to_device" if isinstance(target, DeviceTensor) else "to_host", "copy_")
    unwrap(target).copy_(unwrap(source))
    return target


class DeviceMode(TorchDispatchMode):
    """Makes torch's factory functions accept the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return dispatch(func, args, kwargs or {})


class FunctionMode(TorchFunctionMode):
    """Replaces functions that read or write a tensor's memory in C++, without an operation."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and is_pretended(kwargs.get("device")):
            if isinstance(args[0], DeviceTensor):
                return args[0]
            note("to_device", func.__name__)
            return DeviceTensor(func(*args, **kwargs | {"device": "cpu"}))
        if func is Tensor.new_tensor and isinstance(args[0], DeviceTensor):
            note("to_device", "new_tensor")
            return DeviceTensor(args[0].values.new_tensor(*args[1:], **kwargs | {"device": "cpu"}))
        if func is Tensor.tolist and isinstance(args[0], DeviceTensor):
            note("syncs", "tolist")
            return args[0].values.tolist()
        return func(*args, **kwargs)


class PretendedModule(_DummyBackendModule):
    """What torch expects of `torch.pretended`."""

    def get_rng_state(self, *_: Any) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, *_: Any) -> None: ...

    def set_device(self, *_: Any) -> None: ...

    def synchronize(self, *_: Any) -> None: ...


@contextmanager
def registered_device() -> Iterator[None]:
    """Register the device with torch, and compute on it; for the rest of this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=PretendedModule())
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else nullcontext()
    with DeviceMode(), FunctionMode():
        yield
