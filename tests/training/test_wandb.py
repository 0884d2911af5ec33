"""`logger=wandb` without key and network: the offline file holds everything."""

import json
from pathlib import Path
from typing import Any

import pytest

from ghostexp.data.datasets.shapes import generate_image
from ghostexp.runs.wandb_key import has_key
from ghostexp.training.classification_module import ClassificationModule
from ghostexp.training.loggers.wandb import build_tags, wandb_box
from tests.cli import TINY, TINY_DETECTOR, command, in_directory
from tests.offline_wandb import config_of, records, rows, summary_of


def test_offline_run_holds_config_metrics_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "logger=wandb", "logger.wandb.tags=[a]", in_directory(run)) == 0
    config, summary = config_of(run), summary_of(run)
    assert config["model"]["_target_"] == "ghostexp.models.resnet_cifar.resnet20"
    assert config["trainer"]["max_epochs"] == 2
    result = json.loads((run / "result.json").read_text())
    assert {key: summary[key] for key in ("params", "macs", "images_per_second")} == {
        key: result[key] for key in ("params", "macs", "images_per_second")
    }
    assert summary["test/acc1"] == result["metrics"]["test"]["test/acc1"]
    logged = [row for row in rows(run) if "train/loss" in row]
    assert [row["trainer/global_step"] for row in logged] == [4, 8]
    assert [row["epoch"] for row in logged] == [1, 2]
    ended = [record.exit.exit_code for record in records(run) if record.HasField("exit")]
    assert ended == [0]
    (began,) = (record.run for record in records(run) if record.HasField("run"))
    assert (list(began.tags), began.job_type, began.run_group) == (["resnet20", "fake", "a"], "fit", "")
    assert {record.artifact.type for record in records(run) if record.HasField("artifact")} == {"run_table"}
    assert "wandb sync" in capsys.readouterr().out
    assert command("task=test", f"run={run}") == 0
    (began,) = (record.run for record in records(run / "test") if record.HasField("run"))
    assert began.job_type == "test"
    assert summary_of(run / "test")["test/acc1"] == summary["test/acc1"]


def test_fit_logs_test_artifacts_and_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "logger=wandb", "logger.wandb.log_model=true", in_directory(run)) == 0
    logged = {key for row in rows(run) for key in row if key.startswith("test/")}
    assert {"test/confusion", "test/misclassified", "test/classes_table", "test/mistakes_table"} <= logged
    media = [path.name for path in run.glob("wandb/offline-run-*/files/media/*/test/*")]
    assert sorted(name.split("_")[0] for name in media if name.endswith(".png")) == ["confusion", "misclassified"]
    tables = {
        Path(file.path).name: Path(file.local_path)
        for record in records(run)
        if record.HasField("artifact")
        for file in record.artifact.manifest.contents
    }
    mistakes = json.loads(tables["mistakes_table.table.json"].read_text())
    pictures = [row[mistakes["columns"].index("picture")] for row in mistakes["data"]]
    assert len(pictures) == len((run / "misclassified.csv").read_text().splitlines()) - 1
    assert {(picture["width"], picture["height"]) for picture in pictures} == {(8, 8)}
    (model,) = (
        record.artifact for record in records(run) if record.HasField("artifact") and record.artifact.type == "model"
    )
    (file,) = model.manifest.contents
    assert (file.path, file.local_path) == ("model.ckpt", str(run / "checkpoints" / "last.ckpt"))
    assert "last" in model.aliases
    metadata, result = json.loads(model.metadata), json.loads((run / "result.json").read_text())
    assert metadata["test_checkpoint"] == "last"
    assert metadata["params"] == result["params"]
    assert metadata["test/acc1"] == result["metrics"]["test"]["test/acc1"]


def test_detector_logs_boxes_with_class_and_score(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(*TINY_DETECTOR, "logger=wandb", in_directory(run)) == 0
    shown = boxes_in(run)
    assert len(shown) == 4
    (files,) = run.glob("wandb/offline-run-*/files")
    for picture in shown:
        number, kinds = int(picture["caption"].removeprefix("image ")), picture["boxes"]
        boxes = {kind: json.loads((files / kinds[kind]["path"]).read_text()) for kind in ("annotated", "found")}
        scene = generate_image(1, number)  # the detector gets it at half its size
        middles = [[(left + right) / 4, (top + bottom) / 4] for left, top, right, bottom in scene.boxes.tolist()]
        assert [box["position"]["middle"] for box in boxes["annotated"]["box_data"]] == middles
        assert [box["class_id"] for box in boxes["annotated"]["box_data"]] == scene.labels.tolist()
        assert boxes["annotated"]["class_labels"]["3"] == "cross"
        assert all(box["domain"] == "pixel" and "scores" not in box for box in boxes["annotated"]["box_data"])
    assert command("task=visualize", f"run={run}", "task.num_shown=2", "logger=wandb") == 0
    assert len(boxes_in(run / "visualize")) == 2


def boxes_in(run: Path) -> list[dict[str, Any]]:
    """List the logged pictures with boxes."""
    return [picture for row in rows(run) for key, picture in row.items() if key.startswith("test/boxes_")]


def test_wandb_box_has_score() -> None:
    row = {"left": 1.0, "top": 2.0, "right": 5.0, "bottom": 10.0, "label": 3, "name": "cross", "score": 0.625}
    box = wandb_box(row)
    assert box["position"] == {"middle": [3.0, 6.0], "width": 4.0, "height": 8.0}
    assert (box["scores"], box["box_caption"], box["class_id"]) == ({"score": 0.625}, "cross 0.62", 3)


def test_build_tags_are_unique() -> None:
    choices = {"model": "vgg16", "datamodule": "digits", "study": "width", "optimizer": "sgd"}
    assert build_tags({"choices": choices}, ["mine", "digits"]) == ["vgg16", "digits", "width", "mine"]
    assert build_tags({"choices": {"model": "vgg16", "datamodule": "digits", "study": None}}, []) == ["vgg16", "digits"]


def test_has_key_reads_environment_and_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key()
    for host in ("api.wandb.ai", "api.forge.coreweave.com"):
        (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password 0\n")
        assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0")
    assert has_key()


def test_failed_run_is_marked_and_resumed_run_has_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, forward = tmp_path / "run", ClassificationModule.training_step
    arguments = (
        *TINY,
        "logger=wandb",
        "trainer.log_every_n_steps=1",
        "callbacks.save_every_n_steps=2",
        in_directory(run),
    )

    def failing(self: ClassificationModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 7:
            raise RuntimeError("a broken machine")
        return forward(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "training_step", failing)
        assert command(*arguments) == 1
    assert [record.exit.exit_code for record in records(run) if record.HasField("exit")] == [1]
    assert command(f"resume={run}") == 0
    ids = {record.run.run_id for record in records(run) if record.HasField("run")}
    assert len(ids) == 1
    steps = [row["trainer/global_step"] for row in rows(run) if "train/loss_step" in row]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
