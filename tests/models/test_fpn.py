"""Test the backbone of a detector: pruning, freezing, and names of weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ghostexp.models.detection.fpn import BackboneWithFPN, parameters_feeding
from ghostexp.models.ghostnet import ghostnet, ghostnet_replication
from ghostexp.models.weights import load_weights

from .tiny_detectors import BACKBONES, COARSE, KINDS, target, total


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_keeps_only_layers_of_selected_maps(name: str) -> None:
    build, strides = BACKBONES[name]
    classifier, before = build().eval(), build()
    before.load_state_dict(classifier.state_dict())
    body = BackboneWithFPN(before, strides, 8).eval().body
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, expected = body.feature_maps(x), classifier.feature_maps(x)
    for stride in strides:
        assert torch.equal(maps[stride], expected[stride])
    assert list(body.feature_channels) == list(strides)
    left, all_shapes = shapes(body), shapes(classifier)
    assert left.items() < all_shapes.items()
    assert not any(key.startswith(("classifier", "fc", "conv_head")) for key in left)
    assert {id(parameter) for parameter in body.parameters()} == {id(one) for one in parameters_feeding(body, strides)}


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def test_backbone_drops_stages_after_last_selected_map() -> None:
    body = BackboneWithFPN(ghostnet(width=0.3), (8, 16), 8).body
    assert max(int(name.split(".")[1]) for name in shapes(body) if name.startswith("blocks")) == 6
    body = BackboneWithFPN(ghostnet_replication(), COARSE, 8).body
    assert {name.split(".")[1] for name in shapes(body) if name.startswith("blocks")} == set("012345678")


def test_backbone_keeps_names_of_classifier_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = ghostnet(num_classes=10, width=0.3)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = ghostnet(num_classes=3, width=0.3)
    load_weights(backbone, tmp_path / "weights.pth", reset_head=True)
    state = KINDS["retinanet"](backbone).state_dict()
    body = {name.removeprefix("backbone.body."): state[name] for name in state if name.startswith("backbone.body.")}
    assert len(body) > 100
    for name, tensor in body.items():
        assert torch.equal(tensor, classifier.state_dict()[name]), name
    with pytest.raises(ValueError, match="does not match the network"):
        load_weights(ghostnet(num_classes=3, width=0.4), tmp_path / "weights.pth", reset_head=True)


@pytest.mark.parametrize(
    ("kind", "backbone"), [*((kind, "ghostnet") for kind in KINDS), ("retinanet", "regnety_002 of timm")]
)
def test_freeze_batchnorm_keeps_loaded_values(kind: str, backbone: str) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](BACKBONES[backbone][0](), strides=COARSE, freeze_batchnorm=True)
    frozen, free = {}, []
    for name, module in network.backbone.body.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            frozen |= {f"{name}.{key}": value.clone() for key, value in module.state_dict().items()}
        free += [one for one in module.parameters(recurse=False) if not isinstance(module, nn.BatchNorm2d)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    total(network, [torch.randn(3, 64, 64)], [target((5, 5, 60, 60))]).backward()
    optimizer.step()
    state = network.backbone.body.state_dict()
    assert len(frozen) > 100
    assert all(torch.equal(state[name], value) for name, value in frozen.items())
    assert all(one.grad is not None for one in free)


def test_batchnorm_is_trained_without_freezing() -> None:
    network = KINDS["retinanet"](ghostnet(width=0.3), strides=COARSE)
    total(network, [torch.randn(3, 64, 64)], [target((5, 5, 60, 60))])
    norm = network.backbone.body.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.training
    assert norm.running_mean is not None
    assert norm.running_mean.any()


def test_freeze_stages_freezes_up_to_a_map() -> None:
    expected = {0: -1, 1: 2, 2: 4, 3: 6, 4: 8}  # the last stage of GhostNet that a number freezes
    for stages, last in expected.items():
        network = KINDS["retinanet"](ghostnet(width=0.3), strides=COARSE, freeze_stages=stages).train()
        body = network.backbone.body
        assert {int(name.split(".")[1]) for name, one in body.named_parameters() if is_frozen_block(name, one)} == set(
            range(last + 1)
        )
        assert body.get_parameter("conv_stem.weight").requires_grad == (stages == 0)
        for name, module in body.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                stage = int(name.split(".")[1]) if name.startswith("blocks") else -1 if stages else 99
                assert module.training == (stage > last), name
        assert all(one.requires_grad for one in network.backbone.fpn.parameters())


def is_frozen_block(name: str, parameter: nn.Parameter) -> bool:
    return name.startswith("blocks") and not parameter.requires_grad


def test_batchnorm_without_weights_is_trained() -> None:
    classifier = ghostnet(width=0.3)
    for name, module in list(classifier.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            classifier.set_submodule(name, nn.BatchNorm2d(module.num_features, affine=False))
    body = BackboneWithFPN(classifier, (8, 16), 8).train().body
    assert all(module.training for module in body.modules() if isinstance(module, nn.BatchNorm2d))
