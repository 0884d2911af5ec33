"""The backbone of a public replication of GhostNet's detectors: its blocks differ from the paper's."""

from torch import nn

from .ghost import GhostBottleneck
from .ghostnet import LARGE, GhostNet, with_blocks


def replication_bottleneck(
    in_channels: int,
    expanded: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    se_ratio: float,
    ratio: int,
    dw_size: int,
    keep_size: bool,
) -> GhostBottleneck:
    """A ghost bottleneck with cheap filters of kernel_size, and no depthwise filters in a shortcut at stride 1."""
    knobs = (kernel_size, stride, se_ratio, ratio, kernel_size, keep_size)
    block = GhostBottleneck(in_channels, expanded, out_channels, *knobs)
    if stride == 1 and in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        block.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    return block


# Table 1; its seventh stage is cut in two where the replication reads the map of 80 channels.
STAGES = with_blocks((*LARGE[:6], LARGE[6][:3], LARGE[6][3:], *LARGE[7:]), lambda index: replication_bottleneck)
MAPS = {4: 40, 6: 80, 8: 160}  # stage -> channels; 6 and 8 are not the last stages at their resolution


def ghostnet_replication(
    num_classes: int = 1000, in_chans: int = 3, dropout: float = 0.2, image_size: int | None = None
) -> GhostNet:
    """GhostNet without squeeze-and-excitation, as replicated: maps of 40, 80 and 160 channels, strides 8, 16 and 32.

    Stem and 16 bottlenecks: 1,055,832 parameters and 135,408,560 MACs at 224 x 224. The last four bottlenecks feed
    no map. These counts fix the layers, but not where activations stand: they stand as in the paper.
    """
    network = GhostNet(STAGES, 1280, num_classes, in_chans, se_ratio=0, dropout=dropout, image_size=image_size)
    network.taps = {network.strides[stage]: stage for stage in MAPS}
    network.feature_channels = {network.strides[stage]: channels for stage, channels in MAPS.items()}
    return network
