"""Test a training that is paused after an epoch: to continue it gives the same as to never pause."""

from pathlib import Path

import torch

from ghostexp.runner.execute import execute
from ghostexp.runs.directory import RunDirectory
from tests.cli import command


def test_pause_keeps_the_run_unfinished_and_exact(shared_run: Path, tmp_path: Path) -> None:
    config = RunDirectory(shared_run).read_config()
    run = RunDirectory(tmp_path / "paused")
    run.write_config(config)
    for _ in range(2):  # the second time at once, as after a kill between checkpoint and end
        assert execute(config | {"pause_after": 1, "resume": str(run.path)}, run) == 0
        assert torch.load(run.last)["epoch"] == 0
        assert not run.result.exists()
        assert not run.failure.exists()
    assert len(run.metrics.read_text().splitlines()) == 2
    assert command(f"resume={run.path}") == 0
    assert run.metrics.read_bytes() == RunDirectory(shared_run).metrics.read_bytes()
    ours, theirs = (torch.load(one.last)["state_dict"] for one in (run, RunDirectory(shared_run)))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
