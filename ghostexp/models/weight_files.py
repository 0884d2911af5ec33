"""Read weight files as tensors and plain values, without running any code in them."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Plain values that training scripts save beside the weights, such as `best_acc1`, and that are not used here.
IGNORED = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
)


class IgnoredValue:
    """A placeholder for such a value, which accepts its arguments and state and discards them."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_weight_file(path: Path) -> dict[str, Any]:
    """Read a `.safetensors` file, or a file that torch saved, to the CPU.

    Raises ValueError of one line that names the file: it is missing or damaged, or contains objects that are neither
    tensors nor plain values, through which a pickle can run code.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except _UnsafeObject as error:
        raise ValueError(f"{path}: refused: contains {error}, which is neither a tensor nor a plain value") from error
    except Exception as error:  # torch raises half a dozen kinds here
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a valid weight file ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must contain weights by name, got a {type(content).__name__}")
    return content


class _UnsafeObject(Exception):
    """An object in a pickle that is neither a tensor nor a plain value; the text is its name."""


def _pickled(path: Path) -> object:
    # Checkpoints of timm's training script contain its arguments: a namespace of plain values.
    known = [argparse.Namespace, *((IgnoredValue, name) for name in IGNORED)]
    with torch.serialization.safe_globals(known):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            unsafe = re.search(r"GLOBAL (\S+)", str(error))
            if unsafe:
                raise _UnsafeObject(unsafe[1]) from error
            raise ValueError("not a pickle of tensors") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # no other file of `models` needs it

    return load_file(path)
