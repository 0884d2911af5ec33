"""Measure the latency of a configuration's network, on one image and one thread of the CPU."""

from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from ghostexp.analysis.latency import time_image
from ghostexp.models.base import Network
from ghostexp.tasks.common.build_network import Config, build_network, image_shape, is_detector


def check_measurable(config: Config) -> None:
    """Raise ValueError for a detector, whose time depends on what it has learnt to find."""
    if is_detector(config["model"]):
        raise ValueError("search.cost=latency_ms: needs a classifier; the time of a detector grows with its boxes")


def measure_latency(config: Config, reference: Config | None = None, reference_ms: float = 1.0) -> dict[str, Any]:
    """Return milliseconds: median and quartiles over the rounds.

    reference: a network that is timed in turn with this one, and its known time. Then the result is that time
    multiplied by the rounds' ratios, which vary less than times do: other work on the machine slows both down alike.
    """
    torch.set_num_threads(1)
    samples = time_image([_network(one) for one in (config, reference) if one is not None])
    times = samples[0] if reference is None else reference_ms * np.divide(samples[0], samples[1])
    low, median, high = (float(value) for value in np.percentile(times, (25, 50, 75)))
    return {"latency_ms": median, "low_ms": low, "high_ms": high, "threads": 1, "torch": torch.__version__}


def _network(config: Config) -> tuple[Network, tuple[int, int, int]]:
    """Build the network with BatchNorm statistics of noise; returns it and the shape of its images."""
    shape = image_shape(config)
    plain = config | {"channels_last": False, "compile": False, "run": None}
    network = build_network(plain, is_resumed=True).network  # weights do not change its time
    assert isinstance(network, Network)
    update_bn([torch.randn(8, *shape)], network)
    return network, shape
