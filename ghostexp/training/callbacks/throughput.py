"""Measure training images per second."""

import statistics
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.data import extract_batch_size

from ghostexp.training.base_module import training_loss
from ghostexp.training.loggers import log_metrics


class Throughput(Callback):
    """Log `speed/images_per_second` once an epoch: images of all devices over the time of the training batches alone.

    An epoch's first batch is left out where there is more than one: it pays for compilation and warm-up.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.seconds = 0.0  # of all epochs, validation included, over all processes of the run
        self.epoch_started = 0.0
        self.images = 0
        self.started: float | None = None
        self.rate: float | None = None  # of the current epoch, once its last batch is done

    @property
    def median(self) -> float | None:
        """Return images per second, the median over epochs."""
        return statistics.median(self.rates) if self.rates else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the timer of an interrupted epoch, for which Lightning does not call `on_train_epoch_start` again."""
        self.epoch_started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the timer and the count."""
        self.epoch_started = time.perf_counter()
        self.images = 0
        self.started = None
        self.rate = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the timer at the second batch, or at an only one."""
        if self.started is None and (self.images or trainer.num_training_batches == 1):
            self.images = 0
            self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's images, and stop the timer at the last batch."""
        self.images += _num_images(batch) * trainer.world_size
        if trainer.is_last_batch and self.started is not None:
            if (loss := training_loss(outputs)) is not None:
                float(loss)  # synchronises the device
            self.rate = self.images / (time.perf_counter() - self.started)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's rate."""
        self.seconds += time.perf_counter() - self.epoch_started
        self.epoch_started = time.perf_counter()
        if self.rate is not None:
            self.rates.append(self.rate)
            pl_module.log("speed/images_per_second", self.rate, logger=False)
            log_metrics(trainer, {"speed/images_per_second": self.rate})

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far."""
        return {"rates": self.rates, "seconds": self.seconds + time.perf_counter() - self.epoch_started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements."""
        self.rates = state_dict["rates"]
        self.seconds = state_dict["seconds"]


def _num_images(batch: Any) -> int:
    """Count the images of a batch; of another datamodule, by the first dimension of its tensors."""
    return len(batch[0]) if isinstance(batch, list | tuple) else extract_batch_size(batch)
