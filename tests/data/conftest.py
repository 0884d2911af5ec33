"""Small trees of generated images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeTree = Callable[..., Path]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Write ROOT/PART/CLASS/NNNN.EXTENSION, a number of images of noise in each class, and return ROOT."""

    def make(
        parts: dict[str, int], classes: tuple[str, ...] = ("ant", "bee", "cow"), size: int = 32, extension: str = "png"
    ) -> Path:
        generator = np.random.default_rng(0)
        for part, count in parts.items():
            for name in classes:
                folder = tmp_path / part / name
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:04}.{extension}")
        return tmp_path

    return make
