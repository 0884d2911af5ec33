"""Time the in-memory dataset against DataLoader workers and against a training step.

    python experiments/speed/batching.py            # a minute on two cores
    python experiments/speed/batching.py --threads 1

The first table is crop + flip + normalise of 50,000 images of 32 x 32 in batches of 128, by the in-memory dataset
and by a DataLoader with 2 warm workers over PIL images and torchvision's transforms. The second is a batch of the
in-memory dataset beside a training step of resnet20 (forward, backward, SGD). Both alternate 7 times, so that other
work on the machine affects both medians alike.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ghostexp.data.dataloader import ResumableLoader
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import Augmentation, MixupCutmix
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.runs.provenance import cpu

IMAGES, BATCH, PAIRS, STEPS = 50_000, 128, 7, 20
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images with the transforms of torchvision's CIFAR10 examples."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels  # (N, H, W, 3)
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.transform(Image.fromarray(self.pixels[index]))
        assert isinstance(image, Tensor)
        return image, index % 10


def in_memory_loader(pixels: np.ndarray) -> ResumableLoader:
    """Build the loader of the in-memory dataset."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    data = InMemoryDataset(images, torch.arange(IMAGES) % 10, MEAN, STD)
    sampler = EpochSampler(
        torch.arange(IMAGES), DistributedBatches(BATCH), seed=0, mixing=MixupCutmix(), progress=lambda: (0, 0)
    )
    return data.train_loader(sampler, Augmentation(crop_padding=4, hflip=True), num_classes=10)


def seconds(action: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(first: Callable[[], object], second: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Time both alternately, each after an untimed call."""
    first()
    second()
    pairs = [(seconds(first), seconds(second)) for _ in range(PAIRS)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def exhaust(loader: ResumableLoader | DataLoader[tuple[Tensor, int]]) -> None:
    """Iterate over one epoch."""
    for _ in loader:
        pass


def compare_loaders(pixels: np.ndarray) -> None:
    """Print the first table."""
    workers = DataLoader(PilImages(pixels), BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    loader = in_memory_loader(pixels)
    ours, theirs = interleaved(lambda: exhaust(loader), lambda: exhaust(workers))
    images = IMAGES // BATCH * BATCH
    ratio = median(slow / fast for fast, slow in zip(ours, theirs, strict=True))
    print("| loader | img/s, median | lowest | highest |\n| --- | --- | --- | --- |")
    for name, times in (("in-memory dataset", ours), ("DataLoader, 2 workers", theirs)):
        print(f"| {name} | {images / median(times):,.0f} | {images / max(times):,.0f} | {images / min(times):,.0f} |")
    print(f"\nratio, median of {PAIRS} pairs: {ratio:.1f}x (target: 5x or more)\n")


def compare_step(pixels: np.ndarray) -> None:
    """Print the second table."""
    loader = in_memory_loader(pixels)
    batches = iter(loader)
    images, labels = next(batches)
    print("| resnet20 at batch 128 | step, ms | batch, ms | fraction of both |\n| --- | --- | --- | --- |")
    for name, memory in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
        network = resnet20(num_classes=10).to(memory_format=memory)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)

        def step(network: torch.nn.Module = network, optimizer: torch.optim.SGD = optimizer, memory=memory) -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(images.contiguous(memory_format=memory)), labels).backward()
            optimizer.step()

        def load() -> None:
            for _, _batch in zip(range(STEPS), loader, strict=False):
                pass

        loading, training = interleaved(load, lambda step=step: [step() for _ in range(STEPS // 4)])
        batch, whole = median(loading) / STEPS, median(training) / (STEPS // 4)
        print(f"| {name} | {1000 * whole:.1f} | {1000 * batch:.2f} | {100 * batch / (batch + whole):.1f} % |")
    print("\ntarget: 3 % or less")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of the in-memory dataset and the step"
    )
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{cpu()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    compare_loaders(pixels)
    compare_step(pixels)


if __name__ == "__main__":
    main()
