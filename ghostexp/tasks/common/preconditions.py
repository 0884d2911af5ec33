"""Check before a training that validation and test will be possible."""

from dataclasses import replace

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from ghostexp.data.base import DataModule
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.tasks.common.instantiate import Config


class CheckEvaluation(Callback):
    """Raise ValueError, once the data are read, for a test without batches or a validation without its metric.

    The metric is needed by `datamodule.validate_on=holdout`, which tests the best epoch, and by `callbacks.patience`.
    """

    def __init__(self, config: Config, monitor: str) -> None:
        is_val, has_patience = (
            config["datamodule"].get("validate_on") == "holdout",
            config["callbacks"].get("patience") is not None,
        )
        self.needed_by = "datamodule.validate_on=holdout" if is_val else "callbacks.patience" if has_patience else None
        self.monitor = monitor

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the test and validation sets."""
        datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(datamodule, DataModule):
            return
        _count_batches(datamodule, datamodule.test_images, "limit_test_batches", trainer.limit_test_batches)
        if self.needed_by is not None and isinstance(datamodule, DetectionDataModule):
            self._check_objects(datamodule, trainer.limit_val_batches)

    def _check_objects(self, datamodule: DetectionDataModule, limit: float) -> None:
        images, indices = datamodule.images, datamodule.val_indices
        assert images is not None
        part = images.test if indices is None else images.train
        indices = torch.arange(len(part)) if indices is None else indices
        batches = _count_batches(datamodule, len(indices), "limit_val_batches", limit)
        last = replace(
            datamodule.eval_batches, rank=datamodule.eval_batches.world_size - 1
        )  # whose images come last in each batch
        seen = indices[: last.eval_ranges(len(indices))[batches - 1][1]]
        if not part.annotations.has_objects()[seen.numpy()].any():
            raise ValueError(
                f"{self.needed_by}: none of {len(seen)} validation images has an object, so that there is no "
                f"{self.monitor}; see datamodule.holdout_fraction, datamodule.split_seed, trainer.limit_val_batches"
            )


def _count_batches(datamodule: DataModule, images: int, key: str, limit: float) -> int:
    """Count the batches of an evaluation under a limit.

    Raises ValueError: none.
    """
    batches = len(datamodule.eval_batches.eval_ranges(images))
    left = min(limit, batches) if isinstance(limit, int) else int(batches * limit)
    if left == 0:
        raise ValueError(f"trainer.{key}={limit}: must leave at least one of {batches} batches")
    return left
