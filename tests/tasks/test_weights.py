"""`model.weights` through the command line: every source and layout, and error messages."""

import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

import ghostexp
from ghostexp.__main__ import CONF
from ghostexp.data import image_file_dataset
from ghostexp.data.datasets import image_folder
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.load_model import load_trained_model
from ghostexp.tasks.common.weights_source import WeightsRecord, find_weights_file
from tests.cli import TINY, command, in_directory
from tests.config.test_user_errors import expect_one_line
from tests.training.test_fit import result_of

FROZEN = ("trainer.max_epochs=1", "optimizer.lr=1e-30", "optimizer.weight_decay=0")  # weights stay unchanged
GHOSTNET = ("datamodule=fake", "model=ghostnet", "model.width=0.5")
RESNET = (*TINY, *FROZEN)
State = dict[str, Tensor]


def trained(run: Path) -> State:
    """Return the final parameters of a run by the network's own names."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if not is_statistic(name)}


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def has_weights(run: Path, state: State) -> bool:
    """Return whether a run without updates ended with the parameters of `state`."""
    found = trained(run)
    parameters = [name for name in state if not is_statistic(name)]
    return set(parameters) <= set(found) and all(
        torch.allclose(found[name], state[name], 0, 1e-20) for name in parameters
    )


def save_weights(path: Path, classes: int = 10) -> State:
    """Save the weights of resnet20."""
    torch.manual_seed(7)
    state = resnet20(num_classes=classes).state_dict()
    torch.save(state, path)
    return state


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def configuration(*overrides: str) -> dict[str, Any]:
    """Return the configuration of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)  # pyright: ignore[reportReturnType]


LAYOUTS = {
    "timm.pth": (),
    "timm.safetensors": (),
    "official.pth.tar": ("under state_dict",),
    "lightning.ckpt": ("under state_dict", "without the prefix network."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_every_layout_are_loaded(layout: str, tmp_path: Path) -> None:
    file, state = tmp_path / layout, timm.create_model("ghostnet_050", num_classes=10).state_dict()
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    elif file.suffix == ".ckpt":
        torch.save({"state_dict": {f"network.{name}": value for name, value in state.items()}}, file)
    else:
        torch.save({"state_dict": state} if file.suffix == ".tar" else state, file)
    network, _, loaded, _ = instantiate.build_network(configuration(*GHOSTNET, f"model.weights={file}"))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert loaded == WeightsRecord(str(file), sha256(file), (), LAYOUTS[layout])


def test_weights_of_run_are_those_it_tested(tiny_run: Path, tmp_path: Path) -> None:
    first, second = tiny_run, tmp_path / "second"
    (first / "checkpoints" / "best.ckpt").unlink()
    assert command(*RESNET, f"model.weights={first}", in_directory(second)) == 0
    assert has_weights(second, trained(first))
    digest = sha256(first / "checkpoints" / "last.ckpt")
    layout = ["under state_dict", "without the prefix network."]
    assert result_of(second)["weights"] == {"source": str(first), "sha256": digest, "dropped": [], "layout": layout}
    assert ", ".join(["", *layout]) in (second / "run.log").read_text()
    assert result_of(first)["weights"] is None
    names = load_trained_model(ghostexp.compose("task=test", *RESNET, f"model.weights={first}")).class_names
    assert names == load_trained_model(ghostexp.compose("task=test", f"run={first}")).class_names != ()
    (first / "result.json").unlink()  # for an unfinished run, validate_on decides which checkpoint it tests
    RunDirectory(first).write_config({"datamodule": {"validate_on": "holdout"}})
    assert find_weights_file(str(first), tmp_path) == first / "checkpoints" / "best.ckpt"


def test_reset_head_loads_all_other_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = save_weights(tmp_path / "hundred.pth", classes=100)
    arguments = (*RESNET, f"model.weights={tmp_path / 'hundred.pth'}", in_directory(tmp_path / "run"))
    assert command(*arguments) == 1
    expect_one_line(capsys.readouterr().err, "of another shape (fc.weight (100, 64) instead of (10, 64), fc.bias")
    shutil.rmtree(tmp_path / "run")
    assert command(*arguments, "model.reset_head=true") == 0
    message = "model.reset_head=true: fc.weight, fc.bias not loaded from"
    assert capsys.readouterr().err.count(message) == 1
    assert (tmp_path / "run" / "run.log").read_text().count(message) == 1
    assert result_of(tmp_path / "run")["weights"]["dropped"] == ["fc.weight", "fc.bias"]
    assert has_weights(tmp_path / "run", {name: value for name, value in state.items() if not name.startswith("fc.")})


def test_resumed_run_does_not_need_weights_file(tmp_path: Path) -> None:
    save_weights(tmp_path / "weights.pth")
    run, weights = tmp_path / "run", tmp_path / "weights.pth"
    assert command(*TINY, f"model.weights={weights}", in_directory(run)) == 0
    uninterrupted = result_of(run)
    (run / "result.json").unlink()
    weights.unlink()
    assert command(f"resume={run}") == 0
    assert result_of(run)["weights"] == uninterrupted["weights"]
    assert command("task=test", f"run={run}") == 0
    assert result_of(run / "test")["metrics"]["test"] == uninterrupted["metrics"]["test"]


class Executes:
    """A pickle that runs code when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_invalid_weights_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = save_weights(tmp_path / "right.pth")
    torch.save({**state, "extra": Executes(tmp_path / "executed")}, tmp_path / "executes.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "right.pth").read_bytes()[:100_000])
    (tmp_path / "folder").mkdir()
    wanted = {
        "executes.pth": "refused: contains posix.mkdir",
        "half.pth": "not a valid weight file",
        "none.pth": "no such file; must be a file, a run's directory, https://...#sha256=HEX or timm/NAME",
        "folder": "folder: not a run directory, no config.yaml found",
    }
    for name, text in wanted.items():
        assert command(*RESNET, f"model.weights={tmp_path / name}") == 1
        expect_one_line(capsys.readouterr().err, text)
    assert not (tmp_path / "executed").exists()
    assert command(*RESNET, "model=ghost_resnet20", f"model.weights={tmp_path / 'right.pth'}") == 1
    expect_one_line(capsys.readouterr().err, "right.pth: does not match the network: 38 missing")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Start a server; yields its address and the served folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()
        thread.join()


def test_url_is_downloaded_once_and_verified(
    server: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, folder = server
    state, data = save_weights(folder / "weights.pth"), tmp_path / "data" / "weights"
    digest = sha256(folder / "weights.pth")
    url = f"model.weights='{address}/weights.pth#sha256={digest}'"
    wrong = f"model.weights='{address}/weights.pth#sha256={'0' * 64}'"
    assert command(*RESNET, wrong) == 1
    assert "not downloaded (invalid hash value" in capsys.readouterr().err
    assert [path.name for path in data.iterdir()] == [".lock"]
    assert command(*RESNET, url, in_directory(tmp_path / "first")) == 0
    assert has_weights(tmp_path / "first", state)
    assert result_of(tmp_path / "first")["weights"]["sha256"] == digest
    (folder / "weights.pth").unlink()
    assert command(*RESNET, url, in_directory(tmp_path / "second")) == 0
    (data / f"{digest[:12]}-weights.pth").write_bytes(b"rotten")
    assert command(*RESNET, url) == 1
    assert "another SHA-256; delete it" in capsys.readouterr().err


def test_invalid_url_is_one_line(server: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    address, digest = server[0], "0" * 64
    wanted = {
        f"{address}/none.pth#sha256={digest}": "not downloaded (HTTP Error 404",
        f"{address}/none.pth": "must end with the file's SHA-256",
        f"ftp://127.0.0.1/none.pth#sha256={digest}": "a file, a run's directory, https://...#sha256=HEX or timm/NAME",
    }
    for source, text in wanted.items():
        assert command(*RESNET, f"model.weights='{source}'") == 1
        expect_one_line(capsys.readouterr().err, text)


def write_hub_cache(cache: Path, name: str, state: State) -> None:
    """Write weights to the hub's cache as its client does."""
    repository = cache / f"models--timm--{name}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    safetensors.torch.save_file(state, snapshot / "model.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty hub cache, without network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_hub_cache_needs_no_network(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*RESNET, "model.weights=timm/resnet20.in1k")
    assert command(*arguments) == 1
    expect_one_line(capsys.readouterr().err, "model.weights=timm/resnet20.in1k: not in the hub's cache, and not")
    state = save_weights(tmp_path / "weights.pth")
    write_hub_cache(cache, "resnet20.in1k", state)
    assert command(*arguments, in_directory(tmp_path / "run")) == 0
    assert has_weights(tmp_path / "run", state)


def test_missing_huggingface_hub_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert command(*RESNET, "model.weights=timm/ghostnet_100.in1k") == 1
    expect_one_line(capsys.readouterr().err, 'needs huggingface_hub; pip install "ghostexp[hub]"')


RELEASED = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "pretrained").glob("*.yaml"))


