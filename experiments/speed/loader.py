"""Load JPEGs for training beside torchvision and timm: python experiments/speed/loader.py [--rounds 15]

One process on one thread reads files of 500 x 375, crops and resizes them at random to 224, flips half of them, and
makes batches of 64. Torchvision's and timm's pipelines normalise to float32; ghostexp's workers return uint8, which is
normalised on the device. "Cache" reads images that were resized once to a shorter side of 256.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from ghostexp.data import image_files
from ghostexp.data.dataloader import BatchSpec
from ghostexp.data.datasets.image_folder import MEAN, STD
from ghostexp.data.file_lists import ImagePath
from ghostexp.data.image_file_dataset import FileBatches, ImageFileDataset
from ghostexp.data.image_files import read_image, read_pixels
from ghostexp.data.image_folders import LabeledImages
from ghostexp.data.resized_images import ResizedImages
from ghostexp.data.transforms import Augmentation
from ghostexp.runs.text_files import markdown_table

WIDTH, HEIGHT, SIZE, SHORT_SIDE, BATCH, COUNT = 500, 375, 224, 256, 64, 128


def main() -> None:
    """Print images per second of each way, and the median of their ratios to torchvision's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = make_ways(Path(folder))
        for load in ways.values():  # fills the cache of the file system, and that of resized images
            load(list(range(COUNT)))
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, load in ways.items():
                start = time.process_time()
                for first in range(0, COUNT, BATCH):
                    load(list(range(first, first + BATCH)))
                seconds[name].append(time.process_time() - start)
    base = seconds["torchvision v2"]
    rows = []
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(base, times, strict=True)]
        low, _, high = statistics.quantiles(ratios)
        rate = COUNT / statistics.median(times)
        rows.append([name, f"{rate:.0f}", f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"])
    print(markdown_table(["500 x 375 to 224 x 224", "img/s", "times torchvision v2 (quartiles)"], rows))


def make_ways(folder: Path) -> dict[str, Callable[[list[int]], object]]:
    """Write the images, and return for each way a function that loads a batch of them."""
    paths = write_images(folder / "train" / "photo")
    tree = LabeledImages(folder / "train", ("photo",), paths, torch.zeros(COUNT, dtype=torch.int64), [])
    files = ImageFileDataset(tree, image_size=SIZE, in_chans=3, mean=MEAN, std=STD, num_workers=0)
    transform = files.train_transform(Augmentation(hflip=True))
    resized = ResizedImages(folder / "cache", str(folder / "train"), SHORT_SIDE)
    crop = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]
    normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    on_tensors, on_images = v2.Compose([*crop, *normalize]), v2.Compose([*crop, v2.PILToTensor(), *normalize])
    in_uint8 = v2.Compose(crop)
    timm: Any = create_transform((3, SIZE, SIZE), is_training=True, color_jitter=0.0, interpolation="bilinear")

    def stacked(load: Callable[[Path], Tensor]) -> Callable[[list[int]], Tensor]:
        return lambda indices: torch.stack([load(paths[index]) for index in indices])

    def ours(read: Callable[..., Tensor]) -> Callable[[list[int]], object]:
        batches = FileBatches(files, read, transform)
        return lambda indices: batches(BatchSpec(indices, indices))

    return {
        "torchvision v2": stacked(lambda path: on_tensors(decode_image(str(path), ImageReadMode.RGB))),
        "torchvision v2, uint8": stacked(lambda path: in_uint8(decode_image(str(path), ImageReadMode.RGB))),
        "torchvision v2 over Pillow": stacked(lambda path: on_images(read_image(path, 3))),
        "timm": stacked(lambda path: timm(read_image(path, 3))),
        "ghostexp": ours(partial(with_decoder, None, read_pixels)),
        "ghostexp with simplejpeg": ours(partial(with_decoder, simplejpeg, read_pixels)),
        "ghostexp, cache": ours(partial(with_decoder, None, resized.read)),
        "ghostexp with simplejpeg, cache": ours(partial(with_decoder, simplejpeg, resized.read)),
    }


def with_decoder(decoder: ModuleType | None, read: Callable[..., Tensor], path: ImagePath, channels: int) -> Tensor:
    """Read an image with simplejpeg, or with torchvision alone."""
    image_files.simplejpeg = decoder
    return read(path, channels)


def write_images(folder: Path) -> list[Path]:
    """Write random parts of scikit-learn's photographs as JPEGs."""
    folder.mkdir(parents=True)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    generator = np.random.default_rng(0)
    paths = [folder / f"{number:03}.jpg" for number in range(COUNT)]
    for number, path in enumerate(paths):
        photo = photos[number % len(photos)]
        scale = generator.uniform(0.6, 1)
        width, height = round(500 * scale), round(375 * scale)
        left, top = generator.integers(photo.width - width + 1), generator.integers(photo.height - height + 1)
        box = (int(left), int(top), int(left) + width, int(top) + height)
        photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box).save(path, quality=90)
    return paths


if __name__ == "__main__":
    main()
