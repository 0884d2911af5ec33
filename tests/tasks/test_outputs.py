"""The result is written first: a failing table, picture or upload does not lose it, and is named."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_json
from ghostexp.tasks import fit
from ghostexp.tasks.common import test_outputs
from ghostexp.training.callbacks import checkpoint
from ghostexp.training.classification_module import ClassificationModule
from tests.cli import TINY, TINY_DETECTOR, command, in_directory
from tests.data.fake_image_folders import write_tree
from tests.training.test_exact_resume import digests
from tests.training.test_fit import result_of

PACKAGE = Path(__file__).parents[2] / "ghostexp"


def fail(*_: Any, **__: Any) -> None:
    """Raise as a library would."""
    raise RuntimeError("no such\nglyph")


def test_failed_outputs_keep_result_and_other_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("draw_confusion", "log_test"):
        monkeypatch.setattr(test_outputs, name, fail)
    for name in ("log_tested_model", "finish", "show_fit"):
        monkeypatch.setattr(fit, name, fail)
    run = tmp_path / "run"
    assert command(*TINY, in_directory(run)) == 0
    result = result_of(run)
    assert result["metrics"]["test"]["test/acc1"] >= 0
    names = ["confusion.png", "W&B", "W&B model", "W&B", "summary"]
    assert result["failed_outputs"] == [f"{name}: RuntimeError: no such glyph" for name in names]
    *lines, last = capsys.readouterr().err.strip().splitlines()
    assert lines == [f"warning: {line}" for line in result["failed_outputs"]]
    assert last == f"warning: the result is complete without these; task=test run={run} writes them again"
    assert {"confusion.csv", "misclassified.png"} <= {path.name for path in run.iterdir()}
    assert not (run / "failure.json").exists()
    assert "confusion.png could not be written" in (run / "run.log").read_text()
    monkeypatch.undo()
    assert command("task=test", f"run={run}") == 0
    assert (run / "test" / "confusion.png").exists()
    assert "failed_outputs" not in result_of(run / "test")


def test_failed_detection_outputs_keep_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghostexp.tasks.common.detection_outputs.plot_boxes", fail)
    assert command(*TINY_DETECTOR, "trainer.max_epochs=1", in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["failed_outputs"] == ["boxes.png: RuntimeError: no such glyph"]
    assert (tmp_path / "run" / "detections.json").exists()


def test_run_interrupted_during_outputs_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(test_outputs, "draw_confusion", interrupt)
    run = tmp_path / "run"
    assert command(*TINY, in_directory(run)) == 128 + signal.SIGINT
    assert capsys.readouterr().err.strip() == "interrupted; the result is written"
    assert "failed_outputs" not in result_of(run)
    assert command(f"resume={run}") == 0
    assert "finished already" in capsys.readouterr().err


def test_logger_error_does_not_hide_training_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*_: Any) -> None:
        raise ValueError("the reason")

    monkeypatch.setattr(ClassificationModule, "training_step", out_of_memory)
    monkeypatch.setattr(fit, "finish", fail)
    assert command(*TINY, in_directory(tmp_path / "run")) == 1
    assert capsys.readouterr().err.strip() == "error: the reason"


def test_dollar_in_name_does_not_break_plots(tmp_path: Path) -> None:
    assert command(*TINY, "trainer.max_epochs=1", 'name="cost_$5_$"', in_directory(tmp_path / "run")) == 0
    assert "failed_outputs" not in result_of(tmp_path / "run")


def test_write_json_replaces_non_finite_numbers_by_null(tmp_path: Path) -> None:
    content = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf, "d": float("1e300")}, "e": "NaN"}
    write_json(tmp_path / "a.json", content)
    strict = json.loads((tmp_path / "a.json").read_text(), parse_constant=fail)
    assert strict == {"a": [None, [None, 1.5]], "b": {"c": None, "d": 1e300}, "e": "NaN"}
    RunDirectory(tmp_path).write_result({"loss": math.nan})
    assert json.loads((tmp_path / "result.json").read_text(), parse_constant=fail) == {"loss": None}


def test_json_is_written_by_one_module() -> None:
    text = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    assert [path.name for path in text if "json.dump(" in text[path]] == []
    assert [path.name for path in text if "json.dumps(" in text[path] and "write_atomically(" in text[path]] == [
        "text_files.py"
    ]


def test_kill_between_best_and_last_checkpoint_is_resumed_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_epoch_metrics, copy, copied = ClassificationModule.log_epoch_metrics, checkpoint.copy_atomically, []

    def best_in_the_second_epoch(self: ClassificationModule, metrics: dict[str, float]) -> None:
        metric = {"val/acc1": [1.0, 2.0, 1.5][self.current_epoch]} if "val/acc1" in metrics else {}
        log_epoch_metrics(self, metrics | metric)

    def killed(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 2:
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(ClassificationModule, "log_epoch_metrics", best_in_the_second_epoch)
    arguments = (*TINY, "datamodule.validate_on=holdout", "trainer.max_epochs=3", "trainer.log_every_n_steps=1")
    assert command(*arguments, in_directory(tmp_path / "uninterrupted")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "copy_atomically", killed)
        assert command(*arguments, in_directory(tmp_path / "killed")) == 128 + signal.SIGINT
    assert command(f"resume={tmp_path / 'killed'}") == 0
    assert result_of(tmp_path / "killed")["metrics"] == result_of(tmp_path / "uninterrupted")["metrics"]
    assert digests(tmp_path / "killed") == digests(tmp_path / "uninterrupted")
    weights = [
        checkpoint.read_checkpoint(tmp_path / name / "checkpoints" / "best.ckpt")
        for name in ("killed", "uninterrupted")
    ]
    assert [one["epoch"] for one in weights] == [1, 1]
    torch.testing.assert_close(weights[0]["state_dict"], weights[1]["state_dict"], rtol=0, atol=0)


def test_missing_best_checkpoint_falls_back_to_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "datamodule.validate_on=holdout", in_directory(run)) == 0
    for path in (run / "result.json", run / "checkpoints" / "best.ckpt"):
        path.unlink()
    capsys.readouterr()
    assert command(f"resume={run}") == 0
    assert "no validation had a val/acc1; the last epoch is tested" in capsys.readouterr().err
    assert result_of(run)["test_checkpoint"] == "last"


def test_network_of_other_classes_is_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbered classes are those of data without names."""
    for root, names in (("a", ("cat", "dog")), ("b", ("dog", "eel")), ("c", ("cat", "dog")), ("d", ("0", "1"))):
        write_tree(tmp_path / root, {"train": 8, "test": 4}, classes=names)
    data = ("datamodule=image_folder", "datamodule.num_classes=2", "datamodule.image_size=8", "datamodule.batch_size=8")
    fit = ("model=resnet20", *data, "trainer.max_epochs=1", "callbacks.progress=false", "threads=1")
    run = tmp_path / "run"
    assert command(*fit, f"datamodule.root={tmp_path}/a", in_directory(run)) == 0
    for task in ("test", "export"):
        arguments = (f"task={task}", f"run={run}", in_directory(tmp_path / task))
        assert command(*arguments, f"datamodule.root={tmp_path}/b") == 1
        wanted = f"datamodule.root={tmp_path}/b: class 0 is dog, but the network was trained with cat"
        assert wanted in capsys.readouterr().err
    for root in ("c", "d"):
        again = in_directory(tmp_path / f"again_{root}")
        assert command("task=test", f"run={run}", f"datamodule.root={tmp_path}/{root}", again) == 0
