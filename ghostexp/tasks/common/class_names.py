"""What the classes of a network are called."""

import re

import torchvision

from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.tasks.common.load_model import LoadedModel

IMAGENET_CLASSES = 1000
WORDNET = re.compile(r"n\d{8}")  # what ImageNet's class folders are called


def class_names(trained: LoadedModel, datamodule: ClassificationDataModule) -> tuple[str, ...]:
    """The names of a network's classes in the order of its logits; of a checkpoint without them, those of the data.

    Raises ValueError: the data have to be read, and cannot be.
    """
    names = known_names(trained, datamodule.num_classes)
    if not names:
        datamodule.setup("test")
    return names or datamodule.class_names


def known_names(trained: LoadedModel, num_classes: int) -> tuple[str, ...]:
    """The names that are known without the data: a checkpoint's own, or, of 1000 classes, ImageNet's; else none."""
    return trained.class_names or (imagenet_names() if num_classes == IMAGENET_CLASSES else ())


def readable(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names, in words where they are the folders of ImageNet-1k."""
    is_imagenet = len(names) == IMAGENET_CLASSES and all(WORDNET.fullmatch(name) for name in names)
    return imagenet_names() if is_imagenet else names


def imagenet_names() -> tuple[str, ...]:
    """ImageNet-1k's classes in the order of their folders; torchvision has them without a download."""
    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
