"""Each conf/datamodule/*.yaml sets all arguments of its class."""

from dataclasses import fields

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate

from ghostexp.config.compose import CONF
from ghostexp.config.config_files import list_options
from ghostexp.data.base import DataModule

NAMES = ["cifar10", "cifar100", "coco", "digits", "fake", "image_folder", "shapes", "torch_dataset"]


@pytest.mark.parametrize("name", NAMES)
def test_config_sets_every_argument_of_its_datamodule(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(f"datamodule/{name}", ["+seed=5", "+data_dir=elsewhere"])
    arguments = {field.name for field in fields(get_class(config.datamodule._target_)) if field.init}
    assert set(config.datamodule) - {"_target_"} == arguments
    if name == "torch_dataset":
        config.datamodule.train = config.datamodule.test = {"_target_": "torchvision.datasets.FakeData"}
    module = instantiate(config.datamodule)
    assert isinstance(module, DataModule)
    assert module.seed == 5


def test_every_data_set_has_a_config() -> None:
    assert list_options("datamodule", CONF) == NAMES
