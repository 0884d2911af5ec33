"""`logger=wandb` without a key and without a network: the offline run's file says everything."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

from ghostexp.training.classifier import Classifier
from tests.commands import TINY, command, in_directory

HEADER, BLOCK, FULL, FIRST, LAST = 7, 32768, 1, 2, 4


def records(run: Path) -> Iterator[Any]:
    """Every record of a run's offline files, in order."""
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
            record.ParseFromString(data)
            yield record


def chunks(log: bytes) -> Iterator[bytes]:
    """The entries of a log in LevelDB's format: chunks with checksum, length and kind, in blocks of 32 KiB."""
    entry, position = b"", HEADER
    while position + HEADER <= len(log):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block holds no chunk
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", log, position)
        position += HEADER
        entry = (
            log[position : position + length] if kind in (FULL, FIRST) else entry + log[position : position + length]
        )
        position += length
        if kind in (FULL, LAST):
            yield entry


def rows(run: Path) -> list[dict[str, Any]]:
    """The history, one dictionary a row."""
    found = (record.history for record in records(run) if record.HasField("history"))
    return [{item.nested_key[0] or item.key: json.loads(item.value_json) for item in row.item} for row in found]


def config_of(run: Path) -> dict[str, Any]:
    """The configuration with which a run began."""
    (began,) = (record.run for record in records(run) if record.HasField("run"))
    return {item.key: json.loads(item.value_json) for item in began.config.update}


def summary_of(run: Path) -> dict[str, Any]:
    """The last value of every key of the summary."""
    found = (record.summary for record in records(run) if record.HasField("summary"))
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for row in found for item in row.update}


def test_an_offline_run_holds_config_metrics_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "logger=wandb", "logger.wandb.tags=[a]", in_directory(run)) == 0
    config, summary = config_of(run), summary_of(run)
    assert config["model"]["_target_"] == "ghostexp.models.resnet.resnet20"
    assert config["trainer"]["max_epochs"] == 2
    result = json.loads((run / "result.json").read_text())
    assert summary["params"] == result["params"]
    assert summary["test/acc1"] == result["metrics"]["test"]["test/acc1"]
    logged = [row for row in rows(run) if "train/loss" in row]
    assert [row["trainer/global_step"] for row in logged] == [4, 8]
    assert [row["epoch"] for row in logged] == [1, 2]
    ended = [record.exit.exit_code for record in records(run) if record.HasField("exit")]
    assert ended == [0]
    assert "wandb sync" in capsys.readouterr().out


def test_a_failed_run_is_marked_failed_and_a_resumed_one_goes_on_with_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, forward = tmp_path / "run", Classifier.training_step
    arguments = (*TINY, "logger=wandb", "trainer.log_every_n_steps=1", "callbacks.save_steps=2", in_directory(run))

    def failing(self: Classifier, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 7:
            raise RuntimeError("a broken machine")
        return forward(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", failing)
        assert command(*arguments) == 1
    assert [record.exit.exit_code for record in records(run) if record.HasField("exit")] == [1]
    assert command(f"resume={run}") == 0
    ids = {record.run.run_id for record in records(run) if record.HasField("run")}
    assert len(ids) == 1
    steps = [row["trainer/global_step"] for row in rows(run) if "train/loss_step" in row]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
