"""Compare correlations, ranks and linear fits with NumPy and torch.linalg on all maps at once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostexp.analysis.feature_maps import cheap_filters, extract_feature_maps, select_layers, selectable_layers
from ghostexp.analysis.layer_statistics import layer_statistics
from ghostexp.analysis.similarity import (
    SIZES,
    LinearFits,
    RunningCovariance,
    distinct_pairs,
    effective_rank,
    most_similar,
    other_correlations,
)
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.resnet_cifar import resnet20

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def correlation_of(maps: Tensor, parts: int = 2) -> Tensor:
    """Compute the correlation of maps (N, C, H, W), added in parts."""
    moments = RunningCovariance()
    for part in maps.chunk(parts):
        moments.add(part)
    return moments.correlation()


def test_running_covariance_matches_numpy() -> None:
    maps = 5 + 3 * torch.randn(8, 4, 5, 7)
    maps[:, 1] = 0.3 * maps[:, 0] - maps[:, 2]
    expected = np.corrcoef(maps.transpose(0, 1).flatten(1).numpy())
    np.testing.assert_allclose(correlation_of(maps, parts=3), expected, atol=1e-6)


def test_constant_map_has_no_correlation_and_no_rank() -> None:
    maps = torch.randn(4, 3, 6, 6)
    maps[:, 1] = 7.3
    correlation = correlation_of(maps)
    assert not correlation[1].any()
    assert effective_rank(correlation) == pytest.approx(effective_rank(correlation[[0, 2]][:, [0, 2]]))


def test_effective_rank_counts_directions() -> None:
    noise = torch.randn(50, 4, 20, 20, generator=torch.Generator().manual_seed(1))
    assert effective_rank(correlation_of(noise)) == pytest.approx(4, abs=0.01)
    copies = torch.cat([noise[:, :1], -3 * noise[:, :1] + 2, noise[:, 1:2]], 1)
    # Two equal maps and one alone: singular values in proportion to the square roots of 2, 0 and 1.
    fractions = torch.tensor([2.0, 1.0]).sqrt() / (1 + 2**0.5)
    expected = float(torch.exp(-(fractions * fractions.log()).sum()))
    assert effective_rank(correlation_of(copies)) == pytest.approx(expected, abs=0.01)


def test_most_similar_ignores_sign() -> None:
    correlation = torch.tensor([[1, 0.2, -0.9, 0.1], [0.2, 1, 0.3, 0.5], [-0.9, 0.3, 1, 0], [0.1, 0.5, 0, 1]])
    partners, r = most_similar(correlation)
    assert partners.tolist() == [2, 3, 0, 1]
    assert r.tolist() == pytest.approx([-0.9, 0.5, -0.9, 0.5])
    assert distinct_pairs(partners, r, 5) == [(2, 0), (3, 1)]


def test_linear_fits_explain_filtered_copy() -> None:
    source = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    kernel = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    target = F.conv2d(source, kernel, padding=2) + 0.7
    fits = LinearFits([(0, 1), (1, 0)])
    for part in torch.cat([source, target], 1).split(4):
        fits.add(part)
    unexplained = fits.unexplained()
    assert (unexplained[0, :2] > 0.2).all()
    assert (unexplained[0, 2:] < 1e-9).all()
    assert (unexplained[1] > 0.01).all()


@pytest.mark.parametrize("size", SIZES)
def test_linear_fits_errors_match_least_squares(size: int) -> None:
    generator = torch.Generator().manual_seed(4)
    maps = torch.rand(5, 2, 9, 9, generator=generator).double()
    maps[:, 1] += 0.5 * maps[:, 0].roll(1, 2)
    fits = LinearFits([(0, 1)])
    fits.add(maps)
    columns = F.unfold(maps[:, :1], size, padding=size // 2).transpose(1, 2).reshape(-1, size**2)
    design = torch.cat([columns, torch.ones(len(columns), 1)], 1)
    target = maps[:, 1].reshape(-1, 1)
    residual = target - design @ torch.linalg.lstsq(design, target).solution
    assert float(fits.errors()[0, SIZES.index(size)]) == pytest.approx(float(residual.square().mean()), rel=1e-6)
    variance = float(target.var(correction=0))
    assert float(fits.unexplained()[0, SIZES.index(size)]) * variance == pytest.approx(float(residual.square().mean()))


class Two(nn.Sequential):
    """A ghost module whose last ghosts are cut off, and a convolution."""

    def __init__(self) -> None:
        super().__init__(GhostModule(3, 16, 3, ratio=5, norm_act="none"), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 3))


def test_source_map_of_ghosts_is_their_filter_input() -> None:
    network = Two().eval()
    module = network[0]
    assert isinstance(module, GhostModule)
    (maps,) = extract_feature_maps(network, {"0": module}, IMAGES).values()
    assert maps.ghosts is not None
    assert (maps.intrinsic.shape[1], maps.ghosts.shape[1], maps.ghosts_per_map) == (4, 12, 4)
    assert torch.equal(maps.all_maps, module(IMAGES))
    statistics = layer_statistics(network, {"0": module}, lambda: IMAGES.split(2))["0"]
    kernels = cheap_filters(module)
    for ghost, source in enumerate(statistics.source_map.tolist()):
        made = F.conv2d(maps.intrinsic[:, source : source + 1], kernels[ghost][None, None], padding=1)[:, 0]
        torch.testing.assert_close(made, maps.ghosts[:, ghost])
        r = np.corrcoef(maps.intrinsic[:, source].flatten().numpy(), made.detach().flatten().numpy())[0, 1]
        assert float(statistics.ghost_r[ghost]) == pytest.approx(r, abs=1e-5)


def test_extract_feature_maps_ignores_later_in_place_layers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    (maps,) = extract_feature_maps(network, {"0": network[0]}, IMAGES).values()
    assert maps.ghosts is None
    torch.testing.assert_close(maps.all_maps, network[0](IMAGES))
    assert float(maps.intrinsic.min()) < 0
    statistics = layer_statistics(network, {"0": network[0]}, lambda: [IMAGES])["0"]
    assert (len(statistics.ghost_r), len(statistics.kernels), statistics.rank) == (0, 0, statistics.rank_intrinsic)


def test_select_layers_by_name_pattern_and_default() -> None:
    baseline, ghost = resnet20().eval(), ghostify(resnet20(), ratio=2).eval()
    assert list(selectable_layers(baseline)) == list(selectable_layers(ghost))
    assert list(select_layers(baseline, None, IMAGES[:1])) == ["conv1", "layer2.1.conv1", "layer3.2.conv2"]
    assert list(select_layers(ghost, None, IMAGES[:1])) == ["conv1", "layer2.1.conv1", "layer3.2.conv2"]
    assert list(select_layers(ghost, ["layer1.*.conv2", "layer1.0"], IMAGES[:1])) == [
        "layer1.0.conv2",
        "layer1.1.conv2",
        "layer1.2.conv2",
        "layer1.0",
    ]
    with pytest.raises(ValueError, match=r"task.layers=stem: must be one of conv1, layer1.0.conv1"):
        select_layers(ghost, ["stem"], IMAGES[:1])
    with pytest.raises(ValueError, match=r"task.layers=fc: must output maps"):
        select_layers(ghost, ["fc"], IMAGES[:1])
    all_ghosts = select_layers(ghostnet(image_size=16).eval(), None, IMAGES[:1])
    assert all(name.endswith(("ghost1", "ghost2")) for name in all_ghosts)
    squeezed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1))
    assert list(select_layers(squeezed, None, IMAGES[:1])) == ["0"]  # maps of one pixel are left out


def test_feature_maps_of_reparameterized_branches() -> None:
    torch.manual_seed(0)
    network = ghostnetv3(num_classes=4, image_size=16, width=0.5).eval()
    network.reparameterize()
    layers = select_layers(network, ["blocks.0.0.ghost1"], IMAGES[:1])
    (module,) = layers.values()
    assert isinstance(module, GhostModule)
    assert module.cheap_operation is not None
    (maps,) = extract_feature_maps(network, layers, IMAGES).values()
    assert maps.ghosts is not None
    kernels, bias = cheap_filters(module), module.cheap_operation[0].bias
    assert isinstance(bias, Tensor)
    made = F.conv2d(maps.intrinsic, kernels[:, None], bias.detach(), padding=1, groups=len(kernels)).relu()
    torch.testing.assert_close(made, maps.ghosts)
    statistics = layer_statistics(network, layers, lambda: [IMAGES])["blocks.0.0.ghost1"]
    assert len(statistics.kernels) == len(statistics.ghost_r) == maps.ghosts.shape[1] > 0


def test_fits_of_many_images_are_those_of_few_at_a_time() -> None:
    maps = torch.randn(40, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    pairs = [(0, 1), (0, 2), (2, 0)]
    whole, parts = LinearFits(pairs), LinearFits(pairs)
    whole.add(maps)
    for image in maps:
        parts.add(image[None])
    torch.testing.assert_close(whole.errors(), parts.errors())
    torch.testing.assert_close(whole.unexplained(), parts.unexplained())


def test_constant_maps_have_no_correlation_with_others_and_nothing_to_explain() -> None:
    """Three intrinsic maps, the last one dead, and a ghost of each."""
    maps = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[:, 2] = maps[:, 5] = 0.0
    correlation = correlation_of(maps)
    others = other_correlations(correlation, 3, 1)
    assert others[:2].tolist() == pytest.approx([abs(float(correlation[3, 1])), abs(float(correlation[4, 0]))])
    assert bool(others[2].isnan())
    fits = LinearFits([(0, 1), (0, 2)])
    fits.add(maps)
    assert fits.unexplained().isnan().tolist() == [[False] * 4, [True] * 4]


class Attention(nn.Module):
    """Has a layer whose output is a tuple, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].mean(1)


@pytest.mark.parametrize("name", ["attention", "unused"])
def test_layers_without_maps_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"task\.layers={name}: must output maps \(N, C, H, W\), got no tensor"):
        select_layers(Attention(), [name], IMAGES[:1])
