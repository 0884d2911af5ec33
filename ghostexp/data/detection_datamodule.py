"""Base of the detection datamodules: images of any size, each with the boxes of its objects."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_convert
from torchvision.transforms import v2

from ghostexp.data.base import Channels, DataModule
from ghostexp.data.coco_annotations import Annotations, ResizeShortestEdge, Target, transform_with_boxes
from ghostexp.data.dataloader import BatchSpec, EvalBatchSampler, MultiprocessLoader, ResumableLoader, TrainBatchSampler
from ghostexp.data.digest import DIGITS, digest_arrays
from ghostexp.data.image_file_dataset import float_tensor
from ghostexp.data.sampling import AspectRatioGroupedSampler, DistributedBatches, EpochSampler
from ghostexp.data.transforms import MixupCutmix, seeded
from ghostexp.validation import require, require_int, require_number

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, used to pretrain backbones

Batch = tuple[list[Tensor], list[dict[str, Any]]]  # float32 (3, H, W) each, and `Target`s as tensors


class ImageSource(Protocol):
    """Decoded RGB images by index; ValueError in one line for one that cannot be read."""

    def __getitem__(self, index: int) -> Image.Image: ...

    def digest(self) -> str:
        """Digest the images."""
        ...

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check images before training; returns a message for each that cannot be used."""
        ...


