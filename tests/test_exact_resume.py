"""A run that was killed and resumed ends where the unbroken run ends, to the bit."""

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.commands import finish, in_directory, start

EPOCHS = 6
CASES = {
    "ema_mixup": ("callbacks.ema=0.99", "datamodule.mixup=0.2", "callbacks.save_steps=7"),
    "accumulation": ("trainer.accumulate_grad_batches=2", "callbacks.save_steps=5", "optimizer=adamw"),
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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_at_random_moments_ends_as_the_unbroken_one(case: str, tmp_path: Path) -> None:
    """`pytest -m slow tests/test_exact_resume.py`: ten kills for the first case, three for the others."""
    arguments = ("threads=1", f"trainer.max_epochs={EPOCHS}", "trainer.log_every_n_steps=3", *CASES[case])
    whole = tmp_path / "whole"
    began = time.monotonic()
    code, _, err = finish(*arguments, in_directory(whole))
    duration = time.monotonic() - began
    assert code == 0, err
    chance = random.Random(case)
    for number in range(10 if case == "ema_mixup" else 3):
        broken = tmp_path / f"broken-{number}"
        moment = chance.uniform(0.5, 1.0) * duration
        process = start(*arguments, in_directory(broken))
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        at = (broken / "metrics.csv").read_text().count("\n") if (broken / "metrics.csv").exists() else 0
        code, _, err = finish(f"resume={broken}")
        assert code == 0, err
        print(f"{case} {number}: killed after {moment:.1f} of {duration:.1f} s, {at} lines of metrics.csv")
        assert digests(broken) == digests(whole), f"killed after {moment:.2f} s"
