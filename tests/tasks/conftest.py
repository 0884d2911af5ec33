"""Fixtures: a trained run, made once and copied for each test, and image files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ghostexp.data.datasets.digits import TEST_IMAGES
from ghostexp.data.splits import stratified_split
from tests.cli import command, in_directory


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train Ghost-ResNet-20 for two epochs on digits; best and last checkpoint differ."""
    run = tmp_path_factory.mktemp("trained") / "run"
    arguments = ("model.ratio=3", "trainer.max_epochs=2", "callbacks.ema=0.9", "callbacks.progress=false", "threads=1")
    assert command(*arguments, in_directory(run)) == 0
    return run


@pytest.fixture
def digits_run(trained_run: Path, tmp_path: Path) -> Path:
    """Copy the trained run for one test."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the test images of digits as FOLDER/CLASS/NNNN.png."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    test, _ = stratified_split(labels, TEST_IMAGES, 0)
    for number in test:
        path = folder / str(labels[number]) / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.rint(images[number].reshape(8, 8) * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return folder
