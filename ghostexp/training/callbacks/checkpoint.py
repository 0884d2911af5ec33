"""Checkpoints: when they are written, how, and how they are read."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from ghostexp.models.weights import check_match

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Files that are whole or not there, and that are read as tensors and plain values only.

    Lightning's own writes through the system's temporary folder, from where a move to another disk is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside the target, then rename.

        Raises OSError that names the file: a full disk, a folder that cannot be written.
        """
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            with suppress(OSError):
                partial.unlink()
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            kept = "the one before it is kept" if path.exists() else "there is none before it"
            raise OSError(f"{path}: the checkpoint could not be written ({reason}); {kept}") from error

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> dict:
        """See `read_checkpoint`."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; code in it is never run.

    Raises ValueError that names the file: it is not there, or not whole.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a whole checkpoint ({reason})") from error


def load_checkpoint_weights(module: nn.Module, path: Path) -> None:
    """Load a checkpoint's weights into a LightningModule, strictly.

    Raises ValueError that says what does not match: names missing, names unexpected, other shapes.
    """
    state = read_checkpoint(path).get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds no state_dict")
    check_match(module.state_dict(), state, path)
    module.load_state_dict(state)


class ModelCheckpoint(Checkpoint):
    """Write `last.ckpt` by epochs, steps or minutes, and `best.ckpt` at a new maximum of `monitor`.

    Never inside an accumulated step, whose gradients no checkpoint holds, and never between an epoch's last step and
    its validation: the epoch's end follows at once, and is a state from which Lightning resumes exactly.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        every_minutes: float | None = None,
    ) -> None:
        for name, value in (("epochs", every_epochs), ("steps", every_steps), ("minutes", every_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"callbacks.save_every_n_{name}={value}: a number > 0, or null, is needed")
        self.folder = folder
        self.last = folder / "last.ckpt"
        self.monitor = monitor
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}
        self.save_requested = False  # whether the next epoch's end has to be saved, due or not
        self.saved_at = time.monotonic()

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt` now, what was logged before it."""
        self._save(trainer, self.last)

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(path, weights_only=False)
        self.saved_at = time.monotonic()

    def _save_best(self, trainer: pl.Trainer) -> None:
        """Write `best.ckpt`, then make it `last.ckpt`: a run killed in between has the best that `last.ckpt` names."""
        best = self.folder / "best.ckpt"
        self._save(trainer, best)
        if trainer.is_global_zero:
            copy_atomically(best, self.last)
        trainer.strategy.barrier("last.ckpt")  # before another rank reads it

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save by steps and minutes."""
        if at_step_end(trainer, batch_idx) and (self._steps_are_due(trainer) or self._minutes_are_due(trainer)):
            self.save_last(trainer)

    def _steps_are_due(self, trainer: pl.Trainer) -> bool:
        return self.every_steps is not None and trainer.global_step % self.every_steps == 0

    def _minutes_are_due(self, trainer: pl.Trainer) -> bool:
        if self.every_minutes is None:
            return False
        due = time.monotonic() - self.saved_at >= 60 * self.every_minutes
        return due if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(due, all=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save by epochs, the last epoch always, and the best."""
        epoch = trainer.current_epoch
        metrics: dict[str, float] = pl_module.metrics  # pyright: ignore[reportAssignmentType]
        score = metrics.get(self.monitor)
        improved = score is not None and (self.best is None or score > self.best)
        if improved:
            self.best, self.best_epoch = score, epoch
            self.best_metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
        due = self.every_epochs is not None and (epoch + 1) % self.every_epochs == 0
        due |= self._steps_are_due(trainer)
        due |= self._minutes_are_due(trainer)
        if improved:
            self._save_best(trainer)
        elif due or self.save_requested or trainer.should_stop or epoch + 1 == trainer.max_epochs:
            self.save_last(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_epoch": self.best_epoch, "best_metrics": self.best_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best so far, unless its file is gone."""
        if state_dict["best"] is not None and not (self.folder / "best.ckpt").exists():
            log.warning("%s: not there any more; the best epoch is chosen anew", self.folder / "best.ckpt")
            return
        self.best = state_dict["best"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_metrics = state_dict["best_metrics"]


def at_step_end(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a state that can be resumed exactly has been reached: an optimizer step done, and the epoch not over."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch


def copy_atomically(source: Path, target: Path) -> None:
    """Make `target` the file that `source` is now, by a hard link where the file system has them.

    `source` is only ever replaced, never written into, so that the link keeps today's content.
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        partial.write_bytes(source.read_bytes())
    partial.replace(target)
