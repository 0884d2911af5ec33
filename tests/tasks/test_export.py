"""`task=export`: exported files compute the network's logits."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from ghostexp.analysis.cost import Cost
from ghostexp.data.datasets.digits import Digits
from ghostexp.models.ghostify import ghostify
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks import export
from ghostexp.tasks.common.export_files import ExportFiles
from ghostexp.tasks.common.model_card import Card
from tests.cli import command, in_directory


def test_onnx_export_predicts_test_set_as_torch(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("task=export", f"run={digits_run}", "task.license=MIT") == 0
    folder = digits_run / "export"
    network = ghostify(resnet20(in_chans=1), ratio=3)
    state = torch.load(digits_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state.items()})
    data = Digits(batch_size=360, num_classes=10, in_chans=1, image_size=8)
    data.setup("test")
    ((images, labels),) = data.test_dataloader()
    with torch.inference_mode():
        logits = network.eval()(images)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    assert session.get_outputs()[0].shape == ["batch", 10]
    (theirs,) = session.run(None, {"images": images.numpy()})
    assert isinstance(theirs, np.ndarray)
    assert (theirs.argmax(1) == logits.numpy().argmax(1)).all()
    assert np.abs(theirs - logits.numpy()).max() <= 1e-4 * float(logits.abs().max())
    tested = json.loads((digits_run / "result.json").read_text())["metrics"]["test"]["test/acc1"]
    assert 100 * (theirs.argmax(1) == labels.numpy()).mean() == pytest.approx(tested)
    checks = json.loads((folder / "result.json").read_text())["checks"]
    assert [check["acc1"] for check in checks.values()] == pytest.approx([tested] * 5)
    assert set(checks) == {"network", "fused", "onnx", "torch", "safetensors"}
    del checks["network"]
    assert {name: check["same_predictions"] for name, check in checks.items()} == dict.fromkeys(checks, 364)
    assert "model.onnx" in capsys.readouterr().out
    _check_card((folder / "README.md").read_text(), tested)
    run_snippets(folder, monkeypatch, count=3)


def _check_card(card: str, accuracy: float) -> None:
    for part in (f"{accuracy:.4f} %", "License of the weights: MIT", "(N, 1, 8, 8)", "ratio: 3", "mean [0.305]"):
        assert part in card


def run_snippets(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Run the card's Python blocks in the export folder."""
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == count
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)
        assert getattr(names.get("logits"), "shape", (2, 10)) == (2, 10)


def test_exported_weights_load_as_model_weights(digits_run: Path, tmp_path: Path) -> None:
    assert command("task=export", f"run={digits_run}", "task.formats=[safetensors]", "task.num_check_images=0") == 0
    file = digits_run / "export" / "model.safetensors"
    again = ("task=test", "model.ratio=3", f"model.weights={file}", in_directory(tmp_path / "again"))
    assert command(*again) == 0
    tested = [json.loads((run / "result.json").read_text())["metrics"] for run in (digits_run, tmp_path / "again")]
    assert tested[0]["test"] == tested[1]["test"]


def test_export_with_other_logits_is_an_error(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def off(files: ExportFiles, name: str, folder: Path) -> dict[str, export.Logits]:
        path = folder / "model.safetensors"
        path.touch()
        files.files.append(path)
        return {name: lambda images: files.network(images) * 1.001}

    earlier = digits_run / "export" / "model.safetensors"
    earlier.parent.mkdir()
    earlier.write_bytes(b"of an earlier export")
    monkeypatch.setattr(ExportFiles, "write", off)
    assert command("task=export", f"run={digits_run}", "task.formats=[safetensors]") != 0
    assert "model.safetensors: its logits must differ by <= 1e-04 of the largest one, got 1.0e-03" in (
        capsys.readouterr().err
    )
    assert earlier.read_bytes() == b"of an earlier export"
    assert not list(earlier.parent.glob(".export-*"))


def test_check_formats_names_missing_package_and_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert export.check_formats(["torch"]) == ["torch"]
    with pytest.raises(ValueError, match=r"task.formats=onnx: needs .*onnxruntime; pip install \"ghostexp\[export\]\""):
        export.check_formats(["onnx"])


def test_card_has_units_of_metrics_and_no_missing_ones(tmp_path: Path) -> None:
    metrics = {"test/acc1": 91.5, "test/f1": 0.9312, "test/loss": 0.3, "test/other": None}
    RunDirectory(tmp_path).write_result({"test_checkpoint": "last", "metrics": {"test": metrics}})
    trained: Any = SimpleNamespace(checkpoint="last", cost=Cost(2, 3))
    checks: Any = {"fused": {"difference": 0.0}}
    card = Card({"run": str(tmp_path)}, trained, Cost(2, 3), ((0.0,), (1.0,)), {}, checks, 0.0, has_names=False)
    numbers = card._numbers()
    for row in ("| test/acc1 | 91.5000 % |", "| test/f1 | 0.9312 |", "| test/loss | 0.3000 |"):
        assert row in numbers
    assert "test/other" not in numbers
