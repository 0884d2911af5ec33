"""Measure the inference time of a network in several modes, and of a detector by modules."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ghostexp.analysis.runtimes import RUNTIMES, Converter, check_packages
from ghostexp.analysis.timing import alternate, quiet_clock
from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.fuse import fuse
from ghostexp.models.ghost_module import GhostModule

MODE_FLAGS = ("eager", "fused", "bf16", "channels_last", "compiled")
X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True)
class InferenceMode:
    """A network prepared for inference in one mode, and the dtype and layout of its images."""

    network: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    layout: torch.memory_format

    def images(self, images: Tensor) -> Tensor:
        """Convert images to the dtype and layout of this mode."""
        return images.to(self.dtype, memory_format=self.layout)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass over a batch: median and quartiles over the rounds.

    speedup: over the first mode, the median of the rounds' ratios, as both ran under the same load of the machine.
    difference: the largest difference of a logit from the first mode's, in standard deviations of the latter.
    """

    mode: str
    batch: int
    median_ms: float
    low_ms: float
    high_ms: float
    images_per_second: float
    speedup: float
    difference: float


def build_mode(
    network: Network, name: str, device: torch.device, image_shape: tuple[int, int, int] | None = None
) -> InferenceMode:
    """Copy a network into a mode: flags joined by `+`, such as `fused+channels_last+compiled`.

    eager: unchanged, in float32; fused: BatchNorm folded, branches re-parameterised; bf16: weights and images in
    bfloat16; compiled: by torch.compile, for each batch size separately and with the weights as constants.
    Raises ValueError for a flag that is not in MODE_FLAGS.
    """
    flags = name.split("+")
    if not set(flags) <= set(MODE_FLAGS):
        known = f"flags of {', '.join(MODE_FLAGS)}, joined by +, or one of {', '.join(RUNTIMES)}"
        raise ValueError(f"task.modes={name}: must be {known}")
    copied = (fuse(network, image_shape) if "fused" in flags else copy.deepcopy(network)).eval().to(device)
    dtype = torch.bfloat16 if "bf16" in flags else torch.float32
    layout = torch.channels_last if "channels_last" in flags else torch.contiguous_format
    copied = copied.to(dtype=dtype).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    runs = torch.compile(copied, dynamic=False, options={"freezing": True}) if "compiled" in flags else copied
    return InferenceMode(runs, dtype, layout)


def build_modes(
    network: Network, names: Sequence[str], image_shape: tuple[int, int, int], device: torch.device
) -> dict[str, InferenceMode]:
    """Build several modes, of torch and of other runtimes, by name.

    Runtimes compute the fused network on the CPU; int8 is calibrated on noise, which does not change its speed.
    Raises ValueError: an unknown mode, a runtime whose package is missing, or one on a GPU.
    """
    for name in names:
        if name in RUNTIMES:
            check_packages(name, f"task.modes={name}")
            if device.type != "cpu":
                raise ValueError(f"task.modes={name}: runs on CPUs; set trainer.accelerator=cpu")
    noise = torch.randn(32, *image_shape, generator=torch.Generator().manual_seed(0))
    fused = fuse(network, image_shape).cpu() if set(names) & set(RUNTIMES) else network
    converter = Converter(fused, image_shape, lambda: [noise])
    return {
        name: InferenceMode(converter.load(name), torch.float32, torch.contiguous_format)
        if name in RUNTIMES
        else build_mode(network, name, device, image_shape)
        for name in names
    }


@torch.inference_mode()
def benchmark_modes(modes: Mapping[str, InferenceMode], images: Tensor, rounds: int) -> list[Latency]:
    """Time every mode on a batch of images (N, C, H, W) on the modes' device.

    Each round times all modes once, one after the other, so that load of the machine affects them alike.
    """
    inputs = {name: mode.images(images) for name, mode in modes.items()}
    logits = {name: mode.network(inputs[name]).float() for name, mode in modes.items()}  # warms up, and compiles
    steps = {name: partial(mode.network, inputs[name]) for name, mode in modes.items()}
    samples = alternate(steps, rounds, images.device)
    first = next(iter(modes))
    return [
        _latency(name, len(images), samples[name], samples[first], _difference(logits[name], logits[first]))
        for name in modes
    ]


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.std())


