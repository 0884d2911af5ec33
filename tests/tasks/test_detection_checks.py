"""What would fail in or after a detector's training is refused before it."""

import json
from pathlib import Path

import pytest

from tests.cli import TINY_DETECTOR, command, in_directory
from tests.data.fake_coco import write_set

MODEL = [argument for argument in TINY_DETECTOR if not argument.startswith("datamodule")]
COCO = ("datamodule=coco", "datamodule.num_classes=2", "datamodule.image_size=64", "datamodule.max_size=null")
COCO += ("datamodule.batch_size=2", "datamodule.num_workers=0", "trainer.max_epochs=1")
PLATEAU = ("scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",)


@pytest.mark.parametrize("frozen", ["model.freeze_stages=1", "model.freeze_batchnorm=True"])
def test_dry_run_refuses_frozen_random_weights(frozen: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = ("-m", *TINY_DETECTOR, "seed=0,1", "dry_run=true", "name=sweep", frozen)
    assert command(*sweep) != 0
    assert f"{frozen}: needs model.backbone.weights, to freeze pretrained weights" in capfd.readouterr().err
    assert command(*sweep, f"model.backbone.weights={tmp_path}/later.pth") == 0  # loaded by the jobs


@pytest.mark.parametrize(
    ("monitor", "needs", "key"),
    [
        ("map_large", ("callbacks.patience=2",), "callbacks.patience"),
        ("mar_medium", ("datamodule.validate_on=holdout",), "datamodule.validate_on=holdout"),
        ("map_large", PLATEAU, PLATEAU[0]),
    ],
)
def test_monitor_of_a_size_without_objects_is_refused(
    monitor: str, needs: tuple[str, ...], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set")  # with areas below 32^2
    arguments = (*MODEL, *COCO, f"datamodule.root={root}", *needs)
    assert command(*arguments, f"monitor={monitor}", in_directory(tmp_path / "run")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    area = {"map_large": "[9216, 1e+10]", "mar_medium": "[1024, 9216]"}[monitor]
    assert error.startswith(f"error: {key}: none of ")
    assert f"has an object with an area in {area}, so that there is no val/{monitor}; " in error
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_monitor_of_a_size_with_objects_is_trained(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["area"] = 0  # torchmetrics takes that of the box
    path.write_text(json.dumps(content))
    arguments = (*MODEL, *COCO, f"datamodule.root={root}", *PLATEAU, "monitor=map_small")
    assert command(*arguments, in_directory(tmp_path / "run")) == 0
