"""Parts of an own package: each is found by its `_target_`."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ghostexp.models.ghost_module import GhostModule


class ThreeLayers(nn.Sequential):
    """A network."""

    def __init__(self, num_classes: int, in_chans: int, width: int = 8, ratio: int = 2) -> None:
        ghosts = GhostModule(in_chans, width, kernel_size=3, ratio=ratio), GhostModule(width, width, kernel_size=3)
        super().__init__(*ghosts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


class Stripes(Dataset):
    """A Dataset: horizontal or vertical stripes in noise."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(128, (count, 1, 16, 16), generator=generator, dtype=torch.uint8)
        self.targets = torch.arange(count) % 2
        self.images[self.targets == 0, :, ::4] += 64
        self.images[self.targets == 1, :, :, ::4] += 64
        self.classes = ["rows", "columns"]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])


class StripesDataModule(pl.LightningDataModule):
    """A LightningDataModule."""

    def __init__(self, batch_size: int, count: int = 64, first_class: int = 0) -> None:
        super().__init__()
        self.batch_size, self.count, self.first_class = batch_size, count, first_class

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train_set, self.val_set = self.stripes(self.count, seed=0), self.stripes(self.count // 4, seed=1)
        if stage == "test":
            self.test_set = self.stripes(self.count // 4, seed=2)

    def stripes(self, count: int, seed: int) -> TensorDataset:
        data = Stripes(count, seed)
        return TensorDataset(data.images / 255, data.targets + self.first_class)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_set, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_set, self.batch_size)


class Invert(nn.Module):
    """A transform."""

    def forward(self, image: Tensor) -> Tensor:
        return 255 - image if torch.rand(()) < 0.5 else image


class FocalLoss(nn.Module):
    """A loss."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, targets, reduction="none")
        return ((1 - torch.exp(-losses)) ** self.gamma * losses).mean()


class CountSteps(Callback):
    """A callback."""

    def __init__(self, file: str) -> None:
        self.file, self.steps = file, 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.steps += 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Path(trainer.default_root_dir, self.file).write_text(str(self.steps))


class StopAfter(Callback):
    """A callback that stops the training as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.steps and trainer.ckpt_path is None:  # not after a resume
            os.kill(os.getpid(), signal.SIGINT)


class ListLogger(DummyLogger):
    """A logger."""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.file = Path(save_dir, "list.txt")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self.file.open("a") as file:
            file.write(f"{step} {' '.join(metrics)}\n")


class SignSGD(torch.optim.Optimizer):
    """An optimizer."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad.sign()
        return loss


class Halve(torch.optim.lr_scheduler.LRScheduler):
    """A learning-rate schedule."""

    def get_lr(self) -> list[float]:
        return [float(rate) * 0.5**self.last_epoch for rate in self.base_lrs]


class PlainModule(pl.LightningModule):
    """A LightningModule."""

    def __init__(self, network: nn.Module, lr: float = 0.05) -> None:
        super().__init__()
        self.network, self.lr = network, lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate("val", *batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluate("test", *batch)

    def evaluate(self, stage: str, images: Tensor, classes: Tensor) -> None:
        hits = (self.network(images).argmax(1) == classes).float().mean()
        self.log(f"{stage}/hits", hits, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


def count_weights(config: dict[str, Any], directory: Any) -> dict[str, Any]:
    """Run a task."""
    from ghostexp.tasks.common import instantiate

    return {"weights": instantiate.build_network(config).cost.params}
