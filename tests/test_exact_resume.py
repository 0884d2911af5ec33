"""A run that was killed and resumed ends where the unbroken run ends, to the bit."""

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ghostexp.runs.table import read
from tests.commands import finish, in_directory, start

EPOCHS = 6
CASES = {
    "ema_mixup": ("callbacks.ema=0.99", "datamodule.mixup=0.2", "callbacks.save_steps=7"),
    "accumulation": ("trainer.accumulate_grad_batches=2", "callbacks.save_steps=5", "optimizer=adamw"),
    "workers": (
        *("model=ghostnet", "model.width=0.5", "callbacks.save_steps=2", "datamodule=image_folder"),
        *(
            "datamodule.num_classes=3",
            "datamodule.num_workers=2",
            "datamodule.batch_size=8",
            "datamodule.root={folder}",
        ),
    ),
    "dropout": ("model=ghostnet_small", "model.width=0.5", "callbacks.save_steps=4", "datamodule.split=val"),
}


def digests(run: Path) -> tuple[str, str]:
    """Of everything a checkpoint holds that decides what comes next, and of metrics.csv."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    names = ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state", "global_step", "epoch")
    state = hashlib.sha256()
    for name in names:
        _feed(state, checkpoint.get(name))
    return state.hexdigest(), hashlib.sha256((run / "metrics.csv").read_bytes()).hexdigest()


def _feed(state: "hashlib._Hash", value: object) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            state.update(str(key).encode())
            _feed(state, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(state, item)
    elif isinstance(value, torch.Tensor):
        state.update(value.contiguous().numpy().tobytes())
    else:
        state.update(repr(value).encode())


def lines_of(path: Path) -> int:
    """How much a run has logged so far."""
    return path.read_text().count("\n") if path.exists() else 0


def write_jpegs(root: Path) -> None:
    """Three classes of noise in JPEGs of several sizes, 16 images each to train on and 4 to test."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for name in ("ant", "bee", "cat"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 255, (230 + 10 * number, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_at_random_moments_ends_as_the_unbroken_one(case: str, tmp_path: Path) -> None:
    """`pytest -m slow -s tests/test_exact_resume.py`: ten kills for the first case, three for the others.

    A kill comes after a random line of metrics.csv, which has one for every third step, and a random tenth of a second.
    """
    arguments = ("threads=1", f"trainer.max_epochs={EPOCHS}", "trainer.log_every_n_steps=3", *CASES[case])
    if case == "workers":
        write_jpegs(tmp_path / "images")
        arguments = tuple(argument.format(folder=tmp_path / "images") for argument in arguments)
    whole = tmp_path / "whole"
    code, _, err = finish(*arguments, in_directory(whole))
    assert code == 0, err
    total = lines_of(whole / "metrics.csv")
    chance = random.Random(case)
    for number in range(10 if case == "ema_mixup" else 3):
        broken = tmp_path / f"broken-{number}"
        line, delay = chance.randrange(total), chance.uniform(0, 0.1)
        process = start(*arguments, in_directory(broken))
        while lines_of(broken / "metrics.csv") < line or not (broken / "config.yaml").exists():
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        step = int(read(broken / "metrics.csv")[-1]["step"])
        code, _, err = finish(f"resume={broken}")
        assert code == 0, err
        print(f"{case} {number}: killed {1000 * delay:.0f} ms after line {line} of {total}, step {step}")
        assert digests(broken) == digests(whole), f"killed after line {line}"
