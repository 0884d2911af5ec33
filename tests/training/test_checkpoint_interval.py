"""Fast epochs do not save each time."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest

from ghostexp.training.callbacks.checkpoint import ModelCheckpoint
from tests.cli import TINY, command, in_directory


@pytest.mark.parametrize(("seconds", "epochs"), [(0, [0, 1, 2, 3]), (1000, [0, 3])])
def test_fast_epochs_save_at_most_every_so_many_seconds(
    seconds: int, epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = ModelCheckpoint.save_last
    monkeypatch.setattr(
        ModelCheckpoint, "save_last", lambda self, trainer: (saved.append(trainer.current_epoch), save(self, trainer))
    )
    rest = ("trainer.max_epochs=4", "trainer.limit_val_batches=0", f"callbacks.min_seconds_between_saves={seconds}")
    assert command(*TINY, *rest, in_directory(tmp_path / "run")) == 0
    assert saved == epochs


def test_metric_that_is_not_a_number_is_not_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = ModelCheckpoint(tmp_path, "val/x")
    saved: list[int] = []
    monkeypatch.setattr(callback, "_save_best", lambda trainer: saved.append(trainer.current_epoch))
    for epoch, value in enumerate([math.nan, 0.5, 0.4, math.nan, 0.9]):
        trainer = Mock(current_epoch=epoch, max_epochs=9, should_stop=False, callback_metrics={"val/x": value})
        trainer.strategy.broadcast = lambda metrics: metrics
        monkeypatch.setattr(callback, "save_last", lambda _: None)
        callback.on_train_epoch_end(trainer, Mock())
    assert saved == [1, 4]
    assert (callback.best, callback.best_epoch) == (0.9, 4)


def test_best_is_that_of_rank_0_on_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = ModelCheckpoint(tmp_path, "val/x")
    monkeypatch.setattr(callback, "_save_best", lambda _: None)
    trainer = Mock(current_epoch=0, max_epochs=9, should_stop=False, callback_metrics={"val/x": 0.1})
    trainer.strategy.broadcast = lambda metrics: dict.fromkeys(metrics, 0.7)
    callback.on_train_epoch_end(trainer, Mock())
    assert (callback.best, callback.best_metrics) == (0.7, {"val/x": 0.7})


class KeepsAnObject(pl.Callback):
    """A callback whose state a checkpoint cannot give back."""

    def state_dict(self) -> dict[str, Any]:
        return {"half": Fraction(1, 2)}


def test_checkpoint_that_cannot_be_read_ends_the_run_at_its_first_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = f"+callbacks.mine._target_={KeepsAnObject.__module__}.KeepsAnObject"
    assert command(*TINY, callback, "trainer.max_epochs=3", in_directory(tmp_path / "run")) == 1
    wanted = "ckpt: must hold tensors and plain values, got fractions.Fraction; see save_hyperparameters"
    assert wanted in capsys.readouterr().err
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) <= 2
