"""Time the parts of a detector's training step, and its loader alone.

    python experiments/speed/detector_step.py             # the two recipes for shapes, two minutes
    python experiments/speed/detector_step.py model=retinanet_ghostnet datamodule=coco datamodule.root=DIR   # any other

The gradient is detached between the pyramid and the heads and passed on by hand, which changes no result, so that each
has its own forward and backward time. The loader runs alone, in this process, without workers. All on the
CPU, also where there is a GPU, on which experiments/gpu times whole steps. Medians over the steps.
"""

import argparse
import itertools
import time
from collections import defaultdict
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ghostexp.__main__ import CONF, register_resolvers
from ghostexp.models.detection.base import DetectionModel, padded
from ghostexp.runs.provenance import cpu
from ghostexp.tasks.common import instantiate

STEPS, WARM = 24, 3
RECIPES = (("experiment=shapes/faster_rcnn",), ("experiment=shapes/retinanet",))
PARTS = ("backbone, forward", "heads, forward", "heads, backward", "backbone, backward", "optimizer")


def step_seconds(network: DetectionModel, optimizer: torch.optim.Optimizer, batch: Any) -> list[float]:
    """Return the seconds of one training step, by PARTS."""
    clock = [time.perf_counter()]
    images, targets = batch
    stacked = padded(images, network.backbone.divisor)
    maps = network.backbone(stacked.tensors)
    clock.append(time.perf_counter())
    cut = {level: values.detach().requires_grad_() for level, values in maps.items()}
    loss = torch.stack([*network.losses(stacked, cut, targets).values()]).sum()
    clock.append(time.perf_counter())
    optimizer.zero_grad()
    loss.backward()
    clock.append(time.perf_counter())
    seen = [level for level in maps if cut[level].grad is not None]
    torch.autograd.backward([maps[level] for level in seen], [cut[level].grad for level in seen])
    clock.append(time.perf_counter())
    optimizer.step()
    clock.append(time.perf_counter())
    return [end - start for start, end in itertools.pairwise(clock)]


def measure(overrides: tuple[str, ...]) -> None:
    """Print a row of the table."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [*overrides, "datamodule.num_workers=0"])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    datamodule: Any = instantiate.build_datamodule(config)
    datamodule.setup("fit")
    network = instantiate.build_network(config).network.train()
    assert isinstance(network, DetectionModel)
    optimizer = instantiate.instantiate_node(config["optimizer"], "optimizer")(network)
    spent: dict[str, list[float]] = defaultdict(list)
    batches = itertools.islice(
        itertools.chain.from_iterable(datamodule.train_dataloader() for _ in itertools.count()), STEPS
    )
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        spent["loader"].append(time.perf_counter() - start)
        for part, seconds in zip(PARTS, step_seconds(network, optimizer, batch), strict=True):
            spent[part].append(seconds)
    images = config["datamodule"]["batch_size"]
    times = {part: median(spent[part][WARM:]) for part in ("loader", *PARTS)}
    whole = sum(times.values())
    fractions = " | ".join(f"{100 * seconds / whole:.1f} %" for seconds in times.values())
    name = overrides[0].split("=", 1)[1]
    print(f"| {name} | {images / whole:.1f} | {fractions} | {images / times['loader']:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    register_resolvers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as on the command line; none: the recipes for shapes")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{cpu()}, {arguments.threads} threads, torch {torch.__version__}, medians of {STEPS - WARM} steps\n")
    print("| training | img/s | loader | " + " | ".join(PARTS) + " | the loader alone, img/s |")
    print("| --- " * (len(PARTS) + 4) + "|")
    for overrides in [tuple(arguments.overrides)] if arguments.overrides else RECIPES:
        measure(overrides)


if __name__ == "__main__":
    main()
