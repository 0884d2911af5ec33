"""Check before a training that validation and test will be possible."""

from dataclasses import replace

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ghostexp.data.base import DataModule
from ghostexp.data.coco_annotations import evaluated_areas
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.tasks.common.instantiate import Config
from ghostexp.tasks.common.nodes import find_target
from ghostexp.training.detection_module import AREAS
from ghostexp.validation import notice


class CheckEvaluation(Callback):
    """Raise ValueError, once the data are read, for a test without batches or a validation without its metric.

    The metric is needed by `datamodule.validate_on=holdout`, which tests the best epoch, by `callbacks.patience`, and
    by a scheduler that is `ReduceLROnPlateau`.
    """

    def __init__(self, config: Config, monitor: str) -> None:
        scheduler = find_target(config["scheduler"], "scheduler")
        needs = {
            "datamodule.validate_on=holdout": config["datamodule"].get("validate_on") == "holdout",
            "callbacks.patience": config["callbacks"].get("patience") is not None,
            f"scheduler._target_={config['scheduler']['_target_']}": isinstance(scheduler, type)
            and issubclass(scheduler, ReduceLROnPlateau),
        }
        self.needed_by = next((key for key, is_needed in needs.items() if is_needed), None)
        self.is_on_test = config["datamodule"].get("validate_on") == "test"
        self.monitor = monitor

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the test and validation sets; warn if the test set decides on the training."""
        datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(datamodule, DataModule):
            _count_batches(datamodule, datamodule.test_images, "limit_test_batches", trainer.limit_test_batches)
        if self.needed_by is not None and isinstance(datamodule, DetectionDataModule):
            self._check_objects(datamodule, trainer.limit_val_batches)
        if self.needed_by is not None and self.is_on_test:
            notice(
                f"warning: {self.needed_by}: decides by the test set, as datamodule.validate_on=test; "
                "datamodule.validate_on=holdout validates on a part of the training set"
            )

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
        size = self.monitor.rpartition("_")[2]
        low, high = AREAS.get(size, (0, float("inf")))
        areas = evaluated_areas(part.annotations.ground_truth)
        if not part.annotations.has_objects((areas < low) | (areas > high))[seen.numpy()].any():
            wanted = f"an object with an area in [{low}, {high:g}]" if size in AREAS else "an object"
            raise ValueError(
                f"{self.needed_by}: none of {len(seen)} validation images has {wanted}, so that there is no "
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
