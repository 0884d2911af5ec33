"""Build VGG-16 with BatchNorm for images of 32 x 32 (arXiv 1409.1556, as in arXiv 1911.11907, table 5)."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from .base import Network, he_init
from .validation import check_args, check_choice

Head = Literal["mlp", "linear"]

Stages = Sequence[Sequence[int]]

# Output channels of the 3x3 convolutions at each resolution; max pooling by two follows each row.
VGG16_STAGES: Stages = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)


class VGG(Network):
    """Stages of 3x3 convolutions with BatchNorm and ReLU, max pooling after each, and one of two heads.

    (N, in_chans, H, W) -> (N, num_classes), H and W >= min_size; a map larger than 1 x 1 is averaged before the head.
    head: `mlp` is dropout, 512 features, ReLU, dropout, linear (the paper's); `linear` is dropout, linear.
    bias: of the convolutions; the BatchNorm after them cancels it.
    Convolutions are initialised by `he_init`. Raises ValueError for an argument out of its range and a smaller image.
    """

    def __init__(
        self,
        stages: Stages,
        num_classes: int = 10,
        in_chans: int = 3,
        head: Head = "mlp",
        drop_rate: float = 0.5,
        bias: bool = True,
    ) -> None:
        check_args(num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate)
        check_choice("head", head, get_args(Head))
        super().__init__()
        self.min_size = 2 ** len(stages)
        self.min_size_reason = f"VGG halves the image {len(stages)} times"
        self.features = nn.Sequential()
        self.feature_channels = {}
        channels = in_chans
        for level, widths in enumerate(stages):
            for width in widths:
                self.features.append(nn.Conv2d(channels, width, 3, 1, 1, bias=bias))
                self.features.append(nn.BatchNorm2d(width))
                self.features.append(nn.ReLU(inplace=True))
                channels = width
            self.features.append(nn.MaxPool2d(2))
            self.feature_channels[2**level] = channels
        self.feature_channels[self.min_size] = channels
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(drop_rate))
        if head == "mlp":
            self.classifier.extend([nn.Linear(channels, 512), nn.ReLU(inplace=True), nn.Dropout(drop_rate)])
            channels = 512
        self.classifier.append(nn.Linear(channels, num_classes))
        he_init(self)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self.features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.global_pool(features).flatten(1))

    def feature_maps(self, x: Tensor) -> dict[int, Tensor]:
        self.check_image(x)
        maps: dict[int, Tensor] = {}
        stride = 1
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps[stride] = x
                stride *= 2
            x = layer(x)
        maps[stride] = x
        return maps


def vgg16(
    num_classes: int = 10, in_chans: int = 3, head: Head = "mlp", drop_rate: float = 0.5, bias: bool = True
) -> VGG:
    """Build VGG-16 with BatchNorm: 15.0M parameters and 313M MACs at 32 x 32, 14.7M with the linear head.

    The published count of VGG-16 includes the convolutions' biases, that of Ghost-VGG-16 does not.
    Source: arXiv 1911.11907, tables 3 to 5.
    """
    return VGG(VGG16_STAGES, num_classes, in_chans, head, drop_rate, bias)
