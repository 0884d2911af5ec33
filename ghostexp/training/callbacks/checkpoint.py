"""Write checkpoints atomically, on a schedule, and read them."""

import logging
import math
import operator
import os
import pickle
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from ghostexp.models.weights import check_match
from ghostexp.training.base_module import latest_metrics

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Atomic checkpoint files, read as tensors and plain values only.

    Lightning's own class writes to the system's temporary folder, from which a move to another disk is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write next to the target, then rename.

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
        """Read a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values; code in it is never run.

    Raises ValueError that names the file: it is missing, or incomplete.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|class) (\S+)", str(error))
        if found is None:
            raise ValueError(f"{path}: not a whole checkpoint ({str(error).splitlines()[0]})") from error
        raise ValueError(
            f"{path}: must hold tensors and plain values, got {found[1]}; "
            "see save_hyperparameters and state_dict of your parts"
        ) from error
    except Exception as error:  # torch raises half a dozen kinds here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a whole checkpoint ({reason})") from error


def load_checkpoint_weights(module: nn.Module, path: Path) -> None:
    """Load a checkpoint's weights into a LightningModule, strictly.

    Raises ValueError that lists the mismatch: missing names, unexpected names, other shapes.
    """
    state = read_checkpoint(path).get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds no state_dict")
    check_match(module.state_dict(), state, path)
    module.load_state_dict(state)


class ModelCheckpoint(Checkpoint):
    """Write `last.ckpt` by epochs, steps or minutes, and `best.ckpt` at a new best of `monitor`.

    Never inside an accumulated step, whose gradients no checkpoint holds, and never between an epoch's last step and
    its validation: the epoch's end follows at once, and Lightning resumes exactly from it.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        min_seconds: float = 0,
        mode: Literal["max", "min"] = "max",
    ) -> None:
        for name, value in (("epochs", every_epochs), ("steps", every_steps), ("minutes", every_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"callbacks.save_every_n_{name}={value}: must be a number > 0, or null")
        if min_seconds < 0:
            raise ValueError(f"callbacks.min_seconds_between_saves={min_seconds}: must be a number >= 0")
        self.folder = folder
        self.last = folder / "last.ckpt"
        self.monitor = monitor
        self.is_better = operator.gt if mode == "max" else operator.lt
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.min_seconds = min_seconds  # between two saves of `every_epochs`
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}
        self.save_requested = False  # save at the next epoch's end, due or not
        # Of all ranks; set by SignalHandler, which runs before this callback.
        self.due_by_clock = False
        self.too_soon = False
        self.has_saved = False
        self.is_saving = False
        self.saved_at = time.monotonic()

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`, after flushing the loggers."""
        self._save(trainer, self.last)

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        self.is_saving = True
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(path, weights_only=False)
        if not self.has_saved and trainer.is_global_zero:
            read_checkpoint(path)  # now, and not after the last epoch
        self.saved_at, self.has_saved, self.is_saving = time.monotonic(), True, False

    def _save_best(self, trainer: pl.Trainer) -> None:
        """Write `best.ckpt`, then `last.ckpt`: a run killed in between resumes before its best, and repeats it."""
        best = self.folder / "best.ckpt"
        self._save(trainer, best)
        if trainer.is_global_zero:
            copy_atomically(best, self.last)
        trainer.strategy.barrier("last.ckpt")  # before another rank reads it

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the timer."""
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every n steps and every n minutes."""
        if at_step_end(trainer, batch_idx) and (self._steps_are_due(trainer) or self.due_by_clock):
            self.save_last(trainer)

    def _steps_are_due(self, trainer: pl.Trainer) -> bool:
        return self.every_steps is not None and trainer.global_step % self.every_steps == 0

    def is_due_by_clock(self) -> bool:
        """Return whether `every_minutes` have passed, by this rank's clock."""
        return self.every_minutes is not None and time.monotonic() - self.saved_at >= 60 * self.every_minutes

    def is_too_soon(self) -> bool:
        """Return whether `min_seconds` since the last save have not passed yet, by this rank's clock."""
        return self.has_saved and time.monotonic() - self.saved_at < self.min_seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save every n epochs, at the last epoch, and at a new best."""
        epoch = trainer.current_epoch
        metrics = trainer.strategy.broadcast(latest_metrics(trainer))  # of another module, each rank may have its own
        value = metrics.get(self.monitor)
        if value is not None and math.isnan(value):
            value = None  # the first one would stay the best
        improved = value is not None and (self.best is None or self.is_better(value, self.best))
        if improved:
            self.best, self.best_epoch = value, epoch
            self.best_metrics = {name: value for name, value in metrics.items() if name.startswith("val/")}
        due = self.every_epochs is not None and (epoch + 1) % self.every_epochs == 0 and not self.too_soon
        due |= self._steps_are_due(trainer)
        due |= self.due_by_clock
        if improved:
            self._save_best(trainer)
        elif due or self.save_requested or trainer.should_stop or epoch + 1 == trainer.max_epochs:
            self.save_last(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch, "best_metrics": self.best_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best metric and its epoch, unless `best.ckpt` is missing."""
        if state_dict["best"] is not None and not (self.folder / "best.ckpt").exists():
            log.warning("%s: no longer there; the best epoch is selected anew", self.folder / "best.ckpt")
            return
        self.best = state_dict["best"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_metrics = state_dict["best_metrics"]


def at_step_end(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether an optimizer step was completed inside an epoch, so that a resume from here is exact."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch


def copy_atomically(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`, a hard link where the file system supports it.

    `source` is only ever replaced, never modified in place, so that a link keeps its content.
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        partial.write_bytes(source.read_bytes())
    partial.replace(target)
