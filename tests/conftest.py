"""Isolate every test: one thread, no W&B account, outputs in a temporary directory."""

import gc
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # subprocesses would compile the package each time
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same results on a machine with GPUs; tests/gpu shows them to its commands


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give each worker whole folders, and one that has finished a part of the other's."""
    if config.getoption("numprocesses", None) and config.getoption("dist") == "no":
        config.option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    """Undo nohup and `&`, and install the shortcuts in the processes that run tests, not in the one that distributes.

    A hangup or an interrupt that is ignored where the tests are started would be ignored by the runs that they stop.
    """
    for signum, default in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, default)
    if not config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        from tests import shortcuts

        shortcuts.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests take their time."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))


def pytest_collection_finish() -> None:
    """Take what is imported out of garbage collection, which else walks through 700,000 objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the run of TINY, which no test may change."""
    from tests.cli import TINY, command, in_directory

    run = tmp_path_factory.mktemp("shared") / "run"
    assert command(*TINY, in_directory(run)) == 0
    return run


@pytest.fixture
def tiny_run(shared_run: Path, tmp_path: Path) -> Path:
    """Copy the run of TINY for one test."""
    return Path(shutil.copytree(shared_run, tmp_path / "tiny"))


@pytest.fixture
def warm_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `ghostexp.fit` fork its process from one that imported torch; test_failed_run_raises_run_error does not."""
    from tests.cli import warm_popen

    popen = SimpleNamespace(Popen=warm_popen, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr("ghostexp.api.subprocess", popen)


@pytest.fixture(autouse=True)
def _isolate_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHOSTEXP_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("GHOSTEXP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # artifacts to sync; by default in the home directory
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "")  # a sweep may set it
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
