"""Test detectors on every network of this project, and where they differ from torchvision's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torchvision.ops import box_iou

from ghostexp.models.detection.base import DetectionModel, padded
from ghostexp.models.detection.faster_rcnn import FasterRCNN
from ghostexp.models.detection.fpn import LevelAnchorGenerator
from ghostexp.models.detection.retinanet import RetinaNet
from ghostexp.models.ghostnet import ghostnet, ghostnet_small
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.models.traced_network import as_network
from ghostexp.tasks.common.instantiate import build_network

from .tiny_detectors import BACKBONES, KINDS, found, target, total, with_quick_norms

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BACKBONES)
def test_detector_trains_all_parameters_on_every_backbone(name: str, kind: str) -> None:
    torch.manual_seed(0)
    build, strides = BACKBONES[name]
    network = KINDS[kind](with_quick_norms(build()), strides=strides, box_score_thresh=0.0, box_detections_per_img=7)
    images = [torch.randn(3, 64, 64), torch.randn(3, 70, 50)]
    loss = total(network, images, [target((5, 5, 40, 50)), target((0, 0, 50, 60), (10, 20, 30, 50), labels=[1, 2])])
    loss.backward()
    assert loss.isfinite()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    for one, (height, width) in zip(found(network, *images), [(64, 64), (70, 50)], strict=True):
        assert one["boxes"].shape == (7, 4)
        assert one["boxes"].min() >= 0
        assert (one["boxes"].max(0).values <= torch.tensor([width, height, width, height])).all()
        assert one["scores"].tolist() == sorted(one["scores"].tolist(), reverse=True)
        assert set(one["labels"].tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_detections_do_not_depend_on_other_images_of_the_batch(kind: str) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](with_quick_norms(ghostnet_small(3, width=0.5)), strides=(8, 16), box_score_thresh=0.0)
    images = [torch.randn(3, 64, 64), torch.randn(3, 70, 50), torch.randn(3, 60, 40)]
    total(network, images, [target((5, 5, 40, 30))] * 3)
    alone = [one for image in images for one in found(network, image)]
    for ours, theirs in zip(found(network, *images), alone, strict=True):
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"])


@pytest.mark.parametrize("kind", KINDS)
def test_detector_overfits_one_image_and_predicts_label_0(kind: str) -> None:
    torch.manual_seed(1)
    backbone = with_quick_norms(ghostnet_small(width=0.5))
    network = KINDS[kind](backbone, strides=(8, 16), fpn_channels=32, anchor_scale=4)
    image, box = torch.zeros(3, 64, 64), (10, 16, 42, 48)
    image[:, 16:48, 10:42] = 1
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < 150 and (not losses or losses[-1] > 0.2 * losses[0]):
        optimizer.zero_grad()
        loss = total(network, [image], [target(box)])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= 0.2 * losses[0]
    (one,) = found(network, image)
    assert one["labels"][0] == 0
    assert box_iou(one["boxes"][:1], torch.tensor([box], dtype=torch.float32)) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_images_without_boxes(kind: str) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](ghostnet_small(width=0.5), strides=(8, 16))
    loss = total(network, [torch.randn(3, 64, 64), torch.randn(3, 64, 64)], [target(), target()])
    loss.backward()
    assert loss.isfinite()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in network.parameters())
    losses = network([torch.randn(3, 64, 64)], [target()])
    assert isinstance(losses, dict)
    assert losses["box"] == 0
    assert losses["classification"] > 0


def anchors_of(network: DetectionModel) -> LevelAnchorGenerator:
    anchors = network.rpn.anchor_generator if isinstance(network, FasterRCNN) else network.anchor_generator
    assert isinstance(anchors, LevelAnchorGenerator)
    return anchors


@pytest.mark.parametrize(
    ("kind", "strides", "octaves"), [("faster_rcnn", [4, 8, 16, 32, 64], 1), ("retinanet", [8, 16, 32, 64, 128], 3)]
)
def test_anchors_have_size_and_stride_of_their_level(kind: str, strides: list[int], octaves: int) -> None:
    network = KINDS[kind](ghostnet(width=0.3)).eval()
    images = torch.zeros(1, 3, 96, 160)  # a map of 3 x 5 at stride 32 makes levels of 2 x 3 and 1 x 2
    levels = list(network.backbone(images).values())
    (anchors,) = anchors_of(network)(padded(images, 32), levels)
    (under_autocast,) = anchors_of(network)(padded(images, 32), [level.bfloat16() for level in levels])
    assert torch.equal(under_autocast, anchors)  # in float32, where each pixel has a number
    sides = [int(level.shape[-2] * level.shape[-1]) * 3 * octaves for level in levels]
    assert len(levels) == len(strides)
    scale = 8 if kind == "faster_rcnn" else 4
    for level, own, stride in zip(levels, anchors.split(sides), strides, strict=True):
        own = own.reshape(*level.shape[-2:], 3, octaves, 4)
        width, height = own[..., 2] - own[..., 0], own[..., 3] - own[..., 1]
        for octave in range(octaves):
            side = scale * stride * 2 ** (octave / octaves)
            assert (width * height).sqrt()[..., octave].flatten().tolist() == pytest.approx(
                [side] * own[..., 0, 0].numel(), abs=1.5
            )
        assert (height / width)[0, 0, :, 0].tolist() == pytest.approx([0.5, 1, 2], rel=0.05)
        centres = (own[..., :2] + own[..., 2:]) / 2
        assert (centres[-1, -1] == stride * torch.tensor([level.shape[-1] - 1, level.shape[-2] - 1])).all()


def test_replication_config_anchor_sizes() -> None:
    network = instantiate_config("faster_rcnn_replication")
    assert isinstance(network, FasterRCNN)
    assert anchors_of(network).sizes == ((32.0,), (64.0,), (128.0,))
    assert list(network.backbone.body.feature_channels.values()) == [40, 80, 160]


@pytest.mark.parametrize("kind", KINDS)
def test_map_of_stride_64_is_a_level_of_its_own(kind: str) -> None:
    def deep() -> nn.Module:
        downs = [nn.Sequential(nn.Conv2d(4 if i else 3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()) for i in range(6)]
        return nn.Sequential(*downs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    network = KINDS[kind](as_network(deep()), strides=(32, 64), box_score_thresh=0.0)
    sides = [level.shape[-1] for level in network.backbone(torch.randn(2, 3, 256, 256)).values()]
    assert sides == [256 // stride for stride in network.backbone.strides]
    assert total(network, [torch.randn(3, 256, 256)], [target((5, 5, 200, 200))]).isfinite()


def test_detections_do_not_depend_on_earlier_batches() -> None:
    torch.manual_seed(0)
    network = KINDS["faster_rcnn"](ghostnet_small(width=0.5), strides=(8, 16), box_score_thresh=0.0)
    image = torch.randn(3, 96, 96)
    (fresh,) = found(network, image)
    found(KINDS["faster_rcnn"](ghostnet_small(width=0.5), strides=(8, 16)), image)
    again = KINDS["faster_rcnn"](ghostnet_small(width=0.5), strides=(8, 16), box_score_thresh=0.0)
    again.load_state_dict(network.state_dict())
    found(again, torch.randn(3, 33, 33))  # padded to almost twice its size
    (later,) = found(again, image)
    for name, values in fresh.items():
        assert torch.equal(values, later[name])


def test_padded_pads_right_and_bottom() -> None:
    first, second = torch.randn(3, 33, 40), torch.randn(3, 20, 65)
    batch = padded([first, second], 32)
    assert batch.image_sizes == [(33, 40), (20, 65)]
    assert batch.tensors.shape == (2, 3, 64, 96)
    assert torch.equal(batch.tensors[0, :, :33, :40], first)
    assert torch.equal(batch.tensors[1, :, :20, :65], second)
    assert batch.tensors[0, :, 33:].abs().sum() == batch.tensors[0, :, :, 40:].abs().sum() == 0


@pytest.mark.parametrize("training", [True, False])
def test_rpn_pre_nms_top_n_limits_proposals_per_level(training: bool) -> None:
    torch.manual_seed(0)
    network = KINDS["faster_rcnn"](ghostnet_small(width=0.5), strides=(8, 16), rpn_pre_nms_top_n=1)
    assert isinstance(network, FasterRCNN)
    batch = padded(torch.randn(2, 3, 128, 128), 16)
    network.rpn.train(training)
    proposals, _ = network.rpn(batch, network.backbone(batch.tensors), [target((5, 5, 60, 60))] * 2)
    assert [len(one) for one in proposals] == [3, 3]  # strides 8, 16 and 32


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_float32_under_autocast(kind: str) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](ghostnet_small(width=0.5), strides=(8, 16), box_score_thresh=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = total(network, [torch.randn(3, 320, 320)], [target((5, 5, 60, 60))])
        (one,) = found(network, torch.randn(3, 320, 320))
    assert loss.isfinite()
    assert one["boxes"].dtype == one["scores"].dtype == torch.float32
    if isinstance(network, FasterRCNN):
        batch = padded(torch.randn(1, 3, 320, 320), 16)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            proposals, _ = network.rpn(batch, network.backbone(batch.tensors))
        assert proposals[0].dtype == torch.float32
    inside = one["boxes"][(one["boxes"] > 256) & (one["boxes"] < 320)]
    assert (inside % 1 != 0).any()  # bfloat16 has even numbers only


@pytest.mark.parametrize("kind", KINDS)
def test_float64_detector_trains_and_detects(kind: str) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](ghostnet_small(width=0.5), strides=(8, 16), box_score_thresh=0.0).double()
    image, annotations = torch.randn(3, 96, 96, dtype=torch.float64), target((5, 5, 60, 60))
    loss = total(network, [image], [annotations | {"boxes": annotations["boxes"].double()}])
    loss.backward()
    assert loss.isfinite()
    (one,) = found(network, image)
    assert len(one["boxes"]) > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"strides": (8, 32)}, r"^model.strides=\[8, 32\]: must be some of \[4, 8, 16, 32\], each twice"),
        ({"strides": (2, 4)}, r"^model.strides=\[2, 4\]: .* those are the strides of GhostNet's maps$"),
        ({"strides": []}, r"^model.strides=\[\]: "),
        ({"strides": 8}, r"^model.strides=8: must be some of \[4, 8, 16, 32\]"),
        ({"freeze_stages": 5}, r"^model.freeze_stages=5: must be an integer from 0 to 4"),
        ({"freeze_stages": -1}, r"^model.freeze_stages=-1: "),
        ({"fpn_channels": 0}, r"^model.fpn_channels=0: must be an integer >= 1"),
        ({"anchor_scale": 0.5}, r"^model.anchor_scale=0.5: must be a number >= 1"),
        ({"anchor_ratios": []}, r"^model.anchor_ratios=\[\]: must be a list of numbers > 0"),
        ({"anchor_ratios": "1"}, r"^model.anchor_ratios=1: "),
        ({"anchor_ratios": 1}, r"^model.anchor_ratios=1: "),
        ({"freeze_batchnorm": 1}, r"^model.freeze_batchnorm=1: must be true or false"),
        ({"box_nms_thresh": 2}, r"^model.box_nms_thresh=2: must be a number in \[0, 1\]"),
        ({"box_detections_per_img": 0.5}, r"^model.box_detections_per_img=0.5: "),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_detector_rejects_argument_out_of_range(kind: str, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        KINDS[kind](ghostnet(width=0.1), **kwargs)
    assert "\n" not in str(error.value)


def test_retinanet_head_norm_groups_and_positions() -> None:
    network = KINDS["retinanet"](ghostnet(width=0.1), fpn_channels=16, head_norm=True)
    assert isinstance(network, RetinaNet)
    norms = [module for module in network.head.modules() if isinstance(module, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(2, 16)] * 8  # four layers a head
    assert not [
        module for module in KINDS["retinanet"](ghostnet(width=0.1)).modules() if isinstance(module, nn.GroupNorm)
    ]
    with pytest.raises(ValueError, match=r"^model.fpn_channels=12: must be a multiple of 8 with model.head_norm=true$"):
        KINDS["retinanet"](ghostnet(width=0.1), fpn_channels=12, head_norm=True)


@pytest.mark.parametrize("kind", KINDS)
def test_detector_rejects_network_without_feature_maps(kind: str) -> None:
    with pytest.raises(
        ValueError, match=r"^model.backbone: SqueezeNet has no feature maps by stride, which a detector"
    ):
        KINDS[kind](torchvision_network("squeezenet1_1"))


def instantiate_config(name: str, *overrides: str) -> DetectionModel:
    data = ("datamodule=shapes", "datamodule.num_classes=3", "datamodule.image_size=64")
    with initialize_config_dir(str(CONF), version_base=None):
        node = compose("config", [*data, f"model={name}", *overrides]).model
    OmegaConf.set_struct(node, False)
    assert node.pop("weights") is None  # the task loads them
    assert node.pop("reset_head") is False
    assert node.pop("plan", None) is None
    assert node.backbone.pop("weights") is None
    assert node.backbone.pop("plan") is None
    with torch.device("meta"):
        network = instantiate(node, _convert_="all")
    assert isinstance(network, DetectionModel)
    return network


def three_layers(num_classes: int) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    down = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU())
    return nn.Sequential(stem, down, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def test_module_of_ones_own_is_a_backbone() -> None:
    data = ("datamodule=shapes", "datamodule.num_classes=3", "datamodule.image_size=64")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [*data, "model=retinanet_ghostnet", "model.strides=[1,2]"])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    config["model"]["backbone"] = {"_target_": f"{__name__}.three_layers", "num_classes": 3}
    network, *_, macs = build_network(config)
    assert isinstance(network, RetinaNet)
    assert network.backbone.strides[:2] == [1, 2]
    assert macs == 224 * 224 * 3 * 4 * 9 + 112 * 112 * 4 * 8 * 9


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "ghost_resnet50"])
@pytest.mark.parametrize("name", ["faster_rcnn_ghostnet", "retinanet_ghostnet"])
def test_detector_config_backbone_can_be_replaced(name: str, backbone: str) -> None:
    strides = "model.strides=[8,16,32]"
    network = instantiate_config(name, f"model@model.backbone={backbone}", strides)
    assert type(network) is (FasterRCNN if name.startswith("faster") else RetinaNet)
    assert network.backbone.strides[:3] == [8, 16, 32]
    assert network.eval()(torch.empty(1, 3, 64, 64, device="meta")) == []
