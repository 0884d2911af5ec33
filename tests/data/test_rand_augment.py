"""RandAugment of a batch equals torchvision's of each image."""

import torch
from torchvision.transforms import v2

from ghostexp.data.rand_augment import rand_augment
from ghostexp.data.transforms import seeded


def test_rand_augment_of_a_batch_equals_torchvisions_of_each_image() -> None:
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seeds, transform = list(range(40)), v2.RandAugment(3, 9)
    expected = []
    for image, seed in zip(images, seeds, strict=True):
        with seeded(seed):
            expected.append(transform(image))
    assert torch.equal(rand_augment(images, seeds, transform), torch.stack(expected))
