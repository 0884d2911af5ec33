"""Measure the overhead of this project's training over a bare loop, and the gain of its CPU settings.

    python experiments/speed/training_loop.py                 # both tables, ten minutes on two cores
    python experiments/speed/training_loop.py --threads 1

Overhead: Lightning with all of this project's callbacks, logging and checkpoints, from the first batch to the end of
the last epoch without validation, beside a bare loop with the same network, loader, optimizer and settings.
Settings: a bare loop in eager float32 with contiguous images, as a plain script runs it, beside the same loop with
channels_last (this project's default), and with channels_last and compile=true.
Both run on the GPU if there is one. All alternate 7 times; ratios are medians over the pairs.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch import nn

from ghostexp.__main__ import CONF, register_resolvers
from ghostexp.analysis.latency import now
from ghostexp.data.dataloader import ResumableLoader
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.provenance import cpu
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.load_model import inference_device

PAIRS = 7
DIGITS = ("model=ghost_resnet20", "datamodule=digits", "trainer.max_epochs=3")
CIFAR = ("model=ghost_resnet56", "datamodule=fake", "datamodule.num_images=1280", "datamodule.batch_size=128")
CIFAR += ("datamodule.crop_padding=4", "datamodule.hflip=true", "trainer.max_epochs=1")


class Clock(Callback):
    """Seconds from the first batch to the end of the last epoch."""

    seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.seconds = -now(pl_module.train_sums)  # pyright: ignore[reportArgumentType]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds += now(pl_module.train_sums)  # pyright: ignore[reportArgumentType]


def configuration(*overrides: str) -> instantiate.Config:
    """Compose the configuration of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [*overrides, "trainer.limit_val_batches=0", "callbacks.progress=false"])
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    return config  # pyright: ignore[reportReturnType]


def lightning_seconds(config: instantiate.Config) -> float:
    """Train once with this project; return the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run, clock = RunDirectory(Path(folder)), Clock()
        network, *_ = instantiate.build_network(config)
        module = instantiate.build_lightning_module(config, network)
        callbacks = [*instantiate.build_callbacks(config, run, "acc1"), clock]
        trainer = instantiate.build_trainer(config, callbacks, instantiate.build_loggers(config, run), run)
        trainer.fit(module, datamodule=instantiate.build_datamodule(config))
    return clock.seconds


def bare_loop(config: instantiate.Config, network: nn.Module, loader: ResumableLoader) -> Callable[[], float]:
    """Build the same training as a bare loop; each call returns its seconds."""
    epochs, weight = config["trainer"]["max_epochs"], next(network.parameters())
    optimizer = instantiate.instantiate_node(config["optimizer"], "optimizer")(network)
    factor = instantiate.instantiate_node(config["scheduler"], "scheduler")(epochs, len(loader))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def run() -> float:
        start = now(weight)
        for _ in range(epochs):
            for images, targets in loader:
                loss = F.cross_entropy(network(images.to(weight.device)), targets.to(weight.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return now(weight) - start

    return run


def prepared_loop(overrides: tuple[str, ...], *more: str) -> Callable[[], float]:
    """Build a bare loop and run it once as a warm-up."""
    config = configuration(*overrides, *more)
    datamodule: Any = instantiate.build_datamodule(config)
    datamodule.setup("fit")
    device = inference_device(config)
    datamodule.images.train.to(device)  # as Lightning's trainer has them
    network = instantiate.build_network(config).network.to(device)
    loop = bare_loop(config, network, datamodule.train_dataloader())
    loop()
    return loop


def overhead(name: str, overrides: tuple[str, ...]) -> None:
    """Print a row of the first table."""
    config, bare = configuration(*overrides), prepared_loop(overrides)
    lightning_seconds(config)
    pairs = [(lightning_seconds(config), bare()) for _ in range(PAIRS)]
    ratios = sorted(ours / theirs - 1 for ours, theirs in pairs)
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    print(
        f"| {name} | {ours:.2f} | {theirs:.2f} | {100 * median(ratios):+.1f} % "
        f"({100 * ratios[0]:+.1f} to {100 * ratios[-1]:+.1f}) |"
    )


def settings() -> None:
    """Print the second table."""
    loops = {
        "eager, contiguous": prepared_loop(CIFAR, "channels_last=false"),
        "channels_last (default)": prepared_loop(CIFAR),
        "channels_last, compile=true": prepared_loop(CIFAR, "compile=true"),
    }
    rounds = [{name: loop() for name, loop in loops.items()} for _ in range(PAIRS)]
    for name in loops:
        rates = [1280 / seconds[name] for seconds in rounds]
        ratios = [seconds["eager, contiguous"] / seconds[name] for seconds in rounds]
        print(f"| {name} | {median(rates):.0f} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None)
    threads = parser.parse_args().threads
    if threads:
        torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    register_resolvers()
    print(f"{cpu()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {PAIRS} alternating runs\n")
    print("| overhead | this project, s | bare loop, s | over the bare loop |\n| --- | --- | --- | --- |")
    overhead("digits, ghost_resnet20, 3 epochs", DIGITS)
    overhead("32 x 32, ghost_resnet56, 10 steps of 128", CIFAR)
    print("\n| ghost_resnet56, 32 x 32, batch 128 | img/s | times eager |\n| --- | --- | --- |")
    settings()


if __name__ == "__main__":
    main()
