"""What changes the speed of a network and not its results, up to rounding: TF32, torch.compile and bfloat16."""

import os
import shutil

import torch
from torch import nn

from ghostexp.models.detection.base import DetectionModel
from ghostexp.validation import notice

COMPILERS = ("cc", "gcc", "clang")


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TensorFloat-32, with 10 bits of mantissa, in float32 convolutions and products on a GPU.

    Torch allows it in convolutions alone.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def compile_network(network: nn.Module, mode: bool | str) -> None:
    """Compile a classifier, or the backbone of a detector, in place, so that the names in the state dict stay.

    mode: one of torch.compile, true for its default. Classifiers are compiled for each batch size: torch would compile
    for all sizes at the second one, which CUDA graphs do not support.
    Raises ValueError: there is no C compiler, which torch.compile needs at its first step.
    """
    if mode is False:
        return
    compiler = os.environ.get("CC") or os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([compiler] if compiler else COMPILERS)):
        raise ValueError(
            f"compile={str(mode).lower()}: torch.compile needs a C compiler, found none of "
            f"{compiler or ', '.join(COMPILERS)}; install gcc, or set compile=false"
        )
    kwargs = {} if mode is True else {"mode": mode}
    if isinstance(network, DetectionModel):
        network.backbone.compile(**kwargs)
    else:
        network.compile(dynamic=False, **kwargs)


def warn_of_slow_bfloat16(precision: str, device: torch.device) -> None:
    """Write a warning if convolutions in bfloat16 are slower than in float32 on this CPU, by a factor of ten and more.

    Without AVX-512, oneDNN leaves them to plain loops of torch.
    """
    if device.type != "cpu" or not precision.startswith("bf16"):
        return
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        notice(
            f"warning: trainer.precision={precision}: torch has no fast bfloat16 convolutions for this CPU; "
            "trainer.precision=32-true is many times as fast"
        )