class DetectionDataset:
    """Images with their annotations; to_tensor converts a scaled image to the network's input."""

    def __init__(
        self,
        source: ImageSource,
        annotations: Annotations,
        *,
        train_transform: v2.Transform,
        eval_transform: v2.Transform,
        to_tensor: Callable[[Image.Image], Tensor],
        num_workers: int | None,
    ) -> None:
        self.source = source
        self.annotations = annotations
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.to_tensor = to_tensor
        self.num_workers = num_workers
        self.pin_memory = False

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def to(self, device: torch.device) -> Self:
        """Use pinned memory if device is a GPU; batches are made on the CPU."""
        self.pin_memory = device.type == "cuda"
        return self

    def digest(self) -> str:
        """Digest the images and their annotations."""
        known = self.annotations
        arrays = (known.image_ids, known.sizes, known.starts, np.array(known.category_ids))
        ground_truth = cast("dict[str, np.ndarray]", known.ground_truth)
        content = digest_arrays(*arrays, *(ground_truth[name] for name in sorted(ground_truth)))
        return hashlib.sha256(f"{self.source.digest()} {content}".encode()).hexdigest()[:DIGITS]

    def find_unreadable(self, indices: np.ndarray) -> list[str]:
        """Check the images at indices."""
        return self.source.find_unreadable(indices)

    def train_loader(self, sampler: EpochSampler) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches."""
        return DetectionLoader(self, TrainBatchSampler(sampler))

    def eval_loader(self, indices: Tensor, distributed_batches: DistributedBatches) -> ResumableLoader[Batch]:
        """Build the loader of the images at indices, in that order, without augmentation, with their ground truth."""
        return DetectionLoader(self, EvalBatchSampler(indices, distributed_batches))

    def load_batch(self, spec: BatchSpec) -> tuple[list[Tensor], list[Target]]:
        """Load the batch of a spec; runs in the workers."""
        examples = [self._example(index, seed) for index, seed in spec.images()]
        return [image for image, _ in examples], [target for _, target in examples]

    def _example(self, index: int, seed: int | None) -> tuple[Tensor, Target]:
        ground_truth = self.annotations.of(index)
        transform = self.eval_transform if seed is None else self.train_transform
        with nullcontext() if seed is None else seeded(seed):
            image, boxes, labels = transform_with_boxes(self.source[index], ground_truth, transform)
        target = Target(boxes=boxes, labels=labels, image_id=np.array(self.annotations.image_ids[index]))
        if seed is None:
            target["original_size"], target["ground_truth"] = self.annotations.sizes[index].copy(), ground_truth
        return self.to_tensor(image), target


class DetectionLoader(MultiprocessLoader[Batch]):
    """Batches of images and targets. Workers send targets as arrays: each tensor sent needs an open file.

    (https://docs.pytorch.org/docs/stable/multiprocessing.html#file-descriptor-file-descriptor: the usual
    limit is 1024, which ten tensors per image soon exceed.)
    """

    def __init__(self, data: DetectionDataset, batch_sampler: TrainBatchSampler | EvalBatchSampler) -> None:
        load_batch = cast("Callable[[BatchSpec], Batch]", data.load_batch)  # arrays, which __iter__ converts to tensors
        super().__init__(load_batch, batch_sampler, num_workers=data.num_workers, pin_memory=data.pin_memory)

    def __iter__(self) -> Iterator[Batch]:
        for images, targets in super().__iter__():
            yield images, cast("list[dict[str, Any]]", default_convert(targets))


@dataclass(kw_only=True, eq=False, repr=False)
class DetectionDataModule(DataModule[DetectionDataset]):
    """Base of the detection datamodules: a subclass implements `read`, with `build_dataset`.

    Batches are lists of float32 normalised images (3, H, W), whose sizes may differ, and as many targets, see
    `coco_annotations.Target`: training targets have the boxes of single objects only, evaluation targets also all
    annotations. image_size is the length to which the shorter side is scaled.
    """

    max_size: int | None = None  # pixels, of the longer side
    hflip: bool = True
    scale_jitter: float = 0.0  # shorter side from image_size / (1 + scale_jitter) to image_size * (1 + scale_jitter)
    aspect_ratio_grouping: bool = False  # batches of only wide or only tall images: less padding
    num_workers: int | None = 0  # None: as many as CPU threads

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_matches_config("in_chans", 3, "detection needs colour images")
        if self.max_size is not None:
            require_int("max_size", self.max_size, self.image_size)
        for key in ("hflip", "aspect_ratio_grouping"):
            require(isinstance(getattr(self, key), bool), key, getattr(self, key), "must be true or false")
        require_number("scale_jitter", self.scale_jitter, 0, 4)
        if self.num_workers is not None:
            require_int("num_workers", self.num_workers, 0)

    def default_normalisation(self) -> tuple[Channels, Channels]:
        """Return ImageNet's mean and std."""
        return MEAN, STD

    @property
    def category_ids(self) -> tuple[int | str, ...]:
        """Return the id of each label in the annotation file."""
        return self._load().test.annotations.category_ids

    @property
    def text_ids(self) -> dict[int, str]:
        """Map each image_id of the test set to its id in the annotation file, where that is a string."""
        texts = self._load().test.annotations.text_ids
        return {} if texts is None else dict(enumerate(texts.tolist()))

    def build_dataset(self, source: ImageSource, annotations: Annotations) -> DetectionDataset:
        """Build a dataset of images and annotations, with the transforms of this configuration."""
        low, high = round(self.image_size / (1 + self.scale_jitter)), round(self.image_size * (1 + self.scale_jitter))
        scale = ResizeShortestEdge(max(low, 1), high, self.max_size)
        return DetectionDataset(
            source,
            annotations,
            train_transform=v2.Compose([scale, v2.RandomHorizontalFlip()]) if self.hflip else scale,
            eval_transform=self._eval_scale(),
            to_tensor=float_tensor(*self.mean_std()),
            num_workers=self.num_workers,
        )

    def _eval_scale(self) -> v2.Transform:
        return ResizeShortestEdge(self.image_size, self.image_size, self.max_size)

    def eval_transform(self) -> Callable[[Image.Image], Tensor]:
        """Build the transform of the test set: decoded RGB image to float32 (3, H, W)."""
        return v2.Compose([self._eval_scale(), float_tensor(*self.mean_std())])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move images, and in training all boxes and labels of a batch together; an evaluation compares on the CPU."""
        images, targets = batch
        moved = [image.to(device, non_blocking=True) for image in images]
        if self.trainer is None or not self.trainer.training:
            return moved, targets
        counts = [len(target["labels"]) for target in targets]
        columns = {name: torch.cat([target[name] for target in targets]).to(device) for name in ("boxes", "labels")}
        parts = {name: values.split(counts) for name, values in columns.items()}
        return moved, [{name: parts[name][index] for name in parts} for index in range(len(targets))]

    def stratify_labels(self, train: DetectionDataset) -> np.ndarray:
        """Return one label for all images, which have objects of many classes: splits are not stratified."""
        return np.zeros(len(train), dtype=int)

    def build_train_loader(self, train: DetectionDataset) -> ResumableLoader[Batch]:
        """Build the loader of augmented batches, grouped by aspect ratio if configured."""
        sampler = EpochSampler(self.train_indices, self.distributed_batches, self.seed, MixupCutmix(), self._progress)
        if self.aspect_ratio_grouping:
            height, width = torch.from_numpy(train.annotations.sizes).unbind(1)
            sampler = AspectRatioGroupedSampler(**vars(sampler), groups=height > width)
        return train.train_loader(sampler)
