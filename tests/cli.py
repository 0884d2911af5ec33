"""Run command lines in tests: in this process through `main`, or in a subprocess."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ghostexp.__main__ import main
from tests.warm_process import WarmProcess

TINY = ("model=resnet20", "datamodule=fake", "datamodule.num_images=64", "datamodule.batch_size=16")
TINY += ("datamodule.image_size=8", "trainer.max_epochs=2", "callbacks.progress=false", "threads=1")

TINY_DETECTOR = ("model=faster_rcnn_ghostnet", "model@model.backbone=ghostnet_small", "model.backbone.width=0.25")
TINY_DETECTOR += (
    "model.fpn_channels=8",
    "model.head_channels=16",
    "model.rpn_post_nms_top_n=20",
    "model.box_batch_size_per_image=8",
)
TINY_DETECTOR += ("datamodule=shapes", "datamodule.num_images=60", "datamodule.image_size=64")
TINY_DETECTOR += ("datamodule.batch_size=4", "optimizer.lr=0.01", "trainer.max_epochs=2")
TINY_DETECTOR += ("trainer.limit_train_batches=3", "callbacks.progress=false", "threads=1")


def command(*arguments: str) -> int:
    """Run `python -m ghostexp ARGUMENTS` in this process; returns the exit code."""
    return main(arguments)


def start(*arguments: str, output: int | None = None) -> WarmProcess:
    """Start `python -m ghostexp ARGUMENTS` in a process with its own session, forked from one that imported torch.

    output: a file of both streams, instead of pipes.
    """
    return WarmProcess(list(arguments), os.environ, output)


@contextlib.contextmanager
def warm_popen(command: list[str], env: dict[str, str], **_: object) -> Iterator[WarmProcess]:
    """Start the command of `ghostexp.fit` as `start`, both streams in one pipe; in place of `subprocess.Popen`."""
    assert command[:3] == [sys.executable, "-m", "ghostexp"]
    reader, writer = os.pipe()
    process = WarmProcess(command[3:], env, writer)
    os.close(writer)
    with os.fdopen(reader) as process.stdout:
        yield process
        process.wait()


def start_cold(*arguments: str, output: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
    """Start it in a new interpreter, where its start or its streams are what is tested."""
    return subprocess.Popen(
        [sys.executable, "-m", "ghostexp", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


def finish(*arguments: str, timeout: float = 300) -> tuple[int, str, str]:
    """Run a command line in a process as `start`; returns exit code, standard output and standard error."""
    process = start(*arguments)
    out, err = process.communicate(timeout=timeout)
    return process.returncode or 0, out, err


def finish_cold(*arguments: str, timeout: float = 300, **environment: str) -> tuple[int, str, str]:
    """Run it in a new interpreter."""
    process = start_cold(*arguments, output=subprocess.PIPE, **environment)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def in_directory(path: Path) -> str:
    """Return the override that sets a run's directory."""
    return f"hydra.run.dir={path}"


def wait_for(path: Path, seconds: float = 120) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert path.exists()


def processes_in(folder: Path) -> list[int]:
    """List the processes with an open file in a folder, as each process of a run has its log."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # the process has just ended
            if str(link.readlink()).startswith(str(folder)):
                found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})


def processes_with(text: str) -> list[int]:
    """List the processes with a text in their environment, such as the output directory of `start`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # the process has just ended
            if text.encode() in path.read_bytes():
                found.append(int(path.parts[2]))
    return sorted(found)


def processes_in_session(leader: int) -> list[int]:
    """List the processes of a session: a run and its workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(path.name)) == leader and is_running(int(path.name)):
                found.append(int(path.name))
    return sorted(found)


def is_running(pid: int) -> bool:
    """Return whether a process is running, not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()
