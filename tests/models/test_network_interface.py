"""Test the interface of every network."""

import functools
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from ghostexp.models.base import Network
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet, ghostnet_replication, ghostnet_small
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.resnet_cifar import BasicBlock, Shortcut, resnet20, resnet56
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.models.vgg_cifar import vgg16

from .timm_reference import randomize_norms

FEATURE_MAPS = {  # torchvision's networks: for each stride the module whose output is its map, and the channels
    "resnet18": {4: ("layer1", 64), 8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)},
    "resnet34": {4: ("layer1", 64), 8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)},
    "resnet50": {4: ("layer1", 256), 8: ("layer2", 512), 16: ("layer3", 1024), 32: ("layer4", 2048)},
    "mobilenet_v2": {
        4: ("features.3", 24),
        8: ("features.6", 32),
        16: ("features.13", 96),
        32: ("features.17", 320),
    },
    "mobilenet_v3_large": {
        4: ("features.3", 24),
        8: ("features.6", 40),
        16: ("features.12", 112),
        32: ("features.15", 160),
    },
    "mobilenet_v3_small": {
        4: ("features.1", 16),
        8: ("features.3", 24),
        16: ("features.8", 48),
        32: ("features.11", 96),
    },
    "densenet121": {
        4: ("features.denseblock1", 256),
        8: ("features.denseblock2", 512),
        16: ("features.denseblock3", 1024),
        32: ("features.norm5", 1024),
    },
    "efficientnet_b0": {4: ("features.2", 24), 8: ("features.3", 40), 16: ("features.5", 112), 32: ("features.7", 320)},
    "regnet_y_400mf": {
        4: ("trunk_output.block1", 48),
        8: ("trunk_output.block2", 104),
        16: ("trunk_output.block3", 208),
        32: ("trunk_output.block4", 440),
    },
    "convnext_tiny": {4: ("features.1", 96), 8: ("features.3", 192), 16: ("features.5", 384), 32: ("features.7", 768)},
    "shufflenet_v2_x0_5": {4: ("maxpool", 24), 8: ("stage2", 48), 16: ("stage3", 96), 32: ("stage4", 192)},
}
TORCHVISION = [name for name in FEATURE_MAPS if name.startswith(("resnet", "mobilenet"))]
NETWORKS: dict[str, Callable[[], Network]] = {
    "ghostnet": lambda: ghostnet(num_classes=7),
    "ghostnet ratio 3": lambda: ghostnet(num_classes=7, ratio=3, width=0.6),
    "ghostnet_small": lambda: ghostnet_small(num_classes=7),
    "ghostnet_replication": lambda: ghostnet_replication(num_classes=7),
    "ghostnetv2": lambda: ghostnetv2(num_classes=7),
    "ghostnetv3": lambda: ghostnetv3(num_classes=7),
    "ghostnetv3 ratio 3": lambda: ghostnetv3(num_classes=7, ratio=3, width=0.6, num_branches=2),
    "resnet20": lambda: resnet20(num_classes=7),
    "ghost_resnet20": lambda: ghostify(resnet20(num_classes=7, shortcut="B")),
    "vgg16": lambda: vgg16(num_classes=7),
    "vgg16 linear": lambda: vgg16(num_classes=7, head="linear"),
    **{name: lambda name=name: torchvision_network(name, num_classes=7) for name in TORCHVISION},
}


def build(name: str) -> Network:
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


