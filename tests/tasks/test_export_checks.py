"""Exported logits are compared within the network's own float32 rounding."""

import pytest
import torch
from torch import Tensor, nn

from ghostexp.models.base import Network
from ghostexp.models.fuse import fuse
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.tasks.common import export_checks
from ghostexp.tasks.common.export_checks import TOLERANCE, build_reference

SHAPE = (1, 8, 8)


@pytest.fixture
def images() -> list[Tensor]:
    return [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))]


def build_ill_conditioned_network(images: list[Tensor]) -> Network:
    """Build a network whose logits of about 1 are differences of numbers of about 500."""
    torch.manual_seed(0)
    network = resnet20(in_chans=1).eval()
    with torch.no_grad():
        next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).bias.fill_(1e3)
        *_, linear = (module for module in network.modules() if isinstance(module, nn.Linear))
        linear.bias -= network(images[0]).mean(0)
    return network


def test_compare_allows_rounding_of_ill_conditioned_network(images: list[Tensor]) -> None:
    network = build_ill_conditioned_network(images)
    fused = fuse(network)
    reference = build_reference(network, fused, images, SHAPE)
    check = reference.compare("the fused network", fused)
    assert check["difference"] > TOLERANCE
    assert reference.tolerance > check["difference"]
    with pytest.raises(ValueError, match=r"^other.onnx: its logits must differ by <= .* of the largest one, got "):
        reference.compare("other.onnx", lambda batch: network(batch) * 1.1)


def test_build_reference_detects_wrong_fusing_below_rounding(
    images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_ill_conditioned_network(images)

    def fuse_wrongly(network: Network, shape: tuple[int, int, int]) -> Network:
        fused = fuse(network, shape)
        with torch.no_grad():
            next(fused.parameters()).mul_(1 + 1e-5)
        return fused

    monkeypatch.setattr(export_checks, "fuse", fuse_wrongly)
    with pytest.raises(
        ValueError, match=r"^the fused network in float64: its logits must differ by <= 1e-06 of .*, got .*$"
    ):
        build_reference(network, fuse(network), images, SHAPE)


def test_build_reference_refuses_non_finite_logits(images: list[Tensor]) -> None:
    network = resnet20(in_chans=1).eval()
    next(network.parameters()).data[0] = torch.nan
    with pytest.raises(ValueError, match=r"^the network: its logits must be finite, got NaN or infinity for 8 of 8"):
        build_reference(network, fuse(network), images, SHAPE)
