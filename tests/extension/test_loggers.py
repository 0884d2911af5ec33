"""Loggers of other libraries, as the README writes them; each is tried if its library is installed."""

import sqlite3
import zipfile
from pathlib import Path

import pytest
from lightning.pytorch.loggers.logger import DummyLogger

from tests.cli import TINY, command, finish_cold, in_directory

OF_LIGHTNING = "_target_=lightning.pytorch.loggers"


class FailingLogger(DummyLogger):
    """A logger without its server."""

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        raise ConnectionError("no server")


def test_mlflow_records_metrics(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    database = tmp_path / "mlflow.db"
    uri = f"logger.mlflow.tracking_uri=sqlite:///{database}"
    assert command(*TINY, f"logger.mlflow.{OF_LIGHTNING}.MLFlowLogger", uri, in_directory(tmp_path / "run")) == 0
    rows = sqlite3.connect(database).execute("select step from metrics where key = 'train/loss'").fetchall()
    assert sorted(rows) == [(4,), (8,)]


def test_comet_writes_what_it_recorded_at_exit(tmp_path: Path) -> None:
    pytest.importorskip("comet_ml")
    rest = (f"logger.comet.{OF_LIGHTNING}.CometLogger", f"logger.comet.offline_directory={tmp_path / 'comet'}")
    code, _, err = finish_cold(*TINY, *rest, in_directory(tmp_path / "run"), COMET_START_ONLINE="0")
    assert code == 0, err
    (archive,) = (tmp_path / "comet").glob("*.zip")
    assert b"train/loss" in zipfile.ZipFile(archive).read("messages.json")


def test_trackio_records_metrics(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    logger = ("logger.trackio._target_=my_trackio.TrackioLogger", "logger.trackio.project=ghosts")
    folder = ("--config-dir", str(Path(__file__).parent / "my_ghosts"))
    code, _, err = finish_cold(
        *folder, *TINY, *logger, in_directory(tmp_path / "run"), TRACKIO_DIR=str(tmp_path / "trackio")
    )
    assert code == 0, err
    rows = sqlite3.connect(tmp_path / "trackio" / "ghosts.db").execute("select metrics from metrics").fetchall()
    assert any(b"train/loss" in row[0] for row in rows)


def test_logger_that_fails_at_its_start_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = "logger.mine._target_=tests.extension.test_loggers.FailingLogger"
    assert command(*TINY, failing, in_directory(tmp_path / "run")) == 1
    assert capsys.readouterr().err == "error: logger.mine: cannot be used (ConnectionError: no server)\n"
