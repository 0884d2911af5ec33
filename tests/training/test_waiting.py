"""What ends a wait, and what a stopped training keeps."""

import math
import time
from pathlib import Path
from typing import cast
from unittest.mock import MagicMock, Mock

import lightning.pytorch as pl
import pytest
import torch

from ghostexp.data.base import DataModule
from ghostexp.training.callbacks.batch_timeout import BatchTimeout
from ghostexp.training.callbacks.checkpoint import ModelCheckpoint
from ghostexp.training.callbacks.stopping import ResumableEarlyStopping
from tests.data.fake_image_folders import CIFAR10_CLASSES, cifar10, write_tree

TRAINER = cast(pl.Trainer, Mock())
MODULE = cast(pl.LightningModule, Mock())


def test_save_of_a_checkpoint_is_no_wait_for_a_batch(tmp_path: Path) -> None:
    checkpoints = ModelCheckpoint(tmp_path, "val/acc1")
    timeout = BatchTimeout(0.2, checkpoints)
    timeout.setup(TRAINER, MODULE, "fit")
    try:
        checkpoints.is_saving = True
        timeout.on_train_batch_end(cast(pl.Trainer, Mock(is_last_batch=False)))
        time.sleep(0.6)
        checkpoints.is_saving = False
        with pytest.raises(TimeoutError, match="no batch came"):
            time.sleep(5)
    finally:
        timeout.teardown(TRAINER, MODULE, "fit")


def test_resumed_training_that_early_stopping_had_ended_stops_again() -> None:
    """By a metric that is not finite, after which no patience is exhausted."""
    stopped = ResumableEarlyStopping("val/loss", epochs=3, mode="min")
    trainer = Mock(callback_metrics={"val/loss": torch.tensor(math.nan)}, should_stop=False, fast_dev_run=False)
    stopped._run_early_stopping_check(trainer)
    assert trainer.should_stop
    resumed, trainer = ResumableEarlyStopping("val/loss", epochs=3, mode="min"), Mock(should_stop=False)
    resumed.on_train_start(trainer, MODULE)
    assert not trainer.should_stop
    resumed.load_state_dict(stopped.state_dict())
    resumed.on_train_start(trainer, MODULE)
    assert trainer.should_stop


def test_ranks_wait_for_the_check_of_the_files_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own barrier after `setup` has the limit of collectives, which ImageNet on a disk exceeds."""
    events: list[str] = []
    barrier = MagicMock(__enter__=lambda _: events.append("enter"), __exit__=lambda *_: events.append("exit"))
    monkeypatch.setattr("ghostexp.data.base._InfiniteBarrier", lambda: barrier)
    monkeypatch.setattr(DataModule, "_check_files", lambda *_: events.append("check"))
    cifar10(write_tree(tmp_path, {"train": 1, "test": 1}, classes=CIFAR10_CLASSES)).setup("fit")
    assert events == ["enter", "check", "exit"]
