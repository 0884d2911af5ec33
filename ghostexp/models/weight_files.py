"""Files of weights, read as tensors and plain values: no code in them is ever run."""

import argparse
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


# Plain values that training scripts save beside the weights, such as `best_acc1`. Nobody reads them here.
IGNORED = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
)


class Ignored:
    """What stands for such a value: it takes what the pickle has for it, and does nothing with it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read(path: Path) -> dict[str, Any]:
    """What a `.safetensors` file, or a file that torch saved, holds; on the CPU.

    Raises ValueError of one line that names the file: it is not there, it is not whole, or it holds objects that
    are neither tensors nor plain values, through which a pickle can run code.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except _Foreign as error:
        raise ValueError(
            f"{path}: refused, for it holds {error}, which is neither a tensor nor a plain value"
        ) from error
    except Exception as error:  # torch raises half a dozen kinds here
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a whole file of weights ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__} instead of weights by name")
    return content


class _Foreign(Exception):
    """An object in a pickle that is neither a tensor nor a plain value; the text is its name."""


def _pickled(path: Path) -> object:
    # Checkpoints of timm's training script hold its arguments: a namespace of plain values.
    known = [argparse.Namespace, *((Ignored, name) for name in IGNORED)]
    with torch.serialization.safe_globals(known):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            if found:
                raise _Foreign(found[1]) from error
            raise ValueError("no pickle of tensors") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The format: eight bytes of length, so long a header in JSON, the tensors' bytes.

    Source: https://github.com/huggingface/safetensors#format
    """
    data = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < start:
        raise ValueError("its header is cut off")
    header: dict[str, dict] = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    return {name: _tensor(data[start:], entry) for name, entry in header.items()}


def _tensor(data: memoryview, entry: dict) -> Tensor:
    begin, end = entry["data_offsets"]
    dtype, shape = DTYPES[entry["dtype"]], torch.Size(entry["shape"])
    if not 0 <= begin <= end <= len(data):
        raise ValueError("a tensor is cut off")
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
