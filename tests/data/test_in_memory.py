"""Batches of the in-memory data set."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor
from torchvision.transforms import v2

from ghostexp.data import in_memory
from ghostexp.data.in_memory import InMemoryDataset
from ghostexp.data.rand_augment import transform_each
from ghostexp.data.sampling import DistributedBatches, EpochSampler
from ghostexp.data.transforms import Augmentation, MixupCutmix, erasing_boxes, seeded

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
COUNT, SIZE, CLASSES = 50, 8, 5


@pytest.mark.parametrize(("spare", "device"), [(0, "meta"), (-1, "cpu")])
def test_images_are_on_the_device_if_a_quarter_of_its_memory_holds_them(
    spare: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise_dataset()
    monkeypatch.setattr(in_memory, "device_memory", lambda device: 4 * data.images.nbytes + spare)
    assert data.to(torch.device("meta")).images.device.type == device


def test_device_memory_does_not_depend_on_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("what is free depends on other jobs"))
    assert in_memory.device_memory(torch.device("cuda", 0)) == 80
    assert in_memory.device_memory(torch.device("cpu")) == 0


def noise_dataset() -> InMemoryDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (COUNT, 3, SIZE, SIZE + 2), generator=generator, dtype=torch.uint8)
    return InMemoryDataset(images, torch.arange(COUNT) % CLASSES, MEAN, STD)


def sampler_of(
    distributed_batches: DistributedBatches | None = None, seed: int = 0, epoch: int = 0, done: int = 0, **mixing: Any
) -> EpochSampler:
    return EpochSampler(
        torch.arange(COUNT),
        distributed_batches or DistributedBatches(12),
        seed,
        MixupCutmix(**mixing),
        lambda: (epoch, done),
    )


def batches(sampler: EpochSampler, **augmentation: Any) -> list[tuple[Tensor, Tensor]]:
    return list(noise_dataset().train_loader(sampler, Augmentation(**augmentation), CLASSES))


def joined(sampler: EpochSampler, **augmentation: Any) -> Tensor:
    return torch.cat([images for images, _ in batches(sampler, **augmentation)])


ALL_AUGMENTATIONS: dict[str, Any] = {"crop_padding": 2, "hflip": True, "random_erasing": 0.5, "randaugment_num_ops": 1}


def test_batches_depend_on_seed_and_epoch() -> None:
    first = joined(sampler_of(), **ALL_AUGMENTATIONS)
    assert torch.equal(first, joined(sampler_of(), **ALL_AUGMENTATIONS))
    assert not torch.equal(first, joined(sampler_of(epoch=1), **ALL_AUGMENTATIONS))
    assert not torch.equal(first, joined(sampler_of(seed=1), **ALL_AUGMENTATIONS))


def test_epoch_resumed_in_the_middle_has_the_same_batches() -> None:
    uninterrupted = batches(sampler_of(cutmix_alpha=1.0), **ALL_AUGMENTATIONS)
    rest = batches(sampler_of(cutmix_alpha=1.0, done=3), **ALL_AUGMENTATIONS)
    assert len(uninterrupted) == 4
    assert len(rest) == 1
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted[3], rest[0], strict=True))


@pytest.mark.parametrize(
    "mixing", [{}, {"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}]
)
@pytest.mark.parametrize(("world_size", "accumulation_steps"), [(2, 1), (3, 2), (1, 4)])
def test_devices_and_accumulation_get_the_batches_of_one_device(
    world_size: int, accumulation_steps: int, mixing: dict[str, Any]
) -> None:
    one = batches(sampler_of(**mixing), **ALL_AUGMENTATIONS)
    parts_of_ranks = [DistributedBatches(12, rank, world_size, accumulation_steps) for rank in range(world_size)]
    ranks = [batches(sampler_of(part, **mixing), **ALL_AUGMENTATIONS) for part in parts_of_ranks]
    parts = [ranks[rank][step] for step in range(len(ranks[0])) for rank in range(world_size)]
    for mine, theirs in zip(zip(*one, strict=True), zip(*parts, strict=True), strict=True):  # images, then targets
        assert torch.equal(torch.cat(mine), torch.cat(theirs))


def test_epoch_has_each_image_at_most_once() -> None:
    data = noise_dataset()
    data.images[:] = torch.arange(COUNT, dtype=torch.uint8)[:, None, None, None]  # each image has its index as value
    loader = data.train_loader(sampler_of(), Augmentation(), CLASSES)
    shown = torch.cat([images[:, 0, 0, 0] for images, _ in loader])
    numbers = (shown * STD[0] + MEAN[0]).mul(255).round().int().tolist()
    assert len(numbers) == 48
    assert len(set(numbers)) == 48


def test_crop_flip_erase_normalize_equal_torchvision() -> None:
    data, sampler, padding = noise_dataset(), sampler_of(), 2
    order, uniforms = sampler.permutation(0).tolist(), sampler.random_uniforms(0)
    boxes = erasing_boxes(uniforms[:, 3:], 0.5, SIZE, SIZE + 2).tolist()
    expected = []
    for index, uniform, (y1, x1, y2, x2) in zip(order, uniforms.tolist(), boxes, strict=True):
        top, left = (int(u * (2 * padding + 1)) for u in uniform[:2])
        image = TF.crop(TF.pad(data.images[index], [padding]), top, left, SIZE, SIZE + 2)
        image = TF.horizontal_flip(image) if uniform[2] < 0.5 else image
        image = TF.normalize(TF.to_dtype(image, torch.float32, scale=True), list(MEAN), list(STD))
        expected.append(TF.erase(image, y1, x1, y2 - y1, x2 - x1, torch.zeros(1)))
    loader = data.train_loader(sampler, Augmentation(crop_padding=padding, hflip=True, random_erasing=0.5), CLASSES)
    found = list(loader)
    torch.testing.assert_close(torch.cat([images for images, _ in found]), torch.stack(expected[:48]))
    assert torch.equal(torch.cat([labels for _, labels in found]), data.labels[order[:48]])


def test_random_uniforms_cover_crops_and_flips() -> None:
    sampler = EpochSampler(torch.arange(10_000), DistributedBatches(100), 0, MixupCutmix(), lambda: (0, 0))
    uniforms = sampler.random_uniforms(0)
    assert (uniforms[:, :2] * 9).long().unique().tolist() == list(range(9))
    assert 0.48 < float((uniforms[:, 2] < 0.5).float().mean()) < 0.52


def test_erasing_boxes_have_configured_probability_and_area() -> None:
    uniforms = torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    top, left, bottom, right = erasing_boxes(uniforms, 0.25, 32, 40).unbind(1)
    area = ((bottom - top) * (right - left)).double() / (32 * 40)
    erased = area > 0
    assert int(top.min()) >= 0
    assert int(left.min()) >= 0
    assert int(bottom.max()) == 32
    assert int(right.max()) == 40
    assert float(erased.double().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(area[erased].mean()) == pytest.approx((0.02 + 0.33) / 2, abs=0.01)


def test_randaugment_equals_torchvision_seeded_per_image() -> None:
    data, sampler = noise_dataset(), sampler_of()
    transform = v2.Compose([v2.RandAugment(2, 7), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    expected = []
    for index, seed in zip(sampler.permutation(0).tolist(), sampler.seeds(0).tolist(), strict=True):
        torch.manual_seed(seed)
        expected.append(transform(data.images[index]))
    torch.testing.assert_close(
        joined(sampler, randaugment_num_ops=2, randaugment_magnitude=7), torch.stack(expected[:48])
    )


def test_generator_of_a_gpu_is_seeded_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)  # in the place of two GPUs' generators
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: gpus[device.index].get_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: gpus[device.index].set_state(state))
    before = [gpu.get_state() for gpu in gpus]
    with seeded(3, torch.device("cuda", 1)):
        assert torch.equal(torch.rand(4, generator=gpus[1]), torch.rand(4, generator=torch.Generator().manual_seed(3)))
    assert all(torch.equal(gpu.get_state(), state) for gpu, state in zip(gpus, before, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_on_a_gpu_is_drawn_from_the_seed_of_an_image() -> None:
    images = torch.full((3, 3, SIZE, SIZE), 100, dtype=torch.uint8, device="cuda")
    first = transform_each(images, [1, 2, 3], v2.GaussianNoise())
    assert torch.equal(transform_each(images, [3, 1, 2], v2.GaussianNoise()), first[[2, 0, 1]])
    assert not torch.equal(first[0], first[1])


def test_mixup_blends_images_and_targets() -> None:
    plain, sampler = joined(sampler_of()), sampler_of(mixup_alpha=0.4)
    images, targets = batches(sampler)[1]
    mix = sampler.mix(0, 1)
    assert mix is not None
    blended = plain[12:24] * mix.weight + plain[12:24].roll(1, 0) * (1 - mix.weight)
    torch.testing.assert_close(images, blended)
    torch.testing.assert_close(targets.sum(1), torch.ones(12))
    labels = torch.cat([labels for _, labels in batches(sampler_of())])[12:24]
    torch.testing.assert_close(targets[torch.arange(12), labels] >= mix.weight - 1e-6, torch.ones(12).bool())


def test_cutmix_mixes_targets_by_box_area() -> None:
    plain, labelled = joined(sampler_of()), torch.cat([labels for _, labels in batches(sampler_of())])
    for number, (images, targets) in enumerate(batches(sampler_of(cutmix_alpha=1.0))):
        own = plain[12 * number : 12 * number + 12]
        labels = labelled[12 * number : 12 * number + 12]
        same = (images == own).all(1)  # (12, H, W)
        partner = (images == own.roll(1, 0)).all(1)
        assert bool((same | partner).all())
        kept = same.flatten(1).float().mean(1)
        different = labels != labels.roll(1)
        torch.testing.assert_close(targets[torch.arange(12), labels][different], kept[different])
        torch.testing.assert_close(targets.sum(1), torch.ones(12))


def test_mixup_and_cutmix_alternate_at_random() -> None:
    sampler = sampler_of(mixup_alpha=0.4, cutmix_alpha=1.0)
    cut = [mix.box is not None for mix in (sampler.mix(epoch, 0) for epoch in range(200)) if mix]
    assert 70 < sum(cut) < 130


def test_batches_do_not_change_global_random_state() -> None:
    before = torch.get_rng_state()
    joined(sampler_of(mixup_alpha=0.4), **ALL_AUGMENTATIONS)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_contiguous_float32_and_eval_is_unaugmented() -> None:
    data = noise_dataset()
    images, labels = batches(sampler_of(), **ALL_AUGMENTATIONS)[0]
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert labels.dtype == torch.int64
    evaluated = list(data.eval_loader(torch.tensor([4, 2, 9]), DistributedBatches(2)))
    expected = TF.normalize(data.images[[4, 2, 9]].float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(torch.cat([images for images, _ in evaluated]), expected)
    assert torch.cat([labels for _, labels in evaluated]).tolist() == [4, 2, 4]
