"""Image files too large for memory: decoded and transformed by DataLoader workers, normalised on the device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import resized_crop_image

from ghostexp.data.dataloader import (
    Batch,
    BatchSpec,
    EvalBatchSampler,
    MultiprocessLoader,
    ResumableLoader,
    TrainBatchSampler,
)
from ghostexp.data.digest import digest_files
from ghostexp.data.file_lists import ImagePath
from ghostexp.data.image_check import find_unreadable
from ghostexp.data.image_files import read_image, read_pixels
from ghostexp.data.image_folders import LabeledImages
from ghostexp.data.image_paths import ImagePaths
from ghostexp.data.resized_images import ResizedImages
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import Augmentation, MixParams, Normalize, mix_batch, seeded

EVAL_RESIZE = 256 / 224  # ratio of the shorter side to the centre crop


class ImageFileDataset:
    """Image files with classes; in_chans is 1 (grey) or 3, mean and std are of channels in [0, 1].

    resized: the cache from which training images are read, if any; those of an evaluation never are.
    """

    def __init__(
        self,
        tree: LabeledImages,
        *,
        image_size: int,
        in_chans: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        num_workers: int | None,
        resized: ResizedImages | None = None,
    ) -> None:
        self.paths = ImagePaths(tree.paths)
        self.labels = tree.labels
        self.folder = tree.folder
        self.cache = tree.cache_folder / f"{tree.folder.name}-readable.npy"
        self.image_size = image_size
        self.in_chans = in_chans
        self.mean = mean
        self.std = std
        self.num_workers = num_workers
        self.resized = resized
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """Set the device of the batches."""
        self.device = device
        return self

    def digest(self) -> str:
        """Digest names, sizes and labels of the files."""
        return digest_files(self.paths, str(self.folder), self.labels.tolist())

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check the files at indices; returns a message for each that cannot be read."""
        return find_unreadable(self.paths[indices], self.cache)

    def train_transform(self, augmentation: Augmentation) -> "TrainTransform":
        """Build the training transform: random resized crop; flip, RandAugment, others, erasing."""
        steps: list[Callable[..., Any]] = []
        if (transform := augmentation.of_image()) is not None:
            steps.append(transform)
        if augmentation.random_erasing:
            fill = [round(255 * mean) for mean in self.mean]
            steps.append(v2.RandomErasing(augmentation.random_erasing, value=fill))  # pyright: ignore[reportArgumentType]
        return TrainTransform(self.image_size, augmentation.hflip, tuple(steps))

    def pixel_transform(self) -> v2.Transform:
        """Build the evaluation transform to uint8 (C, H, W): resize to 8/7 of image_size, then centre crop.

        By Pillow, as the published weights were evaluated.
        """
        resize = v2.Resize(round(self.image_size * EVAL_RESIZE))
        return v2.Compose([resize, v2.CenterCrop(self.image_size), v2.PILToTensor()])

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """Build the evaluation transform to normalised float32 (C, H, W)."""
        pixels, normalize = self.pixel_transform(), Normalize(self.mean, self.std, torch.device("cpu"))
        return lambda image: normalize(pixels(image))

    def train_loader(
        self, sampler: EpochSampler, augmentation: Augmentation, num_classes: int
    ) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches; ValueError if the cache cannot be written."""
        read = read_pixels
        if self.resized is not None:
            self.resized.check_writable()
            read = self.resized.read
        load_batch = FileBatches(self, read, self.train_transform(augmentation))
        return ImageFileLoader(self, load_batch, TrainBatchSampler(sampler), num_classes)

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """Build the loader of the images at indices, in that order, without augmentation."""
        load_batch = FileBatches(self, read_image, self.pixel_transform())
        return ImageFileLoader(self, load_batch, EvalBatchSampler(indices, distributed_batches), num_classes=0)


Pixels = tuple[Tensor, Tensor, MixParams | None]  # uint8 images (N, C, H, W), classes (N,), and how they are mixed


class TrainTransform:
    """A random resized crop and flip as torchvision's v2 makes them, and then `steps`: uint8 (C, H, W) to the same.

    V2's kernel is called directly: its dispatch takes a tenth of the time of a decoded image.
    """

    def __init__(self, image_size: int, hflip: bool, steps: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self.size = [image_size, image_size]
        self.crop = v2.RandomResizedCrop(image_size)
        self.hflip = hflip
        self.steps = steps

    def __call__(self, image: Tensor) -> Tensor:
        box = self.crop.make_params([image])
        image = resized_crop_image(image, **box, size=self.size, antialias=True)
        if self.hflip and torch.rand(1) < 0.5:
            image = image.flip(-1)
        for step in self.steps:
            image = step(image)
        return image


class FileBatches:
    """Loads batches of pixels, a quarter of the bytes of float32; runs in the workers.

    read: reads an image, given its path and channels.
    """

    def __init__(
        self, data: ImageFileDataset, read: Callable[[ImagePath, int], Any], transform: Callable[[Any], Tensor]
    ) -> None:
        self.data = data
        self.read = read
        self.transform = transform

    def __call__(self, spec: BatchSpec) -> Pixels:
        """Load the batch of a spec; ValueError with the path of an image that cannot be read."""
        images = torch.stack([self._image(index, seed) for index, seed in spec.images()])
        return images, self.data.labels[spec.indices], spec.mix

    def _image(self, index: int, seed: int | None) -> Tensor:
        image = self.read(self.data.paths[index], self.data.in_chans)
        with nullcontext() if seed is None else seeded(seed):
            return self.transform(image)


class ImageFileLoader(MultiprocessLoader[Batch]):
    """Batches of float32 images (N, C, H, W), normalised and mixed on their device."""

    def __init__(
        self,
        data: ImageFileDataset,
        load_batch: FileBatches,
        batch_sampler: TrainBatchSampler | EvalBatchSampler,
        num_classes: int,
    ) -> None:
        load = cast("Callable[[BatchSpec], Batch]", load_batch)  # pixels, of which __iter__ makes batches
        pin = data.device.type == "cuda"
        super().__init__(load, batch_sampler, num_workers=data.num_workers, pin_memory=pin)
        self.device = data.device
        self.normalize = Normalize(data.mean, data.std, data.device)
        self.num_classes = num_classes

    def __iter__(self) -> Iterator[Batch]:
        for images, labels, mix in copied_ahead(cast("Iterator[Pixels]", super().__iter__()), self.device):
            yield mix_batch(self.normalize(images), labels, self.num_classes, mix)


def copied_ahead(batches: Iterator[Pixels], device: torch.device) -> Iterator[Pixels]:
    """Move batches to a device; to a GPU, each is copied while the one before it is used."""
    if device.type != "cuda":
        for images, labels, mix in batches:
            yield images.to(device), labels.to(device), mix
        return
    stream, waiting = torch.cuda.Stream(device), None
    for images, labels, mix in batches:
        with torch.cuda.stream(stream):
            copied = images.to(device, non_blocking=True), labels.to(device, non_blocking=True), mix
            copying = torch.cuda.Event()
            copying.record(stream)
        if waiting is not None:
            yield _after_copy(*waiting)
        waiting = copied, copying
    if waiting is not None:
        yield _after_copy(*waiting)


def _after_copy(batch: Pixels, copying: torch.cuda.Event) -> Pixels:
    """Let the computations wait for a batch's copy, and its memory be freed only after them."""
    computing = torch.cuda.current_stream(batch[0].device)
    computing.wait_event(copying)
    for tensor in batch[:2]:
        tensor.record_stream(computing)
    return batch


def float_tensor(mean: tuple[float, ...], std: tuple[float, ...]) -> v2.Transform:
    """Build the transform from image to normalised float32 (C, H, W); mean and std are of channels in [0, 1]."""
    return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