@functools.cache
def shared(name: str) -> Network:
    """Return a network that all tests use, and none may change."""
    return build(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_head_of_features(name: str) -> None:
    network, x = shared(name), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = network(x)
        features = network.forward_features(x)
        assert features.ndim == 4
        assert logits.shape == (2, 7)
        assert torch.equal(network.forward_head(features), logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_feature_maps_have_declared_channels_and_stride(name: str) -> None:
    network = shared(name)
    with torch.no_grad():
        maps = network.feature_maps(torch.randn(1, 3, 64, 96))
    assert list(maps) == list(network.feature_channels) == sorted(maps)
    for stride, found in maps.items():
        assert found.shape == (1, network.feature_channels[stride], 64 // stride, 96 // stride)


def test_ghostnet_maps_are_last_at_their_stride() -> None:
    network, x = build("ghostnet"), torch.randn(1, 3, 64, 64)
    assert network.feature_channels == {4: 24, 8: 40, 16: 112, 32: 160}
    seen: dict[str, torch.Tensor] = {}

    def remember(block: nn.Module, _: tuple, out: torch.Tensor) -> None:
        seen[names[block]] = out.clone()

    names = {network.get_submodule(f"blocks.{name}"): name for name in "2468"}
    for block in names:
        block.register_forward_hook(remember)
    with torch.no_grad():
        network(x)
        maps = network.feature_maps(x)
    for stride, name in zip((4, 8, 16, 32), "2468", strict=True):
        assert torch.equal(maps[stride], seen[name])


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_torchvision_maps_are_outputs_of_their_blocks(name: str) -> None:
    network, x = torchvision_network(name, num_classes=7).eval(), torch.randn(1, 3, 64, 64)
    extractor = create_feature_extractor(
        network, {module: str(stride) for stride, (module, _) in FEATURE_MAPS[name].items()}
    )
    with torch.no_grad():
        maps, expected = network.feature_maps(x), extractor(x)
    assert network.feature_channels == {stride: channels for stride, (_, channels) in FEATURE_MAPS[name].items()}
    for stride, found in maps.items():
        assert torch.equal(found, expected[str(stride)])
    with torch.no_grad():
        assert torch.equal(network.forward_head(network.forward_features(x)), network(x))


@pytest.mark.parametrize("build", [ghostnet, ghostnet_small, vgg16])
def test_dropout_acts_in_head_in_training_only(build: Callable[..., Network]) -> None:
    torch.manual_seed(0)
    network = build(drop_rate=0.5)
    features = network.eval().forward_features(torch.randn(1, 3, 32, 32))
    assert torch.equal(network.forward_head(features), network.forward_head(features))
    network.train()
    assert not torch.equal(network.forward_head(features), network.forward_head(features))
    network = build(drop_rate=0).train()
    assert torch.equal(network.forward_head(features), network.forward_head(features))


def test_coarsest_map_of_cifar_networks_is_features() -> None:
    for name in ("resnet20", "vgg16"):
        network, x = shared(name), torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(list(network.feature_maps(x).values())[-1], network.forward_features(x))


@pytest.mark.parametrize(
    "name", ["ghostnetv3", "ghostnetv3 ratio 3", "ghostnetv2", "ghost_resnet20", "mobilenet_v3_small"]
)
def test_reparameterize_keeps_logits(name: str) -> None:
    network, x = build(name).double(), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        network.reparameterize()
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (31, 40), (1, 1)])
def test_min_size_is_the_smallest_that_works(name: str, size: tuple[int, int]) -> None:
    network, x = shared(name), torch.randn(1, 3, *size)
    with torch.no_grad():
        for function in (network, network.forward_features, network.feature_maps):
            if min(size) >= network.min_size:
                function(x)
            else:
                with pytest.raises(ValueError, match="smallest image that works"):
                    function(x)
        network(torch.randn(1, 3, network.min_size, network.min_size))


def test_vgg_rejects_too_small_image() -> None:
    with pytest.raises(ValueError, match="smallest") as error:
        vgg16()(torch.randn(2, 3, 8, 8))
    assert str(error.value) == (
        "model: VGG halves the image 5 times, so 32 x 32 is the smallest image that works; "
        "found 8 x 8 (datamodule.image_size)"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_network_builds_on_meta_device(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name]()
        assert network(torch.empty(2, 3, 64, 64)).shape == (2, 7)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("name", ["ghostnet", "ghostnetv3", "ghost_resnet20", "vgg16", "mobilenet_v3_small"])
def test_channels_last_keeps_logits(name: str) -> None:
    network, x = build(name), torch.randn(2, 3, 64, 64)
    randomize_norms(network)
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        features = network.forward_features(x.to(memory_format=torch.channels_last))
        found = network.forward_head(features)
    assert features.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ghostnet_small", "ghost_resnet20", "vgg16"])
def test_network_compiles_in_place_as_one_graph(name: str) -> None:
    network, x = build(name), torch.randn(2, 3, 32, 32)
    keys = list(network.state_dict())
    with torch.no_grad():
        expected = network(x)
        network.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(network(x), expected)
    assert list(network.state_dict()) == keys


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_network_matches_torchvision(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    ours = torchvision_network(name, num_classes=7).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_torchvision_network_in_chans_and_unknown_name() -> None:
    torch.manual_seed(0)
    network = torchvision_network("mobilenet_v3_small", num_classes=7, in_chans=1).eval()
    assert network(torch.randn(1, 1, 32, 32)).shape == (1, 7)
    first = network.get_parameter("features.0.0.weight")
    assert first.shape == (16, 1, 3, 3)
    assert first.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.25)
    with pytest.raises(
        ValueError, match=r"^model.name=resnet5: torchvision has no such network; did you mean resnet50"
    ):
        torchvision_network("resnet5")


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_basic_block_with_zero_convolutions_is_shortcut(shortcut: Shortcut) -> None:
    network = resnet56(shortcut=shortcut).eval()
    block = network.layer2[0]
    assert isinstance(block, BasicBlock)
    nn.init.zeros_(block.bn2.weight)
    nn.init.ones_(block.bn2.bias)
    x = torch.randn(1, 16, 9, 9)
    torch.testing.assert_close(block(x), (block.shortcut(x) + 1).relu())
    if shortcut == "A":
        assert torch.equal(block.shortcut(x)[:, :16], x[:, :, ::2, ::2])
        assert not block.shortcut(x)[:, 16:].any()


@pytest.mark.parametrize(("side", "stride"), [(8, 8), (12, 8), (16, 16), (31, 16), (32, 32), (224, 32)])
def test_ghostnet_skips_first_strides_for_small_images(side: int, stride: int) -> None:
    full, network = ghostnet(width=0.5), ghostnet(width=0.5, image_size=side)
    network.load_state_dict(full.state_dict())  # the weights fit whatever the image
    maps = network.eval().feature_maps(torch.randn(1, 3, side, side))
    assert max(maps) == stride
    assert {key: value.shape[1] for key, value in maps.items()} == network.feature_channels
    assert maps[stride].shape[-1] == -(-side // stride)
    assert network.conv_stem.stride == ((1, 1) if stride < 32 else (2, 2))
