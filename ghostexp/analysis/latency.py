"""Measure inference time of a network in several modes, and of a detector by modules."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.fuse import fuse
from ghostexp.models.ghost_module import GhostModule

MODE_FLAGS = ("eager", "fused", "bf16", "channels_last", "compiled")
X = TypeVar("X")
Y = TypeVar("Y")
SAMPLE_SECONDS = 0.02  # a fast network runs several times for one sample


@dataclass(frozen=True)
class InferenceMode:
    """A network ready for inference in one way, and how it takes its images."""

    network: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    layout: torch.memory_format

    def images(self, images: Tensor) -> Tensor:
        """The images as this mode reads them."""
        return images.to(self.dtype, memory_format=self.layout)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass over a batch: median and quartiles over the rounds.

    speedup: over the first mode, the median of the rounds' ratios, for both ran in the same spell of the machine.
    difference: the largest of a logit from the first mode's, in standard deviations of the latter.
    """

    mode: str
    batch: int
    median_ms: float
    low_ms: float
    high_ms: float
    images_per_second: float
    speedup: float
    difference: float


def build_mode(network: Network, name: str, device: torch.device) -> InferenceMode:
    """A copy of a network in a mode: words joined by `+`, such as `fused+channels_last+compiled`.

    eager: as it is, in float32; fused: BatchNorm folded, branches re-parameterised; bf16: weights and images too;
    compiled: by torch.compile, for each batch size on its own and with the weights as constants.
    Raises ValueError for a word that is none of WORDS.
    """
    words = name.split("+")
    if not set(words) <= set(MODE_FLAGS):
        raise ValueError(f"task.modes={name}: words of {', '.join(MODE_FLAGS)}, joined by +")
    copied = (fuse(network) if "fused" in words else copy.deepcopy(network)).eval().to(device)
    dtype = torch.bfloat16 if "bf16" in words else torch.float32
    layout = torch.channels_last if "channels_last" in words else torch.contiguous_format
    copied = copied.to(dtype=dtype).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    runs = torch.compile(copied, dynamic=False, options={"freezing": True}) if "compiled" in words else copied
    return InferenceMode(runs, dtype, layout)


@torch.inference_mode()
def benchmark_modes(modes: Mapping[str, InferenceMode], images: Tensor, rounds: int) -> list[Latency]:
    """Time every mode on a batch of images (N, C, H, W), which lie where the modes do.

    Each round times all modes once, one after the other, so that a slow spell of the machine meets them all.
    """
    inputs = {name: mode.images(images) for name, mode in modes.items()}
    logits = {name: mode.network(inputs[name]).float() for name, mode in modes.items()}  # warms up, and compiles
    runs = {name: _runs(mode, inputs[name]) for name, mode in modes.items()}
    samples: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(rounds):
        for name, mode in modes.items():
            samples[name].append(_milliseconds(mode, inputs[name], runs[name]) / runs[name])
    first = next(iter(modes))
    return [
        _latency(name, len(images), samples[name], samples[first], _difference(logits[name], logits[first]))
        for name in modes
    ]


def _runs(mode: InferenceMode, images: Tensor) -> int:
    """How many runs a sample needs; measuring it is a second warm-up."""
    once = min(_milliseconds(mode, images, 1) for _ in range(2))
    return max(1, math.ceil(1000 * SAMPLE_SECONDS / once))


def _milliseconds(mode: InferenceMode, images: Tensor, runs: int) -> float:
    """The time of some runs: by events on a GPU, by the clock elsewhere."""
    if images.is_cuda:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(runs):
            mode.network(images)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    clock = time.perf_counter()
    for _ in range(runs):
        mode.network(images)
    return 1000 * (time.perf_counter() - clock)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.std())


def _latency(mode: str, batch: int, samples: Sequence[float], first: Sequence[float], difference: float) -> Latency:
    low, median, high = (float(value) for value in np.percentile(samples, (25, 50, 75)))
    speedup = float(np.median(np.divide(first, samples)))
    return Latency(mode, batch, median, low, high, 1000 * batch / median, speedup, difference)


@torch.inference_mode()
def time_fractions(network: nn.Module, images: Tensor, rounds: int) -> dict[str, float]:
    """Which share of an eager forward pass the primary and the cheap operations of all ghost modules take, medians.

    Empty for a network without ghost modules. On a GPU, waiting for each operation makes short ones look longer.
    """
    timed = copy.deepcopy(network).eval()
    ghosts = [module for module in timed.modules() if isinstance(module, GhostModule)]
    if not ghosts:
        return {}
    spent = {"primary": 0.0, "cheap": 0.0}
    for ghost in ghosts:
        for part in spent:
            setattr(ghost, part, timed_part(getattr(ghost, part), part, spent, images))
    shares: dict[str, list[float]] = {part: [] for part in spent}
    for round_ in range(rounds + 1):
        spent.update(dict.fromkeys(spent, 0.0))
        clock = now(images)
        timed(images)
        whole = now(images) - clock
        for part in spent if round_ else ():  # the first warms up
            shares[part].append(spent[part] / whole)
    return {part: float(np.median(values)) for part, values in shares.items()}


def timed_part(operation: Callable[[X], Y], part: str, spent: dict[str, float], images: Tensor) -> Callable[[X], Y]:
    """The same operation, which adds its seconds to those that a part has spent; it runs where the images lie."""

    def run(x: X) -> Y:
        clock = now(images)
        y = operation(x)
        spent[part] += now(images) - clock
        return y

    return run


def now(x: Tensor) -> float:
    """Seconds, when all that was asked of the tensor's device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


DETECTOR_PARTS: tuple[str, ...] = ("trunk", "pyramid", "heads")


@torch.inference_mode()
def module_latency(network: DetectionModel, images: Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of an eager forward pass over images (N, 3, H, W), medians, by part, and of the whole.

    heads: all that chooses boxes and judges them, which takes longer the more of them a network believes in.
    """
    timed = copy.deepcopy(network).eval()
    spent = dict.fromkeys(DETECTOR_PARTS[:2], 0.0)
    for module, method, part in (
        (timed.backbone.body, "feature_maps", "trunk"),
        (timed.backbone.fpn, "forward", "pyramid"),
    ):
        setattr(module, method, timed_part(getattr(module, method), part, spent, images))
    samples: dict[str, list[float]] = {part: [] for part in (*DETECTOR_PARTS, "whole")}
    for round_ in range(rounds + 1):
        spent.update(dict.fromkeys(spent, 0.0))
        clock = now(images)
        timed(images)
        whole = now(images) - clock
        if round_:  # the first warms up
            taken = {**spent, "heads": whole - sum(spent.values()), "whole": whole}
            for part, seconds in taken.items():
                samples[part].append(1000 * seconds)
    return {part: float(np.median(values)) for part, values in samples.items()}
