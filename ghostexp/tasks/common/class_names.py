"""Find the class names of a network."""

import re
from collections.abc import Sequence
from itertools import zip_longest

import lightning.pytorch as pl
import torchvision

from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule
from ghostexp.tasks.common.load_model import LoadedModel, set_up_test

IMAGENET_CLASSES = 1000
WORDNET = re.compile(r"n\d{8}")  # names of ImageNet's class folders


def class_names(trained: LoadedModel, datamodule: ClassificationDataModule | ThirdPartyDataModule) -> tuple[str, ...]:
    """Return a network's class names in the order of its logits; those of the data if its checkpoint has none.

    Raises ValueError: the data cannot be read.
    """
    names = known_names(trained, datamodule.num_classes)
    if not names:
        set_up_test(datamodule)
    return names or datamodule.class_names


def check_class_names(trained: LoadedModel, datamodule: pl.LightningDataModule) -> None:
    """Raise ValueError if a network was trained on other classes than those of the data, or in another order.

    The data must be set up. Names that are not known, because a checkpoint has none or a datamodule of others numbers
    its classes, are not checked.
    """
    for kind, key in (("class", "class_names"), ("category id", "category_ids")):
        theirs, ours = list(getattr(trained, key)), list(getattr(datamodule, key, ()))
        if theirs and ours and theirs != ours and not any(map(_are_numbers, (theirs, ours))):
            number, (one, other) = next(
                (number, pair) for number, pair in enumerate(zip_longest(theirs, ours)) if pair[0] != pair[1]
            )
            root = getattr(datamodule, "root", None)
            place = f"datamodule.root={root}" if root is not None else "datamodule"
            raise ValueError(f"{place}: {kind} {number} is {other}, but the network was trained with {one}")


def _are_numbers(names: Sequence[object]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def known_names(trained: LoadedModel, num_classes: int) -> tuple[str, ...]:
    """Return the names known without the data: a checkpoint's own, or ImageNet's for 1000 classes; else none."""
    return trained.class_names or (imagenet_names() if num_classes == IMAGENET_CLASSES else ())


def readable(names: tuple[str, ...]) -> tuple[str, ...]:
    """Replace the folder names of ImageNet-1k by words; other names stay."""
    is_imagenet = len(names) == IMAGENET_CLASSES and all(WORDNET.fullmatch(name) for name in names)
    return imagenet_names() if is_imagenet else names


def imagenet_names() -> tuple[str, ...]:
    """Return ImageNet-1k's classes in the order of their folders, from torchvision, without a download."""
    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
