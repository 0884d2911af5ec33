"""Load large images of class folders in workers."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2

from ghostexp.data.dataloader import Batch
from ghostexp.data.datasets.image_folder import ImageFolder
from ghostexp.data.image_file_dataset import ImageFileDataset
from ghostexp.data.image_files import read_pixels
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import Augmentation, seeded
from tests.data.fake_image_folders import MakeTree, image_folder


def folder(root: Path, **changes: Any) -> ImageFolder:
    arguments: dict[str, Any] = {"num_workers": 0, "batch_size": 4, "image_size": 72, "hflip": True, "seed": 1}
    module = image_folder(root, **(arguments | changes))
    module.setup()
    return module


def equal(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_batches_do_not_depend_on_num_workers(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "val": 2}, size=80, extension="jpg")
    everything = {"random_erasing": 0.5, "randaugment_num_ops": 1, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    without_workers, with_workers = folder(root, **everything), folder(root, num_workers=2, **everything)
    before = torch.get_rng_state()
    batches = list(without_workers.train_dataloader())
    assert equal(batches, list(with_workers.train_dataloader()))
    assert torch.equal(before, torch.get_rng_state())
    assert equal(list(without_workers.val_dataloader()), list(with_workers.val_dataloader()))
    with_workers.teardown("fit")
    assert [tuple(tensor.shape) for tensor in batches[0]] == [(4, 3, 72, 72), (4, 3)]


def test_batches_depend_on_seed_and_epoch(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "val": 2}, size=80)
    first, other_seed, other_epoch = folder(root), folder(root, seed=2), folder(root)
    other_epoch._progress = lambda: (1, 0)  # type: ignore[method-assign]
    batches = list(first.train_dataloader())
    assert equal(batches, list(folder(root).train_dataloader()))
    assert not equal(batches, list(other_seed.train_dataloader()))
    assert not equal(batches, list(other_epoch.train_dataloader()))


def test_two_devices_get_the_batches_of_one(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "val": 2}, size=80)
    one, two = folder(root, cutmix_alpha=1.0), [folder(root, cutmix_alpha=1.0) for _ in range(2)]
    assert one.images is not None
    loaders = []
    for rank, module in enumerate(two):
        sampler = EpochSampler(
            module.train_indices, DistributedBatches(4, rank, world_size=2), 1, module.mixing, lambda: (0, 0)
        )
        loaders.append(one.images.train.train_loader(sampler, one.augmentation, 3))
    for whole, *parts in zip(one.train_dataloader(), *loaders, strict=True):
        for mine, theirs in zip(whole, zip(*parts, strict=True), strict=True):  # images, then targets
            assert torch.equal(mine, torch.cat(theirs))


def test_mixup_blends_each_image_with_the_one_before(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "val": 2}, size=80)
    module, unmixed = folder(root, mixup_alpha=0.4), list(folder(root).train_dataloader())
    sampler = EpochSampler(module.train_indices, module.distributed_batches, module.seed, module.mixing, lambda: (0, 0))
    for step, (images, targets) in enumerate(module.train_dataloader()):
        mix, own = sampler.mix(0, step), unmixed[step][0]
        assert mix is not None
        torch.testing.assert_close(images, own * mix.weight + own.roll(1, 0) * (1 - mix.weight))
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_eval_batches_are_centre_crops_of_all_images(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "val": 3}, size=90)
    transform = v2.Compose([v2.Resize(82), v2.CenterCrop(72), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    paths = sorted((root / "val").glob("*/*.png"))
    expected = torch.stack([normalize(transform(Image.open(path))) for path in paths])
    batches = list(folder(root).test_dataloader())
    torch.testing.assert_close(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_train_transform_equals_torchvision(make_tree: MakeTree) -> None:
    root = make_tree({"train": 1, "val": 1}, size=100, extension="jpg")
    module = folder(root)
    assert module.images is not None
    assert isinstance(module.images.train, ImageFileDataset)
    transform = module.images.train.train_transform(Augmentation(hflip=True))
    expected = v2.Compose([v2.RandomResizedCrop(72, antialias=True), v2.RandomHorizontalFlip()])
    image = read_pixels(root / "train" / "ant" / "0000.jpg", 3)
    for seed in range(20):
        with seeded(seed):
            found = transform(image)
        with seeded(seed):
            assert torch.equal(found, expected(image))
