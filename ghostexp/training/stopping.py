"""Ends of a training that are not its end: signals, a loss that is no number, no progress."""

import signal
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from ghostexp.runs.signals import stop_signals
from ghostexp.training.checkpoints import Checkpoints, at_step_end


class Stopped(BaseException):
    """The run was told to stop, and its last checkpoint is saved. Not an Exception: no library may swallow it."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum = signum


class StopOnSignal(Callback):
    """On a stop signal, save at the end of the step and raise `Stopped`; at a second signal, stop at once.

    All ranks stop after the same step, even if only one of them was signalled.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which would end with exit code 0 and no checkpoint.

        Lightning sets its handlers after `on_fit_start`; they wait for the other ranks inside the handler and hang.
        """
        self.before = {signum: signal.signal(signum, self._receive) for signum in stop_signals()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop inside an epoch."""
        if at_step_end(trainer, batch_idx) and self._is_signalled(trainer):
            self.checkpoints.save_last(trainer)
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the epoch's end saved, if it is where the training stops."""
        self.checkpoints.demanded = self._is_signalled(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs."""
        if self.checkpoints.demanded:
            self._stop(trainer)

    def _is_signalled(self, trainer: pl.Trainer) -> bool:
        signalled = self.received is not None
        return signalled if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(signalled, all=False)

    def _stop(self, trainer: pl.Trainer) -> None:
        raise Stopped(self.received or signal.SIGTERM, trainer.global_step)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._restore()
            raise KeyboardInterrupt
        self.received = signum

    def _restore(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}


class StopOnNonFinite(Callback):
    """Raise FloatingPointError that names the first step whose loss was NaN or infinite, before anything is saved.

    On a GPU the loss is looked at every `every` batches and at the end of each epoch, because looking waits for the
    device.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self.first_bad: Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note a bad loss, and look whether there was one."""
        loss = outputs["loss"]
        if self.first_bad is None:
            self.first_bad = torch.full((), -1, dtype=torch.long, device=loss.device)
        is_first = ~torch.isfinite(loss) & (self.first_bad < 0)
        self.first_bad = torch.where(is_first, trainer.global_step, self.first_bad)
        if loss.device.type == "cpu" or batch_idx % self.every == 0:
            self._raise_if_bad()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the epoch's losses."""
        self._raise_if_bad()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Look before a checkpoint replaces a good one."""
        self._raise_if_bad()

    def _raise_if_bad(self) -> None:
        if self.first_bad is not None and (step := int(self.first_bad)) >= 0:
            raise FloatingPointError(
                f"the loss of step {step} is not a finite number; the checkpoint before it is kept "
                "(try a lower optimizer.lr, scheduler.warmup=1 or trainer.gradient_clip_val=1)"
            )


class StopWithoutProgress(EarlyStopping):
    """Lightning's early stopping, which also ends a resumed run whose patience was exhausted when it was saved."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the next epoch if the last one should have been the last."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
