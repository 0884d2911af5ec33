"""Each conf/datamodule/*.yaml sets all arguments of its class."""

from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from ghostexp.data.base import DataModule

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "datamodule").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_sets_every_argument_of_its_datamodule(path: Path) -> None:
    config = OmegaConf.create({"seed": 5, "data_dir": "elsewhere", "datamodule": OmegaConf.load(path)})
    arguments = {field.name for field in fields(get_class(config.datamodule._target_)) if field.init}
    assert set(config.datamodule) - {"_target_"} == arguments
    if path.stem == "torch_dataset":
        config.datamodule.train = config.datamodule.test = {"_target_": "torchvision.datasets.FakeData"}
    module = instantiate(config.datamodule)
    assert isinstance(module, DataModule)
    assert module.seed == 5


def test_every_data_set_has_a_config() -> None:
    names = ["cifar10", "cifar100", "coco", "digits", "fake", "image_folder", "shapes", "torch_dataset"]
    assert [path.stem for path in CONFIGS] == names
