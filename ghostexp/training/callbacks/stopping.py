"""Stop a training early: on signals, and without improvement."""

import math
import signal
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from ghostexp.runs.outcome import Paused
from ghostexp.runs.signals import stop_signals
from ghostexp.training.callbacks.agreement import RankAgreement
from ghostexp.training.callbacks.checkpoint import ModelCheckpoint, at_step_end
from ghostexp.training.distributed import silence_sigterm_broadcast


class StoppedBySignal(BaseException):
    """The run was stopped by a signal, its last checkpoint saved. Not an Exception: no library may swallow it."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum = signum


class SignalHandler(Callback):
    """On a stop signal, save at the end of the step and raise `StoppedBySignal`; at a second signal, stop at once.

    All ranks stop after the same step, even if only one of them was signalled. In the same question they agree on
    whether a checkpoint is due by the clock.
    pause_after: epochs after which the training is saved, and `Paused` raised.
    """

    def __init__(self, checkpoints: ModelCheckpoint, pause_after: int | None = None) -> None:
        self.checkpoints = checkpoints
        self.pause_after = pause_after
        self.agreement = RankAgreement()
        self.received: int | None = None
        self.is_stopping = False  # all ranks, after this epoch
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers; Lightning's own would end with exit code 0 and no checkpoint.

        Lightning sets its handlers after `on_fit_start`; they wait for the other ranks inside the handler and hang.
        """
        self.before = {signum: signal.signal(signum, self._receive) for signum in stop_signals()}
        silence_sigterm_broadcast(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the signal handlers, and stop if a signal came after the last step: only the test is left to do."""
        self._restore()
        if self.is_stopping:
            self._stop(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop inside an epoch."""
        if at_step_end(trainer, batch_idx) and self._ask(trainer):
            self.checkpoints.save_last(trainer)
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Request a save of the epoch's end if the training stops there."""
        self.is_stopping = self._ask(trainer, now=True)
        self.checkpoints.save_requested = self.is_stopping or trainer.current_epoch + 1 == self.pause_after

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop or pause between epochs."""
        if self.pause_after is not None and trainer.current_epoch >= self.pause_after and self.received is None:
            raise Paused(f"paused after epoch {trainer.current_epoch}")
        if self.checkpoints.save_requested:
            self._stop(trainer)

    def _ask(self, trainer: pl.Trainer, now: bool = False) -> bool:
        """Return whether any rank was signalled, and tell the checkpoints whether one is due by any rank's clock."""
        checkpoints = self.checkpoints
        wishes = self.received is not None, checkpoints.is_due_by_clock(), checkpoints.is_too_soon()
        signalled, checkpoints.due_by_clock, checkpoints.too_soon = self.agreement.any(trainer, *wishes, now=now)
        return signalled

    def _stop(self, trainer: pl.Trainer) -> None:
        raise StoppedBySignal(self.received or signal.SIGTERM, trainer.global_step)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._restore()
            raise KeyboardInterrupt
        self.received = signum

    def _restore(self) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}


class ResumableEarlyStopping(EarlyStopping):
    """Lightning's early stopping with patience in epochs, also for a resumed run whose patience is exhausted.

    Lightning's own counts validations, which may happen only every few epochs.
    """

    def __init__(self, monitor: str, epochs: int, mode: str = "max") -> None:
        super().__init__(monitor, mode=mode, patience=epochs)
        self.epochs = epochs

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Convert the patience from epochs to validations."""
        super().setup(trainer, pl_module, stage)
        self.patience = math.ceil(self.epochs / (trainer.check_val_every_n_epoch or 1))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the next epoch if the last one should have been the last."""
        if self.wait_count >= self.patience or self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True
