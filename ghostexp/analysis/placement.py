"""Measure where ghost modules pay: each convolution of a network as it is and as a ghost module, and whole networks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostexp.analysis.conv_layers import ConvLayer
from ghostexp.analysis.timing import Step, alternate, quiet_clock

SAMPLE_SECONDS = 0.002  # short: in a network, a layer does not find its own data in the cache either


@dataclass(frozen=True)
class Setting:
    """How layers and networks are measured.

    training: forward and backward; else forward, with BatchNorm folded. prepare: moves a module to its device, dtype
    and memory format, and compiles it. autocast: makes the context of a forward.
    """

    batch_size: int
    training: bool
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    prepare: Callable[[nn.Module], nn.Module]
    autocast: Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class LayerForm:
    """One form of a convolution: ordinary (ratio 1) or a ghost module.

    ms: median of a pass with the BatchNorm and activation that follow, times the calls of the layer. speedup: over the
    ordinary form, the median of the rounds' ratios, and its quartiles.
    """

    layer: str
    shape: str
    ratio: int
    dw_size: int
    params: int
    macs: int
    ms: float
    speedup: float
    speedup_low: float
    speedup_high: float

    @property
    def pays(self) -> bool:
        """Return whether it is faster than the ordinary form in at least three of four rounds."""
        return self.ratio == 1 or self.speedup_low > 1


def measure_layers(
    layers: Sequence[ConvLayer], sizes: Sequence[tuple[int, int]], setting: Setting, rounds: int
) -> dict[str, list[LayerForm]]:
    """Measure each layer in its forms, the ordinary one first; layers of equal shape are measured once.

    sizes: ratio and dw_size of the ghost modules; ratios above a layer's channels are left out.
    """
    different = {layer.key: layer for layer in layers}
    numel = setting.batch_size * max(
        max(np.prod(layer.shape), layer.conv.out_channels * layer.pixels) for layer in layers
    )
    values = torch.randn(int(numel), device=setting.device, dtype=setting.dtype)  # of every input and gradient
    steps: dict[tuple, dict[tuple[int, int], Step]] = {}
    for key, layer in different.items():
        forms = [(1, 1), *(size for size in sizes if 1 < size[0] <= layer.conv.out_channels)]
        steps[key] = {form: _layer_step(layer, form, values, setting) for form in forms}
    flat = {f"{number}/{form}": step for number, key in enumerate(steps) for form, step in steps[key].items()}
    samples = alternate(flat, rounds, setting.device, SAMPLE_SECONDS, quiet_clock())
    measured = {key: {form: samples[f"{number}/{form}"] for form in steps[key]} for number, key in enumerate(steps)}
    return {layer.name: _forms(layer, measured[layer.key]) for layer in layers}


def _layer_step(layer: ConvLayer, form: tuple[int, int], values: Tensor, setting: Setting) -> Step:
    module = setting.prepare(layer.build(*form, folded=not setting.training)).train(setting.training)
    images = _view(values, setting, layer.shape)
    if not setting.training:
        return lambda: _infer(module, images, setting)
    with torch.no_grad(), setting.autocast():
        output = module(images)
    gradient = _view(values, setting, (output.shape[1], output.shape[2], output.shape[3])).to(output.dtype)
    images = images.detach().requires_grad_(not layer.is_first)

    def step() -> None:
        module.zero_grad()
        images.grad = None
        with setting.autocast():
            output = module(images)
        output.backward(gradient)

    return step


def _view(values: Tensor, setting: Setting, shape: tuple[int, int, int]) -> Tensor:
    """Take maps (N, C, H, W) in the setting's memory format from a vector."""
    channels, height, width = shape
    part = values[: setting.batch_size * channels * height * width]
    if setting.channels_last:
        return part.view(setting.batch_size, height, width, channels).permute(0, 3, 1, 2)
    return part.view(setting.batch_size, channels, height, width)


@torch.inference_mode()
def _infer(module: nn.Module, images: Tensor, setting: Setting) -> Tensor:
    with setting.autocast():
        return module(images)


def _forms(layer: ConvLayer, samples: Mapping[tuple[int, int], Sequence[float]]) -> list[LayerForm]:
    ordinary = samples[1, 1]
    base = float(np.median(ordinary))
    forms = []
    for (ratio, dw_size), times in samples.items():
        low, median, high = (float(value) for value in np.percentile(np.divide(ordinary, times), (25, 50, 75)))
        params, macs = layer.cost(ratio, dw_size)
        ms = layer.calls * base / median
        forms.append(LayerForm(layer.name, layer.title, ratio, dw_size, params, macs, ms, median, low, high))
    return forms


@dataclass(frozen=True)
class NetworkTime:
    """The time of a whole network for a batch: median, quartiles, and speed-up over the first one's."""

    network: str
    ms: float
    low_ms: float
    high_ms: float
    speedup: float
    params: int = 0
    macs: int = 0


def measure_networks(
    networks: Mapping[str, nn.Module], image_shape: tuple[int, int, int], setting: Setting, rounds: int
) -> list[NetworkTime]:
    """Time a pass of each network in turn; a pass of training includes the cross-entropy, but no optimizer step."""
    values = torch.randn(setting.batch_size * int(np.prod(image_shape)), device=setting.device, dtype=setting.dtype)
    images = _view(values, setting, image_shape)
    steps = {name: network_step(network, images, setting) for name, network in networks.items()}
    samples = alternate(steps, rounds, setting.device, clock=quiet_clock())
    first = samples[next(iter(samples))]
    times = []
    for name, found in samples.items():
        low, median, high = (float(value) for value in np.percentile(found, (25, 50, 75)))
        times.append(NetworkTime(name, median, low, high, float(np.median(np.divide(first, found)))))
    return times


def network_step(network: nn.Module, images: Tensor, setting: Setting) -> Step:
    """Return a function that runs one pass of a network on images (N, C, H, W)."""
    module = setting.prepare(network).train(setting.training)
    if not setting.training:
        return lambda: _infer(module, images, setting)
    targets = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def step() -> None:
        module.zero_grad()
        with setting.autocast():
            loss = F.cross_entropy(module(images), targets)
        loss.backward()

    return step
