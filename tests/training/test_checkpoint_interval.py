"""Fast epochs do not save each time."""

from pathlib import Path

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
