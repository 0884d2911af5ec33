"""What the datamodules of detection share: images of any size, each with the boxes of its objects."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data.base import Channels, DataModule, ResumableLoader
from ghostexp.data.coco_annotations import Annotations, ResizeShortestEdge, Target, transform_with_boxes
from ghostexp.data.dataloader import BatchSpec, EvalBatchSampler, MultiprocessLoader, TrainBatchSampler
from ghostexp.data.digest import DIGITS, digest_arrays
from ghostexp.data.image_file_dataset import float_tensor
from ghostexp.data.sampling import AspectRatioGroupedSampler, DistributedBatches, EpochSampler
from ghostexp.data.transforms import MixupCutmix, seeded
from ghostexp.validation import require, require_int, require_number

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which backbones are trained with

Batch = tuple[list[Tensor], list[dict[str, Any]]]  # float32 (3, H, W) each, and `Target`s as tensors


class ImageSource(Protocol):
    """Decoded RGB images by their number; ValueError in one line for one that cannot be read."""

    def __getitem__(self, index: int) -> Image.Image: ...

    def digest(self) -> str:
        """Digest what the pictures are."""
        ...

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check pictures before they are needed; what is wrong with those that cannot be used."""
        ...


class DetectionDataset:
    """Images with their annotations; to_tensor makes the network's input of an image that has its size."""

    def __init__(
        self,
        pictures: ImageSource,
        annotations: Annotations,
        *,
        train_transform: v2.Transform,
        eval_transform: v2.Transform,
        to_tensor: Callable[[Image.Image], Tensor],
        num_workers: int,
    ) -> None:
        self.pictures = pictures
        self.annotations = annotations
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.to_tensor = to_tensor
        self.num_workers = num_workers
        self.pin_memory = False

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def to(self, device: torch.device) -> Self:
        """Batches are made on the CPU; for a GPU, in memory from which they move fast."""
        self.pin_memory = device.type == "cuda"
        return self

    def digest(self) -> str:
        """Digest the pictures and all that is known of them."""
        known = self.annotations
        arrays = (known.image_ids, known.sizes, known.starts, np.array(known.category_ids))
        truth = cast("dict[str, np.ndarray]", known.truth)
        content = digest_arrays(*arrays, *(truth[name] for name in sorted(truth)))
        return hashlib.sha256(f"{self.pictures.digest()} {content}".encode()).hexdigest()[:DIGITS]

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check the pictures at indices."""
        return self.pictures.find_unreadable(indices)

    def train_loader(self, sampler: EpochSampler) -> ResumableLoader[Batch]:
        """Augmented batches along the plan."""
        return DetectionLoader(self, TrainBatchSampler(sampler))

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """The images at indices, in that order, without augmentation but with all that is known of them."""
        return DetectionLoader(self, EvalBatchSampler(indices, distributed_batches))

    def make(self, order: BatchSpec) -> tuple[list[Tensor], list[Target]]:
        """The batch that an order wants; runs in the workers."""
        examples = [self._example(index, seed) for index, seed in order.images()]
        return [image for image, _ in examples], [target for _, target in examples]

    def _example(self, index: int, seed: int | None) -> tuple[Tensor, Target]:
        truth = self.annotations.of(index)
        transform = self.eval_transform if seed is None else self.train_transform
        with nullcontext() if seed is None else seeded(seed):
            image, boxes, labels = transform_with_boxes(self.pictures[index], truth, transform)
        target = Target(boxes=boxes, labels=labels, image_id=np.array(self.annotations.image_ids[index]))
        if seed is None:
            target["original"], target["truth"] = self.annotations.sizes[index].copy(), truth
        return self.to_tensor(image), target


class DetectionLoader(MultiprocessLoader[Batch]):
    """Batches of images and targets. Targets travel as arrays: a worker needs an open file for every tensor it sends.

    (https://docs.pytorch.org/docs/stable/multiprocessing.html#file-descriptor-file-descriptor: a thousand is the usual
    limit, and ten for each image of some batches soon exceed it.)
    """

    def __init__(self, data: DetectionDataset, batch_sampler: TrainBatchSampler | EvalBatchSampler) -> None:
        make = cast("Callable[[BatchSpec], Batch]", data.make)  # with arrays, of which __iter__ makes tensors
        super().__init__(make, batch_sampler, num_workers=data.num_workers, pin_memory=data.pin_memory)

    def __iter__(self) -> Iterator[Batch]:
        for images, targets in super().__iter__():
            yield images, [as_tensors(target) for target in targets]


def as_tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    """A dictionary of arrays as one of tensors, and so the dictionaries in it."""
    return {
        name: as_tensors(value) if isinstance(value, dict) else torch.from_numpy(value)
        for name, value in arrays.items()
    }


@dataclass(kw_only=True, eq=False, repr=False)
class DetectionDataModule(DataModule[DetectionDataset]):
    """Base of the datamodules of detection: a subclass says what to `read`, of `image_set`s.

    Batches are lists of float32 normalised images (3, H, W), whose sizes may differ, and as many targets, see
    `boxes.Target`: those of training have the boxes of single objects only, those of evaluation all annotations too.
    image_size is what the shorter side is scaled to.
    """

    max_size: int | None = None  # pixels that the longer side is kept to
    hflip: bool = True
    scale_jitter: float = (
        0.0  # the shorter side by chance between image_size / (1 + jitter) and image_size * (1 + jitter)
    )
    aspect_ratio_grouping: bool = False  # batches of images that are all wide or all tall, which takes less padding
    num_workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_matches_config("in_chans", 3, "images with boxes are in colour")
        if self.max_size is not None:
            require_int("max_size", self.max_size, self.image_size)
        require(isinstance(self.hflip, bool), "hflip", self.hflip, "true or false is needed")
        require_number("scale_jitter", self.scale_jitter, 0, 4)
        require(
            isinstance(self.aspect_ratio_grouping, bool),
            "aspect_ratio_grouping",
            self.aspect_ratio_grouping,
            "true or false",
        )
        require_int("num_workers", self.num_workers, 0)

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """ImageNet's, whatever the images are."""
        return MEAN, STD

    @property
    def category_ids(self) -> tuple[int | str, ...]:
        """Of each label, what the annotation file calls it."""
        return self._load().test.annotations.category_ids

    @property
    def text_ids(self) -> dict[int, str]:
        """Of each image_id of the test set, what the annotation file calls it, where it calls images by texts."""
        texts = self._load().test.annotations.text_ids
        return {} if texts is None else dict(enumerate(texts.tolist()))

    def image_set(self, pictures: ImageSource, annotations: Annotations) -> DetectionDataset:
        """Images with their annotations, transformed as this configuration says."""
        low, high = round(self.image_size / (1 + self.scale_jitter)), round(self.image_size * (1 + self.scale_jitter))
        scale = ResizeShortestEdge(max(low, 1), high, self.max_size)
        return DetectionDataset(
            pictures,
            annotations,
            train_transform=v2.Compose([scale, v2.RandomHorizontalFlip()]) if self.hflip else scale,
            eval_transform=self._eval_scale(),
            to_tensor=float_tensor(*self.mean_std()),
            num_workers=self.num_workers,
        )

    def _eval_scale(self) -> v2.Transform:
        return ResizeShortestEdge(self.image_size, self.image_size, self.max_size)

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """What makes of a decoded RGB image what it would be in the test set: float32 (3, H, W)."""
        return v2.Compose([self._eval_scale(), float_tensor(*self.mean_std())])

    def stratify_labels(self, train: DetectionDataset) -> np.ndarray:
        """None: an image has objects of many classes."""
        return np.zeros(len(train), dtype=int)

    def build_train_loader(self, train: DetectionDataset) -> ResumableLoader[Batch]:
        """Augmented batches, all wide or all tall if so wanted."""
        sampler = EpochSampler(self.train_indices, self.distributed_batches, self.seed, MixupCutmix(), self._progress)
        if self.aspect_ratio_grouping:
            height, width = torch.from_numpy(train.annotations.sizes).unbind(1)
            sampler = AspectRatioGroupedSampler(**vars(sampler), groups=height > width)
        return train.train_loader(sampler)
