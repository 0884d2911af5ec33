"""A killed and resumed run equals the uninterrupted run bit for bit."""

import contextlib
import hashlib
import math
import os
import random
import signal
import subprocess
import time
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ghostexp.runner.fork_server import targets, warm_up
from ghostexp.runner.processes import RunProcesses
from ghostexp.runs.directory import RunDirectory
from tests.cli import TINY_DETECTOR, finish, in_directory, processes_in_session, processes_with, start, wait_until
from tests.data.fake_coco import write_set

KILLS = int(os.environ.get("KILLS", "200"))  # over all cases
EPOCHS = 6
CASES = {
    "ema_mixup": ("callbacks.ema=0.99", "datamodule.mixup_alpha=0.2", "callbacks.save_every_n_steps=7"),
    "accumulation": ("trainer.accumulate_grad_batches=2", "callbacks.save_every_n_steps=5", "optimizer=adamw"),
    "workers": (
        *("model=ghostnet", "model.width=0.5", "callbacks.save_every_n_steps=2", "datamodule=image_folder"),
        *("datamodule.num_classes=3", "datamodule.num_workers=2", "datamodule.batch_size=8"),
        "datamodule.root={folder}/images",
    ),
    "dropout": (
        "model=ghostnet_small",
        "model.width=0.5",
        "callbacks.save_every_n_steps=4",
        "datamodule.validate_on=holdout",
    ),
    "detector": (
        *(text for text in TINY_DETECTOR if text.split("=")[0] not in ("datamodule", "datamodule.num_images")),
        *("datamodule=coco", "datamodule.root={folder}/coco", "datamodule.num_classes=2", "datamodule.batch_size=2"),
        *("datamodule.num_workers=2", "datamodule.max_size=96", "callbacks.save_every_n_steps=2"),
        f"trainer.max_epochs={EPOCHS}",
    ),
    "ranks": (
        "trainer.devices=2",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=12",
        "callbacks.save_every_n_steps=7",
    ),
}


def digests(run: Path) -> tuple[str, str]:
    """Hash all training state in the last checkpoint, and metrics.csv."""
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


def write_jpegs(root: Path) -> None:
    """Write three classes of noise as JPEGs of several sizes, 16 training and 4 test images each."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for name in ("ant", "bee", "cat"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 255, (230 + 10 * number, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")


def run_once(config: dict[str, Any], run: RunDirectory, seconds: float | None) -> bool:
    """Start or resume a run as a sweep does, and kill its process, not its workers, after some time.

    Returns whether it was killed before it finished.
    """
    job = RunProcesses(config | {"resume": str(run.path)}, run, processes=1, quiet=True)
    (pid,) = (rank.pid for rank in job.ranks)
    assert pid is not None
    deadline = None if seconds is None else time.monotonic() + seconds
    while (code := job.poll()) is None:
        connection.wait(job.sentinels, timeout=0.02)
        if deadline is not None and time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
                job.kill()
                code = -signal.SIGKILL
                break
    assert code in (0, -signal.SIGKILL), run.log.read_text()[-2000:]
    wait_until(lambda: not processes_in_session(pid), seconds=5)
    return code != 0


def run_ranks_once(arguments: tuple[str, ...], run: RunDirectory, seconds: float | None) -> bool:
    """Start or resume by command line, and kill the process that started the ranks; returns whether it was killed."""
    outputs = os.environ["GHOSTEXP_OUTPUTS"]
    process = start(*([f"resume={run.path}"] if run.config.is_file() else [*arguments, in_directory(run.path)]))
    try:
        _, err = process.communicate(timeout=seconds)
        assert process.returncode == 0, err
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    wait_until(lambda: not processes_with(outputs), seconds=5)
    return process.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_run_killed_at_random_moments_equals_uninterrupted_run(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill runs at random moments until they end: `KILLS=200 pytest -m slow tests/training/test_exact_resume.py`.

    KILLS counts over all cases. A kill comes between start and the duration of the uninterrupted run without imports.
    """
    write_jpegs(tmp_path / "images")
    write_set(tmp_path / "coco")
    common = ("threads=1", "callbacks.progress=false", "trainer.log_every_n_steps=3", f"trainer.max_epochs={EPOCHS}")
    arguments = (*common, *CASES[case])
    arguments = tuple(argument.format(folder=tmp_path) for argument in arguments)
    uninterrupted = RunDirectory(tmp_path / "uninterrupted")
    code, _, err = finish(*arguments, in_directory(uninterrupted.path))
    assert code == 0, err
    config, result = uninterrupted.read_config(), uninterrupted.read_result()
    assert result is not None
    is_ranks = config["trainer"]["devices"] > 1
    if not is_ranks:  # a fork server of this test would count as a leftover of the command
        warm_up(["ghostexp.tasks.fit", *targets(config)])
    longest, rng, kills, runs = result["wall_seconds"], random.Random(case), 0, 0
    while kills < math.ceil(KILLS / len(CASES)):
        run = RunDirectory(tmp_path / f"killed-{runs}")
        if not is_ranks:
            run.write_config(config)
        once = partial(run_ranks_once, arguments, run) if is_ranks else partial(run_once, config, run)
        while once(rng.uniform(0, longest)):
            kills += 1
        assert digests(run.path) == digests(uninterrupted.path), run.path
        runs += 1
    with capsys.disabled():
        print(f"{case}: {kills} kills, {runs} runs equal to the uninterrupted one")
