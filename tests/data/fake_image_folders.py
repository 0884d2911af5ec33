"""Write class folders of small images and CIFAR-10's pickles, and build their datamodules."""

import pickle
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ghostexp.data.datasets.cifar import Cifar10
from ghostexp.data.datasets.image_folder import ImageFolder

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class MakeTree(Protocol):
    """Write class folders with a number of images per class in each part, and return their root."""

    def __call__(self, parts: dict[str, int], **how: Any) -> Path: ...


def write_tree(
    root: Path,
    parts: dict[str, int],
    classes: tuple[str, ...] = ("ant", "bee", "cow"),
    size: int = 32,
    extension: str = "png",
) -> Path:
    """Write images of noise as ROOT/PART/CLASS/NNNN.EXTENSION."""
    generator = np.random.default_rng(0)
    for part, count in parts.items():
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:04}.{extension}")
    return root


def write_pickles(root: Path, tree: Path) -> Path:
    """Write the images of class folders as CIFAR-10's pickles."""
    target = root / "cifar-10-batches-py"
    target.mkdir(parents=True)
    (target / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}))
    for part, names in (("train", [f"data_batch_{number}" for number in range(1, 6)]), ("test", ["test_batch"])):
        paths = sorted((tree / part).glob("*/*.png"))
        labels = [CIFAR10_CLASSES.index(path.parent.name) for path in paths]
        pixels = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1).reshape(-1) for path in paths])
        for name, chosen in zip(names, np.array_split(np.arange(len(paths)), len(names)), strict=True):
            entry = {"data": pixels[chosen], "labels": [labels[i] for i in chosen]}
            (target / name).write_bytes(pickle.dumps(entry))
    return target


def cifar10(root: Path, **changes: Any) -> Cifar10:
    """Build the datamodule of CIFAR-10 at root, in batches of 4."""
    return Cifar10(root=str(root), batch_size=4, num_classes=10, in_chans=3, image_size=32, **changes)


def image_folder(root: Path, **changes: Any) -> ImageFolder:
    """Build the datamodule of three class folders at root, in batches of 2, in memory as 16 x 16."""
    arguments: dict[str, Any] = {"batch_size": 2, "num_classes": 3, "in_chans": 3, "image_size": 16}
    return ImageFolder(root=str(root), **(arguments | changes))
