"""End a run whose next batch does not come."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ghostexp.training.callbacks.checkpoint import ModelCheckpoint
from ghostexp.training.distributed import BATCH_SECONDS

SIGNAL = signal.SIGVTALRM  # to the main thread; nothing else uses it: SIGALRM may be a test's, SIGUSR2 is SLURM's


class BatchTimeout(Callback):
    """Raise TimeoutError when the next batch has not come within `seconds`, whichever loader it is.

    Other ranks would wait for it, and a single process for ever. A thread counts the seconds of one wait, not of a
    step, a save, a validation or a suspended process, and interrupts the main thread by a signal. A wait that no signal
    interrupts, such as for a dead disk, ends only with the other ranks: by the time limit of their collective.
    """

    def __init__(self, seconds: float = BATCH_SECONDS, checkpoints: ModelCheckpoint | None = None) -> None:
        if seconds <= 0:
            raise ValueError(f"callbacks.batch_timeout={seconds}: must be a number > 0")
        self.seconds = seconds
        self.checkpoints = checkpoints  # whose saves are no waiting
        self.awaited: object | None = None  # a new object for each wait; None: nobody waits
        self.ended: threading.Event | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the thread.

        The handler stays: a late signal would end the process, and Lightning restores handlers after callbacks.
        """
        signal.signal(SIGNAL, self._raise)
        self.ended = threading.Event()
        threading.Thread(target=self._watch, args=(self.ended,), daemon=True).start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the thread."""
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End the thread."""
        self._end()

    def _end(self) -> None:
        self.awaited = None
        if self.ended is not None:
            self.ended.set()
            self.ended = None

    def _watch(self, ended: threading.Event) -> None:
        """Count the ticks of the present wait: of a process that is suspended there are none."""
        tick, ticks, awaited = min(1.0, self.seconds / 4), 0, None
        main = threading.main_thread().ident
        assert main is not None
        while not ended.wait(tick):
            is_waiting = awaited is self.awaited is not None and not (self.checkpoints and self.checkpoints.is_saving)
            ticks = ticks + 1 if is_waiting else 0
            awaited = self.awaited
            if ticks * tick >= self.seconds:
                signal.pthread_kill(main, SIGNAL)
                return

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        if self.awaited is not None:
            raise TimeoutError(f"callbacks.batch_timeout={self.seconds:g}: no batch came within so many seconds")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Wait for the next batch, unless validation or the epoch's end comes next."""
        self.awaited = None if trainer.is_last_batch else object()

    def _wait(self, *_: Any, **__: Any) -> None:
        self.awaited = object()

    def _stop_waiting(self, *_: Any, **__: Any) -> None:
        self.awaited = None

    on_train_start = on_train_epoch_start = on_validation_epoch_start = on_test_epoch_start = _wait
    on_validation_batch_end = on_test_batch_end = _wait
    on_train_batch_start = on_validation_batch_start = on_test_batch_start = _stop_waiting
    on_validation_epoch_end = on_test_epoch_end = _stop_waiting
