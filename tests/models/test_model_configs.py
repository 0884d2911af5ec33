"""Test that every file of conf/model composes, builds and trains on small images, or reports its smallest size."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from ghostexp.config.config_files import list_options
from ghostexp.models.base import Network
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.traced_network import TracedNetwork

CONF = Path(__file__).parents[2] / "conf"
DETECTORS = {"faster_rcnn_ghostnet", "faster_rcnn_replication", "retinanet_ghostnet"}  # see test_detection.py
CONFIGS = sorted({*list_options("model", CONF)} - DETECTORS)
IMAGES = [(1, 8), (3, 32), (3, 64)]  # channels, side


def composed(name: str, *overrides: str, in_chans: int = 3, side: int = 32) -> DictConfig:
    data = f"+datamodule={{num_classes: 10, in_chans: {in_chans}, image_size: {side}}}"
    with initialize_config_dir(str(CONF), version_base=None):
        return compose(f"model/{name}", [data, *overrides])


def ghosts_of(network: Network) -> list[GhostModule]:
    return [module for module in network.modules() if isinstance(module, GhostModule)]


def two_steps(network: Network, in_chans: int, side: int) -> None:
    # BatchNorm over two single pixels is degenerate; torchvision's ResNet-50 and MobileNetV2 overflow on it
    batch = 8 if isinstance(network, TracedNetwork) and side == 8 else 2
    images, labels = torch.randn(batch, in_chans, side, side), torch.arange(batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()


HAS_RATIO = [name for name in CONFIGS if "ratio" in composed(name).model]
CASES = [(name, (), *image) for name in CONFIGS for image in IMAGES]
CASES += [(name, (f"model.ratio={ratio}",), 3, 32) for name in HAS_RATIO for ratio in (1, 3, 5)]


@pytest.mark.parametrize(("name", "overrides", "in_chans", "side"), CASES)
def test_config_trains_two_steps_or_reports_min_size(
    name: str, overrides: tuple[str, ...], in_chans: int, side: int
) -> None:
    cfg = composed(name, *overrides, in_chans=in_chans, side=side)
    torch.manual_seed(0)
    network = instantiate(cfg.model)
    assert isinstance(network, Network)
    if side >= network.min_size:
        two_steps(network, in_chans, side)
    else:
        with pytest.raises(ValueError, match=r"^model: .* is the smallest image that works; found 8 x 8"):
            two_steps(network, in_chans, side)


def test_configs_with_ratio_are_ghost_networks() -> None:
    ghostified = {"ghost_resnet20", "ghost_resnet50", "ghost_resnet56", "ghost_vgg16"}
    assert set(HAS_RATIO) >= ghostified | {"ghostnet", "ghostnet_small", "ghostnetv2", "ghostnetv3"}
    for name in CONFIGS:
        args = {"ratio", "dw_size", "se_ratio"} & set(composed(name).model)
        assert args >= {"ratio", "dw_size"} if name in HAS_RATIO else not args


@pytest.mark.parametrize("name", HAS_RATIO)
def test_config_ratio_and_dw_size_reach_every_ghost_module(name: str) -> None:
    with torch.device("meta"):
        network = instantiate(composed(name, "model.ratio=4", "model.dw_size=5").model)
        network.reparameterize()
    ghosts = ghosts_of(network)
    assert len(ghosts) > 10
    for ghost in ghosts:
        assert ghost.cheap_operation is not None
        assert ghost.primary_conv[0].out_channels == -(-ghost.out_channels // 4)
        assert ghost.cheap_operation[0].kernel_size == (5, 5)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ghost_resnet56", 438010),
        ("ghost_vgg16", 7650474),
        ("resnet56", 853018),
        ("vgg16", 14990922),
        ("ghost_resnet50", 13953512 - 990 * 2049),  # 10 classes instead of 1000
        ("ghostnetv2", 6156908 - 990 * 1281),
        ("ghostnetv3", 8129028 - 990 * 1281),
    ],
)
def test_config_defaults_have_published_parameters(name: str, params: int) -> None:
    with torch.device("meta"):
        network = instantiate(composed(name).model)
    assert sum(parameter.numel() for parameter in network.parameters()) == params


def test_commands_in_config_comments_compose() -> None:
    cfg = composed("ghost_resnet56", "model.network.shortcut=B", "model.exclude=[first,1x1]", "model.norm_act=bn_relu")
    network = instantiate(cfg.model)
    assert network.conv1.__class__.__name__ == "Conv2d"
    assert len(network.ghostified) == 54
    cfg = composed("ghost_resnet56", "model.exclude=layer1.*")
    assert len(instantiate(cfg.model).ghostified) == 55 - 18
    cfg = composed("resnet20", "model._target_=ghostexp.models.resnet_cifar.resnet110")
    assert len(instantiate(cfg.model).layer1) == 18
