"""A saved configuration calls code of other packages only where the user allows it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ghostexp.config.trust import check_saved_config
from tests.cli import TINY, command, in_directory

EVIL = {"_target_": "os.system", "command": "touch {mark}"}
ATTACKS: list[Callable[[dict[str, Any], str], Any]] = [
    lambda config, mark: config.update(model=EVIL | {"command": f"touch {mark}"}),
    lambda config, mark: config["callbacks"].update(x={"_target_": "torch.os.system", "command": f"touch {mark}"}),
    lambda config, mark: config["logger"].update(
        x={"_target_": "lightning.pytorch.loggers.os.system", "command": mark}
    ),
    lambda config, mark: config["optimizer"].update(
        lr={"_target_": "builtins.eval", "_args_": [f"open({mark!r}, 'w')"]}
    ),
    lambda config, mark: config.update(loss="${oc.create:{_target_:os.system,command:'touch " + mark + "'}}"),
    lambda config, mark: config["model"].update(_target_="torch.hub.load", repo_or_dir="x/y"),
    lambda config, mark: config["trainer"].update(strategy={"_target_": "subprocess.Popen", "args": ["touch", mark]}),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for one epoch, and leave a run that looks unfinished."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert command(*TINY, "trainer.max_epochs=1", in_directory(run)) == 0
    (run / "result.json").unlink()
    return run


@pytest.mark.parametrize("key", ["run", "resume"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_saved_config_that_calls_other_code_is_refused(
    attack: Callable[[dict[str, Any], str], Any],
    key: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, mark = Path(shutil.copytree(trained, tmp_path / "run")), tmp_path / "mark"
    config = yaml.safe_load((run / "config.yaml").read_text())
    attack(config, str(mark))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert command(*(["task=test"] if key == "run" else []), f"{key}={run}") == 1
    assert capsys.readouterr().err.startswith(f"error: {run}/config.yaml: ")
    assert not mark.exists()


def test_teacher_that_calls_other_code_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"model": {"_target_": "my_package.Network"}}))
    assert command(*TINY, f"loss.distill.teacher={run}", in_directory(tmp_path / "new")) == 1
    assert "model._target_=my_package.Network: must be a network" in capsys.readouterr().err


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "ghostexp.training.callbacks.checkpoint.copy_atomically",
        "timm.models.load_state_dict",
        "timm.models._hub.load_state_dict_from_hf",
        "timm.models._hub.push_to_hf_hub",
    ],
)
def test_other_functions_are_not_trusted(target: str) -> None:
    with pytest.raises(ValueError, match=target):
        check_saved_config({"a": [{"_target_": target}]}, Path("run"), ())


@pytest.mark.parametrize(
    "target",
    [
        "timm.create_model",
        "timm.models.resnet.resnet18",
        "torchvision.models.resnet18",
        "torch.optim.Adam",
        "torch.nn.CrossEntropyLoss",
        "torchvision.transforms.v2.ColorJitter",
        "torchmetrics.classification.MulticlassF1Score",
        "lightning.pytorch.loggers.MLFlowLogger",
    ],
)
def test_parts_of_known_packages_are_trusted(target: str) -> None:
    check_saved_config({"a": [{"_target_": target}]}, Path("run"), ())


def test_allowed_package_is_trusted() -> None:
    check_saved_config({"model": {"_target_": "my_package.Network"}}, Path("run"), {"my_package"})
    with pytest.raises(ValueError, match=r"allow=\[my_packages\]"):
        check_saved_config({"model": {"_target_": "my_packages.Network"}}, Path("run"), {"my_package"})
