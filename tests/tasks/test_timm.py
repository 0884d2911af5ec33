"""Networks for timm: those that it lacks, and exported folders in its layout."""

import json
import math
from pathlib import Path

import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config

import ghostexp
import ghostexp.timm
from ghostexp.data.image_file_dataset import EVAL_RESIZE
from ghostexp.tasks.common.timm_config import LIBRARY, _crop_pct, write_timm_config
from tests.cli import command, in_directory


def test_timm_creates_networks_that_it_lacks() -> None:
    network = timm.create_model("ghost_resnet20", ratio=3, num_classes=7, in_chans=1)
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 7)
    fewer = timm.create_model("ghost_resnet20", ratio=5, num_classes=7, in_chans=1)
    assert sum(map(torch.numel, fewer.parameters())) < sum(map(torch.numel, network.parameters()))
    assert any(isinstance(module, ghostexp.GhostModule) for module in network.modules())


def test_timm_loads_exported_folder(trained_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    export = ("task=export", "task.formats=[safetensors]", "task.num_check_images=1", f"run={trained_run}")
    assert command(*export, in_directory(folder)) == 0
    network, ours = timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), ghostexp.load(trained_run)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), ours(images), atol=1e-4, rtol=1e-4)
    data = resolve_model_data_config(network)
    assert data["input_size"] == [1, 8, 8]
    others = timm.create_model(f"local-dir:{folder}", num_classes=5, in_chans=3)
    assert others(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"drop_path_rate=0\.1: the exported network has no such argument"):
        timm.create_model(f"local-dir:{folder}", drop_path_rate=0.1)
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == [str(digit) for digit in range(10)]


def test_exported_config_cannot_call_other_code(tmp_path: Path) -> None:
    config = {"architecture": "ghostexp_network", "num_classes": 2, "pretrained_cfg": {"num_classes": 2}}
    config |= {"model_args": {"model": {"_target_": "os.system", "command": f"touch {tmp_path}/mark"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"os\.system"):
        timm.create_model(f"local-dir:{tmp_path}")
    assert not (tmp_path / "mark").exists()


def test_network_of_timm_keeps_its_architecture(tmp_path: Path) -> None:
    model = {"_target_": LIBRARY, "name": "test_resnet", "num_classes": 3, "in_chans": 3, "ratio": None, "kwargs": {}}
    data = {"num_classes": 3, "in_chans": 3, "image_size": 64}
    write_timm_config(
        {"model": model, "datamodule": data}, ((0.5,) * 3, (0.5,) * 3), ("a", "b", "c"), tmp_path / "config.json"
    )
    assert timm.create_model(f"local-dir:{tmp_path}")(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_crop_is_that_of_the_data(tmp_path: Path) -> None:
    model = {"_target_": LIBRARY, "name": "test_resnet", "num_classes": 3, "in_chans": 3, "ratio": None, "kwargs": {}}
    found = {}
    for module in ("image_folder.ImageFolder", "torch_dataset.TorchDataset"):
        data = {"_target_": f"ghostexp.data.datasets.{module}", "num_classes": 3, "in_chans": 3, "image_size": 96}
        write_timm_config({"model": model, "datamodule": data}, ((0.5,) * 3,) * 2, (), tmp_path / "config.json")
        found[module] = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["crop_pct"]
    assert found.pop("torch_dataset.TorchDataset") == 1.0
    (folders,) = found.values()
    assert math.floor(96 / folders) == round(96 * EVAL_RESIZE) == 110


@pytest.mark.parametrize("size", [72, 96, 144, 160, 208, 224, 256, 288, 299, 320, 384])
def test_crop_pct_gives_the_size_to_which_images_are_resized(size: int) -> None:
    assert math.floor(size / _crop_pct(size)) == round(size * EVAL_RESIZE)
    assert size != 224 or _crop_pct(size) == 0.875