def _latency(mode: str, batch: int, samples: Sequence[float], first: Sequence[float], difference: float) -> Latency:
    low, median, high = (float(value) for value in np.percentile(samples, (25, 50, 75)))
    speedup = float(np.median(np.divide(first, samples)))
    return Latency(mode, batch, median, low, high, 1000 * batch / median, speedup, difference)


def time_image(networks: Sequence[tuple[Network, tuple[int, int, int]]], rounds: int = 31) -> list[list[float]]:
    """Measure the milliseconds of one image through several networks in turn, a sample of each per round.

    networks: each with the shape of its images (C, H, W). They are fused and run in float32 on the CPU; on one thread
    by the processor's time.
    """
    steps = {str(number): _image_step(*given) for number, given in enumerate(networks)}
    return list(alternate(steps, rounds, torch.device("cpu"), clock=quiet_clock()).values())


def _image_step(network: Network, shape: tuple[int, int, int]) -> Callable[[], Tensor]:
    mode, image = build_mode(network, "fused", torch.device("cpu"), shape), torch.randn(1, *shape)

    @torch.inference_mode()
    def step() -> Tensor:
        return mode.network(image)

    return step


@torch.inference_mode()
def time_fractions(network: nn.Module, images: Tensor, rounds: int) -> dict[str, float]:
    """Measure the median fractions of an eager forward pass in primary and in cheap operations of all ghost modules.

    Empty for a network without ghost modules. On a GPU, the synchronisation after each operation lengthens short ones.
    """
    timed = copy.deepcopy(network).eval()
    ghosts = [module for module in timed.modules() if isinstance(module, GhostModule)]
    if not ghosts:
        return {}
    spent = {"primary": 0.0, "cheap": 0.0}
    for ghost in ghosts:
        for part in spent:
            setattr(ghost, part, timed_part(getattr(ghost, part), part, spent, images))
    fractions: dict[str, list[float]] = {part: [] for part in spent}
    for round_ in range(rounds + 1):
        spent.update(dict.fromkeys(spent, 0.0))
        clock = now(images)
        timed(images)
        total = now(images) - clock
        for part in spent if round_ else ():  # the first round is a warm-up
            fractions[part].append(spent[part] / total)
    return {part: float(np.median(values)) for part, values in fractions.items()}


def timed_part(operation: Callable[[X], Y], part: str, spent: dict[str, float], images: Tensor) -> Callable[[X], Y]:
    """Wrap an operation to add its seconds to `spent[part]`; it runs on the images' device."""

    def run(x: X) -> Y:
        clock = now(images)
        y = operation(x)
        spent[part] += now(images) - clock
        return y

    return run


def now(x: Tensor) -> float:
    """Return the time in seconds, after synchronising the tensor's device."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


DETECTOR_PARTS: tuple[str, ...] = ("backbone", "fpn", "heads")


@torch.inference_mode()
def module_latency(network: DetectionModel, images: Tensor, rounds: int) -> dict[str, float]:
    """Measure the median milliseconds of an eager forward pass over images (N, 3, H, W), by part and in total.

    heads: all after the FPN, including non-maximum suppression, whose time grows with the number of confident boxes.
    """
    timed = copy.deepcopy(network).eval()
    spent = dict.fromkeys(DETECTOR_PARTS[:2], 0.0)
    for module, method, part in (
        (timed.backbone.body, "feature_maps", "backbone"),
        (timed.backbone.fpn, "forward", "fpn"),
    ):
        setattr(module, method, timed_part(getattr(module, method), part, spent, images))
    samples: dict[str, list[float]] = {part: [] for part in (*DETECTOR_PARTS, "total")}
    for round_ in range(rounds + 1):
        spent.update(dict.fromkeys(spent, 0.0))
        clock = now(images)
        timed(images)
        total = now(images) - clock
        if round_:  # the first round is a warm-up
            seconds_by_part = {**spent, "heads": total - sum(spent.values()), "total": total}
            for part, seconds in seconds_by_part.items():
                samples[part].append(1000 * seconds)
    return {part: float(np.median(values)) for part, values in samples.items()}
