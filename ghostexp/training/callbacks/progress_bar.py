"""Show the progress of a training."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ghostexp.runs.metrics import format_metric, format_number
from ghostexp.training.base_module import latest_metrics, training_loss

log = logging.getLogger(__name__)


class EpochProgressBar(ProgressBar):
    """One bar over the whole training on a terminal; a line per epoch, at most one in five seconds, elsewhere."""

    def __init__(self, monitor: str, seconds: float = 5.0) -> None:
        super().__init__()
        self.monitor = monitor
        self.seconds = seconds
        self.console = Console()
        self.bar: Bar | None = None
        self.enabled = True
        self.printed_at = 0.0
        self.updated_at = 0.0

    def disable(self) -> None:
        """Disable all output: Lightning calls this on every rank but the first."""
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        if not (self.enabled and self.console.file.isatty()):
            return
        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[metrics]}"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=self.console, transient=True, auto_refresh=False)
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self.task = self.bar.add_task("", total=total, completed=done, epoch="", metrics="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar, ten times a second at most."""
        if self.bar is None or time.monotonic() - self.updated_at < 0.1:
            return
        self.updated_at = time.monotonic()
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        metrics = self._metrics_text(trainer)
        if (loss := training_loss(outputs)) is not None:
            loss = float(loss) * trainer.accumulate_grad_batches  # by which Lightning divides it
            metrics = f"loss {format_number(loss)}  {metrics}"
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bar.update(self.task, completed=done, epoch=epoch, metrics=metrics, refresh=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the previous epoch, whose metrics are complete only now."""
        self._log_epoch(trainer, epochs_done=trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar, and log the last epoch."""
        self._close()
        self._log_epoch(trainer, epochs_done=trainer.current_epoch, is_last=True)

    def _log_epoch(self, trainer: pl.Trainer, epochs_done: int, is_last: bool = False) -> None:
        """Log a line, and print it where there is no bar."""
        metrics = trainer.callback_metrics
        if "train/loss" not in metrics:
            return
        loss = f"train/loss {format_number(float(metrics['train/loss']))}"
        line = f"epoch {epochs_done}/{trainer.max_epochs}  {loss}  {self._metrics_text(trainer)}"
        log.info(line)
        due = is_last or time.monotonic() - self.printed_at >= self.seconds
        if self.enabled and self.bar is None and due:
            self.printed_at = time.monotonic()
            print(line, flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _metrics_text(self, trainer: pl.Trainer) -> str:
        metrics = trainer.callback_metrics
        latest = latest_metrics(trainer)
        parts = []
        if self.monitor in latest:  # callback_metrics still hold those of earlier epochs
            parts.append(f"{self.monitor} {format_metric(self.monitor, latest[self.monitor])}")
        if "speed/images_per_second" in metrics:
            parts.append(f"{float(metrics['speed/images_per_second']):,.0f} img/s")
        return "  ".join(parts)
