"""Measure what a training step costs beside the network: Lightning, metrics, callbacks and loggers, EMA.

    python experiments/speed/step_overhead.py              # two minutes on an idle core
    python experiments/speed/step_overhead.py --rounds 3

What is added to a step does not depend on the network, but for EMA. It is measured on a network of one linear layer,
where it is most of the step: three epochs of the digits, 66 steps, from the first batch to the end of the last epoch,
without validation and checkpoints. All are milliseconds of CPU time of one thread, which other work on the machine
disturbs less than the time by the clock; medians over alternating rounds.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from training_loop import CIFAR, DIGITS, bare_loop, configuration

from ghostexp.config.compose import register_resolvers
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.provenance import cpu
from ghostexp.tasks.common import instantiate
from ghostexp.training.callbacks.checkpoint import ModelCheckpoint
from ghostexp.training.callbacks.ema import EMAModel

NEVER = ("callbacks.save_every_n_epochs=null", "callbacks.save_every_n_minutes=null")
STEPS = 66


class Clock(Callback):
    """CPU seconds from the first batch to the end of the last epoch."""

    seconds = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Start."""
        self.seconds = -time.process_time()

    def on_train_end(self, *_: Any) -> None:
        """Stop."""
        self.seconds += time.process_time()


class PlainModule(pl.LightningModule):
    """The least that Lightning trains."""

    def __init__(self, network: nn.Module, config: instantiate.Config) -> None:
        super().__init__()
        self.network, self.config = network, config

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss."""
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the schedule of the configuration."""
        optimizer = instantiate.instantiate_node(self.config["optimizer"], "optimizer")(self.network)
        factor = instantiate.instantiate_node(self.config["scheduler"], "scheduler")(3, STEPS // 3)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def linear() -> nn.Module:
    """Build the network of one layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def fit_seconds(config: instantiate.Config, is_plain: bool, has_callbacks: bool) -> float:
    """Train once; return the CPU seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        run, clock = RunDirectory(Path(folder)), Clock()
        network = linear()
        module = PlainModule(network, config) if is_plain else instantiate.build_lightning_module(config, network)
        own = instantiate.build_callbacks(config, run, "acc1") if has_callbacks else []
        own = [callback for callback in own if not isinstance(callback, ModelCheckpoint)]
        loggers = instantiate.build_loggers(config, run) if has_callbacks else []
        trainer = instantiate.build_trainer(config, [*own, clock], loggers, run)
        trainer.fit(module, datamodule=instantiate.build_datamodule(config))
    return clock.seconds / STEPS


def bare_seconds(overrides: tuple[str, ...], network: nn.Module | None = None) -> Callable[[], float]:
    """Build a bare loop; each call returns the CPU seconds of a step."""
    config = configuration(*overrides)
    datamodule: Any = instantiate.build_datamodule(config)
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    loop = bare_loop(config, network or instantiate.build_network(config).network, loader)

    def run() -> float:
        started = time.process_time()
        loop()
        return (time.process_time() - started) / len(loader) / config["trainer"]["max_epochs"]

    return run


def ema_seconds(overrides: tuple[str, ...]) -> Callable[[], float]:
    """Build an average; each call returns the CPU seconds of an update."""
    network = instantiate.build_network(configuration(*overrides)).network
    average = EMAModel(network, torch.device("cpu"), 0.999)

    def run() -> float:
        started = time.process_time()
        for _ in range(20):
            average.update_parameters(network)
        return (time.process_time() - started) / 20

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    register_resolvers()
    config = configuration(*DIGITS, *NEVER)
    small = (*CIFAR, "datamodule.num_images=256")
    parts = {
        "linear": bare_seconds(DIGITS, linear()),
        "Lightning": lambda: fit_seconds(config, is_plain=True, has_callbacks=False),
        "metrics": lambda: fit_seconds(config, is_plain=False, has_callbacks=False),
        "callbacks": lambda: fit_seconds(config, is_plain=False, has_callbacks=True),
        "digits": bare_seconds(DIGITS),
        "ghost_resnet56": bare_seconds(small),
        "EMA of ghost_resnet20": ema_seconds(DIGITS),
        "EMA of ghost_resnet56": ema_seconds(small),
    }
    measured = [{name: 1e3 * part() for name, part in parts.items()} for _ in range(rounds + 1)][1:]
    print(f"{cpu()}, one thread, torch {torch.__version__}, {rounds} rounds\n")
    steps = [median(one[name] for one in measured) for name in ("digits", "ghost_resnet56")]
    print(f"a step of a bare loop: {steps[0]:.1f} ms (digits), {steps[1]:.0f} ms (ghost_resnet56)\n")
    print("| added to it | ms | of a digits step | of a ghost_resnet56 step |\n| --- | --- | --- | --- |")
    rows = [("Lightning", "linear"), ("metrics", "Lightning"), ("callbacks", "metrics"), ("callbacks", "linear")]
    names = ["Lightning alone", "metrics and random state", "callbacks and loggers", "all of these"]
    for name, (more, less) in zip(names, rows, strict=True):
        print_row(name, median(one[more] - one[less] for one in measured), steps)
    print_row("EMA of ghost_resnet20", median(one["EMA of ghost_resnet20"] for one in measured), [steps[0]])
    print_row("EMA of ghost_resnet56", median(one["EMA of ghost_resnet56"] for one in measured), [0, steps[1]])


def print_row(name: str, milliseconds: float, steps: list[float]) -> None:
    """Print what is added, and as a part of each step."""
    parts = [f"{100 * milliseconds / step:.1f} %" if step else "" for step in [*steps, 0][:2]]
    print(f"| {name} | {milliseconds:.2f} | {' | '.join(parts)} |")


if __name__ == "__main__":
    main()
