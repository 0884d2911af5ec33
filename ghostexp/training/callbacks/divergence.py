"""Check loss and weights: stop where they are not finite, warn where the loss explodes."""

import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ghostexp.models.finite import non_finite_weights
from ghostexp.runs.metrics import format_number
from ghostexp.training.base_module import latest_metrics, training_loss

log = logging.getLogger(__name__)
REMEDY = "try a lower optimizer.lr, scheduler.warmup_epochs=1 or trainer.gradient_clip_val=1"


class TerminateOnNaN(Callback):
    """Raise FloatingPointError where the loss or the weights are NaN or infinite, before anything is saved.

    On a GPU the loss is checked every `every` batches and at the end of each epoch, because a check synchronises the
    device; the weights are checked before each checkpoint: a finite loss may have a gradient that is not.
    With `trainer.precision=16-mixed` a single overflow is no reason to stop: the gradient scaler skips that step.
    """

    SKIPPED_STEPS = 20  # in a row, after which an overflow counts as persistent

    def __init__(self, last: Path, every: int = 50) -> None:
        self.last = last
        self.every = every
        self.allowed = 0  # bad losses in a row
        self.in_a_row: Tensor | None = None
        self.first_bad: Tensor | None = None  # step at which there were more than allowed; -1: none

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Allow overflows if the gradients are scaled."""
        has_scaler = getattr(trainer.precision_plugin, "scaler", None) is not None
        self.allowed = self.SKIPPED_STEPS if has_scaler else 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the first bad loss, and check for one."""
        loss = training_loss(outputs)
        if loss is None:
            return
        if self.first_bad is None or self.in_a_row is None:
            self.first_bad = torch.full((), -1, dtype=torch.long, device=loss.device)
            self.in_a_row = torch.zeros((), dtype=torch.long, device=loss.device)
        self.in_a_row = torch.where(torch.isfinite(loss), 0, self.in_a_row + 1)
        is_first = (self.in_a_row > self.allowed) & (self.first_bad < 0)
        self.first_bad = torch.where(is_first, trainer.global_step, self.first_bad)
        if loss.device.type == "cpu" or batch_idx % self.every == 0:
            self._raise_if_bad()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the epoch's losses."""
        self._raise_if_bad()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Check before a checkpoint replaces a good one."""
        self._raise_if_bad()
        if names := non_finite_weights(pl_module):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self._stop(f"the weights after step {trainer.global_step} ({names[0]}{more})", "are not finite numbers")

    def _raise_if_bad(self) -> None:
        if self.first_bad is not None and (step := int(self.first_bad)) >= 0:
            before = f" and of the {self.allowed} steps before it" if self.allowed else ""
            self._stop(f"the loss of step {step}{before}", "is not a finite number")

    def _stop(self, what: str, problem: str) -> NoReturn:
        kept = f"{self.last} is kept" if self.last.exists() else "no checkpoint was saved before"
        raise FloatingPointError(f"{what} {problem}; {kept} ({REMEDY})")


class WarnOnDivergence(Callback):
    """Warn once when the loss is finite, but many times that of the first step.

    The first loss is in the checkpoint; it is read when an epoch ends, because reading synchronises the device.
    """

    TIMES = 10  # the first step's loss, or 1 where that is less: a fine-tuned network starts near 0

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.has_warned = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first loss."""
        if self.first is None and (loss := training_loss(outputs)) is not None:
            self.first = loss.detach() * trainer.accumulate_grad_batches  # by which Lightning divides it

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the previous epoch, whose mean is complete only now."""
        self._check(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last epoch."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        loss = latest_metrics(trainer).get("train/loss")
        if self.first is None or loss is None or self.has_warned or loss <= self.TIMES * max(float(self.first), 1.0):
            return
        self.has_warned = True
        text = (
            f"the training diverges: the mean loss of epoch {trainer.current_epoch} is {format_number(loss)}, "
            f"that of the first step was {format_number(float(self.first))} ({REMEDY})"
        )
        log.warning(text)
        if trainer.is_global_zero:
            print(f"warning: {text}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """Return the first loss, and whether a warning was given."""
        return {"first": None if self.first is None else float(self.first), "has_warned": self.has_warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first loss, and whether a warning was given."""
        first = state_dict["first"]
        self.first = None if first is None else torch.tensor(first)
        self.has_warned = state_dict["has_warned"]