def test_pretrained_configs_cover_released_ghostnets() -> None:
    assert [f"{name}.in1k" for name in RELEASED] == sorted(timm.list_pretrained("ghostnet*"))


@pytest.mark.parametrize("name", RELEASED)
def test_pretrained_config_matches_released_weights(name: str, cache: Path) -> None:
    released = timm.get_pretrained_cfg(f"{name}.in1k")
    assert released is not None
    config = configuration(f"pretrained={name}")
    write_hub_cache(cache, f"{name}.in1k", timm.create_model(name).state_dict())
    loaded = instantiate.build_network(config).weights
    assert loaded is not None
    assert loaded.source == released.hf_hub_id
    data = config["datamodule"]
    assert (data["in_chans"], data["image_size"], data["image_size"]) == released.input_size
    assert (
        released.mean,
        released.std,
        released.crop_pct,
    ) == (image_folder.MEAN, image_folder.STD, 1 / image_file_dataset.EVAL_RESIZE)


def test_pretrained_refuses_other_model(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, got in (((), "resnet20"), (("-m", "seed=0,1"), "resnet20"), ((), "retinanet_ghostnet")):
        assert command(*arguments, "pretrained=ghostnet_100", f"model={got}", "datamodule=fake") == 1
        expect_one_line(
            capsys.readouterr().err,
            f"pretrained=ghostnet_100: must go with model=ghostnet, whose weights these are, got model={got};",
        )


def test_unknown_model_argument_is_named_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("model=resnet20", "+model.pretrained=true", "datamodule=fake") == 1
    expect_one_line(capsys.readouterr().err, "+model.pretrained=true: model has no pretrained; there is weights")
    assert command("model=resnet20", "model._target_=torch.nn.Linear", "datamodule=fake") == 1
    expect_one_line(capsys.readouterr().err, "model.num_classes: model has no num_classes; there is weights")


def test_ema_weights_are_reported_as_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "callbacks.ema=0.9", "trainer.max_epochs=1", in_directory(run)) == 0
    assert command("task=test", f"run={run}") == 0
    assert f"{run} (last, EMA average)" in capsys.readouterr().out
    assert result_of(run / "test")["ema"] == 0.9
    assert command("task=export", f"run={run}", "task.formats=[safetensors]", "task.num_check_images=0") == 0
    card = (run / "export" / "README.md").read_text()
    assert f"Weights: {run}, last checkpoint, exponential moving average (decay 0.9)." in card
