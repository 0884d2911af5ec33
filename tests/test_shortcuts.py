"""Test that the shortcut of compositions changes none."""

import pytest
from hydra import initialize_config_dir
from hydra._internal import config_loader_impl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from ghostexp.config.compose import CONF, register_resolvers
from tests import shortcuts


def composed(overrides: list[str]) -> str:
    """Compose a command line with Hydra, as YAML."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return OmegaConf.to_yaml(loader.load_configuration("config", overrides, RunMode.RUN))


@pytest.mark.parametrize(
    ("overrides", "others"),
    [
        (["seed=3", "+model.kwargs.x=1", "~loss.distill"], ["seed=4", "optimizer.lr=0.5"]),
        (["experiment=cifar10/ghost_resnet56", "model.ratio=3"], ["experiment=cifar10/ghost_resnet56"]),
        (["datamodule=shapes", "model=retinanet_ghostnet", "model@model.backbone=vgg16"], ["datamodule=shapes"]),
    ],
)
def test_composition_from_merged_options_is_that_of_hydra(
    overrides: list[str], others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [composed(one) for one in (overrides, others, overrides, others)]
    monkeypatch.setattr(config_loader_impl, "create_defaults_list", shortcuts.list_defaults)
    monkeypatch.setattr(config_loader_impl.ConfigLoaderImpl, "_compose_config_from_defaults_list", shortcuts.merge)
    assert found == [composed(one) for one in (overrides, others)] * 2
