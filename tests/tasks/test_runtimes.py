"""Exports for OpenVINO, prediction with exported files, and runtimes as modes of a profile."""

import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghostexp.analysis import latency, runtimes
from ghostexp.analysis.runtimes import Converter, check_packages
from ghostexp.models.concat_free import has_concatenations
from ghostexp.models.fuse import fuse
from ghostexp.models.ghostify import ghostify
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.runs.csv_table import read_rows
from ghostexp.tasks.common.export_checks import test_accuracies as accuracies
from tests.cli import command, in_directory
from tests.tasks.test_export import run_snippets

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason='needs openvino; pip install "ghostexp[openvino]"'
)
needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason='needs nncf; pip install "ghostexp[nncf]"'
)


OPENVINO = ("task.formats=[openvino]", "task.num_check_images=16", "task.concat_free=true")


@pytest.fixture(scope="module")
def exported_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("exported") / "run"))
    assert command("task=export", f"run={run}", *OPENVINO) == 0
    return run


@needs_openvino
def test_openvino_file_has_the_accuracy_of_the_run(exported_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = json.loads((exported_run / "result.json").read_text())["metrics"]["test"]["test/acc1"]
    result = json.loads((exported_run / "export" / "result.json").read_text())
    assert result["files"] == ["model.xml", "model.bin"]
    assert (result["concat_free"], result["concat_free_speedup"]) == (True, {})
    checks = result["checks"]
    assert list(checks) == ["network", "fused", "openvino", "openvino+bf16"]
    assert [checks[name]["acc1"] for name in ("network", "fused", "openvino")] == pytest.approx([tested] * 3)
    assert abs(checks["openvino+bf16"]["acc1"] - tested) < 1.5
    assert {check["test_images"] for check in checks.values()} == {360}
    card = (exported_run / "export" / "README.md").read_text()
    assert "| on 360 test images | accuracy |" in card
    assert f"| `model.xml` | {tested:.2f} % | +0.00 |" in card
    assert "| `model.xml` in bfloat16 |" in card
    run_snippets(exported_run / "export", monkeypatch, count=1)
    assert sys.modules["openvino_telemetry"] is None  # nothing is reported over the network


@needs_openvino
def test_prediction_by_openvino_is_that_of_torch(exported_run: Path, digit_files: Path, tmp_path: Path) -> None:
    probabilities = []
    for runtime in ("torch", "openvino"):
        folder = tmp_path / runtime
        arguments = (f"task.input={digit_files / '3'}", f"task.runtime={runtime}", "task.top_k=1")
        assert command("task=predict", f"run={exported_run}", *arguments, in_directory(folder)) == 0
        assert json.loads((folder / "result.json").read_text())["runtime"] == runtime
        rows = read_rows(folder / "predictions.csv")
        probabilities.append({row["path"]: (row["class_1"], float(row["probability_1"])) for row in rows})
    ours, theirs = probabilities
    assert len(ours) > 30
    assert {path: name for path, (name, _) in theirs.items()} == {path: name for path, (name, _) in ours.items()}
    assert all(theirs[path][1] == pytest.approx(value, abs=1e-4) for path, (_, value) in ours.items())


@needs_openvino
def test_export_of_another_checkpoint_is_not_used(
    exported_run: Path, digit_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(exported_run, tmp_path / "run"))
    record = run / "export" / "checkpoints.json"
    origins = json.loads(record.read_text())
    assert origins["model.onnx" if "model.onnx" in origins else "model.xml"]
    record.write_text(json.dumps(origins | {"model.xml": "0", "model.bin": "0"}))  # of an earlier export
    arguments = ("task=predict", f"run={run}", f"task.input={digit_files / '3'}")
    assert command(*arguments, "task.runtime=openvino") != 0
    assert f"is not an export of {run}/checkpoints/last.ckpt; python -m" in capsys.readouterr().err
    assert command(*arguments, "task.runtime=onnxruntime") != 0
    error = capsys.readouterr().err
    assert f"there is no {run}/export/model.onnx; python -m ghostexp task=export run={run} " in error


@needs_openvino
def test_signal_is_handled_after_runtimes_were_deleted() -> None:
    converter = Converter(nn.Conv2d(3, 4, 1).eval(), (3, 8, 8), list)
    running = [converter.load(name) for name in ("openvino", "openvino+bf16")]
    for number in range(2):
        running[number](torch.zeros(1, 3, 8, 8))
    while running:
        del running[0]  # in the order in which they were made
    pid = os.fork()  # which keeps the stack of signal handlers, and may die
    if pid == 0:
        signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))
        signal.raise_signal(signal.SIGUSR2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@needs_openvino
@pytest.mark.slow
def test_profile_has_runtimes_beside_torch(tmp_path: Path) -> None:
    """Takes a quarter of a minute: pytest -m slow tests/tasks/test_runtimes.py"""
    network = ("model=resnet20", "datamodule=fake", "datamodule.image_size=8", "threads=1")
    modes = ("task.modes=[openvino,openvino+bf16]", "task.batch_sizes=[1,3]", "task.repeats=1")
    assert command("task=profile", *network, *modes, in_directory(tmp_path / "run")) == 0
    rows = {(row["mode"], row["batch"]): row for row in read_rows(tmp_path / "run" / "latency.csv")}
    assert {mode for mode, _ in rows} == {"eager", "openvino", "openvino+bf16"}
    assert all(float(rows["openvino", batch]["difference"]) < 1e-4 for batch in "13")


@needs_nncf
@pytest.mark.slow
def test_int8_is_calibrated_on_images_and_close() -> None:
    """Takes half a minute: pytest -m slow tests/tasks/test_runtimes.py"""
    torch.manual_seed(0)
    network = fuse(resnet20().eval())
    images = torch.randn(8, 3, 16, 16)
    seen: list[Tensor] = []

    def calibration() -> list[Tensor]:
        seen.append(images)
        return [images]

    converter = Converter(network, (3, 16, 16), calibration)
    with torch.inference_mode():
        expected = network(images)
    found = converter.load("openvino+int8")(images)
    assert len(seen) == 1
    assert 0 < (found - expected).abs().max() < 0.2 * expected.abs().max()


@pytest.mark.parametrize(("speedup", "chosen"), [(1.1, "free"), (0.9, "plain")])
def test_form_without_concatenations_is_chosen_by_speed(
    speedup: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ghostify(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    cats = {True: "plain", False: "free"}
    monkeypatch.setattr(runtimes, "convert_to_openvino", lambda program, shape: cats[has_concatenations(program)])
    monkeypatch.setattr(
        runtimes, "measure_speedup", lambda model, other, shape: 1 / speedup if "int8" in model else speedup
    )
    monkeypatch.setattr(runtimes, "quantize", lambda model, batches: f"int8 {model}")
    network.append(nn.Sequential(nn.Conv2d(4, 5, 1)))
    converter = Converter(network.eval(), (3, 8, 8), lambda: [])
    assert converter.openvino == chosen
    assert converter.int8 == {"free": "int8 plain", "plain": "int8 free"}[chosen]
    assert converter.speedups == {"openvino": speedup, "openvino+int8": 1 / speedup}
    plain = Converter(nn.Conv2d(3, 4, 1).eval(), (3, 8, 8), lambda: [])
    assert (plain.openvino, plain.speedups) == ("free", {})
    only_int8 = Converter(network, (3, 8, 8), lambda: [])
    assert only_int8.int8 == {"free": "int8 plain", "plain": "int8 free"}[chosen]
    assert list(only_int8.speedups) == ["openvino+int8"]


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'^KEY=x: needs openvino; pip install "ghostexp\[openvino\]"$'):
        check_packages("openvino+bf16", "KEY=x")
    with pytest.raises(ValueError, match=r'needs openvino, nncf; pip install "ghostexp\[openvino,nncf\]"$'):
        check_packages("openvino+int8", "KEY=x")
    with pytest.raises(ValueError, match=r'needs onnxruntime; pip install "ghostexp\[export\]"$'):
        check_packages("onnxruntime", "KEY=x", is_exporting=False)


def test_accuracy_counts_images_of_all_batches() -> None:
    batches = [(torch.eye(3), torch.tensor([0, 1, 1])), (torch.eye(3)[:1], torch.tensor([0]))]
    found = accuracies({"same": lambda x: x, "flipped": lambda x: x.flip(1)}, batches)
    assert found == {"same": {"acc1": 75.0, "test_images": 4}, "flipped": {"acc1": 25.0, "test_images": 4}}
    assert accuracies({"same": lambda x: x}, []) == {}


def test_runtimes_are_modes_of_the_fused_network_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(latency, "check_packages", lambda *arguments: None)
    monkeypatch.setattr(Converter, "load", lambda self, name: loaded.append(name) or self.network)
    network, names = resnet20(), ["eager", "openvino", "openvino+int8"]
    modes = latency.build_modes(network, names, (3, 8, 8), torch.device("cpu"))
    assert (list(modes), loaded) == (names, names[1:])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modes["openvino"].network.modules())  # pyright: ignore
    with pytest.raises(ValueError, match=r"^task.modes=openvino: runs on CPUs; set trainer.accelerator=cpu$"):
        latency.build_modes(network, ["openvino"], (3, 8, 8), torch.device("cuda"))
