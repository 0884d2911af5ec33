"""Test sweep.yaml: concurrent commands, and sweeps with other fixed values."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ghostexp.runs.lock import is_locked, locked
from ghostexp.runs.sweep_record import SweepRecord, check_fixed, fixed_values, read_sweep, record_sweep
from tests.cli import command

Job = tuple[list[str], dict[str, Any]]


def job(*overrides: str, ratio: int = 2, width: float = 1.0, lr: float = 0.1) -> Job:
    """Return distinguishing overrides and configuration of a job."""
    seed = next((int(text.partition("=")[2]) for text in overrides if text.startswith("seed=")), 0)
    return list(overrides), {"model": {"ratio": ratio, "width": width}, "optimizer": {"lr": lr}, "seed": seed}


def record(*jobs: Job) -> SweepRecord:
    """Return the record of a sweep of these jobs."""
    return SweepRecord(None, {"_".join(overrides): overrides for overrides, _ in jobs}, fixed_values(jobs))


def test_concurrent_commands_record_all_jobs(tmp_path: Path) -> None:
    def add(number: int) -> None:
        record_sweep(tmp_path, record(job(f"seed={number}"), job(f"seed={number + 100}")))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(read_sweep(tmp_path).jobs) == 48


def test_is_locked_while_the_lock_is_held(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path, 0):
        assert is_locked(tmp_path)
        with pytest.raises(BlockingIOError), locked(tmp_path, 0.2):
            pass
    assert not is_locked(tmp_path)


def test_fixed_values_are_equal_for_all_jobs() -> None:
    jobs = [job("optimizer.lr=0.1", "seed=0"), job("optimizer.lr=0.2", "seed=1", lr=0.2)]
    assert fixed_values(jobs) == {"model.ratio": 2, "model.width": 1.0}


def test_values_that_depend_on_an_option_are_fixed_for_it() -> None:
    jobs = [job("model=ghostnet", width=0.5), job("model=vgg16")]
    fixed = fixed_values(jobs)
    assert fixed["model=ghostnet model.width"] == 0.5
    assert fixed["model=vgg16 model.width"] == 1.0
    assert fixed["optimizer.lr"] == 0.1


@pytest.mark.parametrize(
    ("added", "changed"),
    [
        (record(job("seed=1")), ""),
        (record(job("model.ratio=3", "seed=0", ratio=3), job("model.ratio=4", "seed=0", ratio=4)), ""),
        (record(job("seed=1", ratio=3)), "model.ratio: 2 -> 3"),
        (record(job("optimizer.lr=1", lr=1.0, width=0.5)), "model.width: 1.0 -> 0.5"),
    ],
)
def test_record_sweep_rejects_other_fixed_and_adds_swept_values(
    added: SweepRecord, changed: str, tmp_path: Path
) -> None:
    record_sweep(tmp_path, record(job("seed=0")))
    if not changed:
        check_fixed(tmp_path, added)
        record_sweep(tmp_path, added)
        assert list(added.jobs)[-1] in read_sweep(tmp_path).jobs
        return
    with pytest.raises(ValueError, match=f"contains a sweep with other fixed values \\({changed}\\); name=") as error:
        record_sweep(tmp_path, added)
    assert str(error.value).startswith(str(tmp_path))
    assert list(read_sweep(tmp_path).jobs) == ["seed=0"]


def test_record_sweep_rejects_other_value_of_the_same_option(tmp_path: Path) -> None:
    record_sweep(tmp_path, record(job("model=ghostnet", "seed=0", width=0.5), job("model=vgg16", "seed=0")))
    with pytest.raises(ValueError, match=r"model=ghostnet model\.width: 0\.5 -> 1\.0"):
        record_sweep(tmp_path, record(job("model=ghostnet", "seed=1"), job("model=vgg16", "seed=1")))


def test_command_with_other_fixed_values_trains_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "outputs" / "sweep"
    record_sweep(folder, SweepRecord(None, {"seed-0": ["seed=0"]}, {"optimizer.lr": 0.4}))
    assert command("-m", "seed=1,2", "name=sweep", "optimizer.lr=0.2") == 1
    assert (
        f"error: {folder}: contains a sweep with other fixed values (optimizer.lr: 0.4 -> 0.2)"
        in capfd.readouterr().err
    )
    assert not list(folder.glob("seed-*"))
