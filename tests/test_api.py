"""The Python interface: its notebook, its errors, and what it leaves unchanged."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ghostexp
from tests.cli import TINY

ROOT = Path(__file__).parent.parent
LIGHT = """
import time; start = time.perf_counter()
import ghostexp
seconds = time.perf_counter() - start
import sys
ghostexp.compose
print(seconds, sorted({"torch", "lightning", "pandas"} & set(sys.modules)))
"""


def test_import_and_interface_are_light() -> None:
    seconds, heavy = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True).stdout.split(" ", 1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 0.3


def test_compose_gives_config_and_changes_nothing() -> None:
    argv, state = list(sys.argv), torch.get_rng_state()
    config = ghostexp.compose("model=ghostnet", "model.ratio=3", "seed=2")
    assert config["model"]["ratio"] == 3
    assert config["datamodule"]["seed"] == 2
    assert sys.argv == argv
    assert torch.equal(torch.get_rng_state(), state)


def test_history_has_numbers_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss,val/f1\n50,1e-05,\n78,inf,nan\n")
    history = ghostexp.Result(tmp_path).history
    assert list(history["step"]) == [50, 78]
    assert list(history["val/loss"]) == [1e-5, float("inf")]
    assert all(math.isnan(value) for value in history["val/f1"])


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("model.rato=3", "model.rato=3: model has no rato"),
        ("model=ghostnt", "model=ghostnt: not found"),
        ("model.ratio=0", "model.ratio=0: must be an integer >= 1"),
        ("run=no/such/run", "not a run directory"),
        ("study=ratio_ablation", "a sweep has several runs"),
        (["model=ghostnet"], "['model=ghostnet']: must be an override of its own"),
    ],
)
def test_wrong_override_raises_config_error(override: Any, wanted: str) -> None:
    with pytest.raises(ghostexp.ConfigError, match=re.escape(wanted)):
        ghostexp.compose(override)


def test_failed_run_raises_run_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ghostexp.RunError, match="32 x 32 is the smallest image") as failed:
        ghostexp.fit(*TINY, "model=vgg16", "datamodule.image_size=8", f"output_dir={tmp_path}")
    record = json.loads((failed.value.directory / "failure.json").read_text())
    assert record.keys() >= {"error", "type", "traceback", "versions", "git", "cpu"}


def test_killed_run_raises_run_error_and_no_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('error: process 1 was killed by SIGKILL'); raise SystemExit(137)"
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **keys: popen([sys.executable, "-c", code], **keys))
    with pytest.raises(ghostexp.RunError, match="process 1 was killed by SIGKILL"):
        ghostexp.fit(*TINY, f"output_dir={tmp_path}")


def test_load_keeps_tf32_of_the_process(shared_run: Path) -> None:
    backends: Any = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for wanted in ([False, False], [True, True], [False, True]):
            for backend, allowed in zip(backends, wanted, strict=True):
                backend.allow_tf32 = allowed
            ghostexp.load(shared_run)
            assert [backend.allow_tf32 for backend in backends] == wanted
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def test_networks_by_name() -> None:
    state = torch.get_rng_state()
    network = ghostexp.create_model("ghostnet", num_classes=7, width=0.25, ratio=3).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert any(isinstance(module, ghostexp.GhostModule) for module in network.modules())
    assert ghostexp.ghostify(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), 2) is not None
    torch.set_rng_state(state)


def test_networks_by_name_take_keys_of_the_file() -> None:
    state = torch.get_rng_state()
    resnet = ghostexp.create_model("torchvision", name="resnet34", num_classes=7, exclude=["first", "layer1.*"])
    assert sum(1 for name, _ in resnet.named_modules() if name.endswith(".conv2")) == 16
    thin = ghostexp.create_model("ghost_resnet20", network={"width": 0.5, "shortcut": "B"}, image_size=32)
    assert thin(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)
    assert thin.get_parameter("fc.weight").shape == (1000, 32)
    mobilenet = ghostexp.create_model("torchvision", name="mobilenet_v2", kwargs={"width_mult": 0.35})
    assert sum(weight.numel() for weight in mobilenet.parameters()) < 2_000_000
    planned = ghostexp.create_model("resnet20", plan={"layers": {"layer2.*": {"ratio": 2}}}, image_size=32)
    assert any(isinstance(module, ghostexp.GhostModule) for module in planned.modules())
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("name", "keys", "wanted"),
    [
        ("retinanet_ghostnet", {}, "detector"),
        ("ghostnt", {}, "model=ghostnt: not found"),
        ("ghost_resnet20", {"network": {"wdth": 0.5}}, "model.network has no wdth"),
        ("ghost_resnet20", {"netwrk": {"width": 0.5}}, "model has no netwrk"),
        (
            "ghostnet",
            {"weights": "file.pth"},
            "create_model('ghostnet', weights=...): builds a network without weights",
        ),
        ("ghostnet", {"reset_head": True}, "ghostexp.models.weights.load_weights(network, FILE)"),
    ],
)
def test_wrong_key_of_a_network_raises_config_error(name: str, keys: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ghostexp.ConfigError, match=re.escape(wanted)) as raised:
        ghostexp.create_model(name, **keys)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("warm_fit")
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each cell of experiments/quickstart.ipynb in its order; a kernel would do the same more slowly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((ROOT / "experiments" / "quickstart.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "quickstart.ipynb", "exec"), names)
    runs, table = names["runs"], names["table"]
    assert list(table["model.ratio"]) == [1, 3]
    assert list(table["test/acc1"]) == [run.metrics["test/acc1"] for run in runs.values()]
    assert all(run.history["train/acc1"].count() == 3 for run in runs.values())  # epochs; step 50 has a row too
    assert all(run.metrics["test/acc1"] > 80 for run in runs.values())
    assert not names["network"].training
    assert names["probabilities"].shape == (10,)
