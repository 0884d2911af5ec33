"""Fresh processes for a run: one for a job of a sweep, one for each device of a run on several."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ghostexp.runs.directory import RunDirectory

GRACE = 10.0  # seconds that the other ranks have to end by themselves after one has failed
Process = subprocess.Popen[bytes]


def launch(run: RunDirectory, processes: int, nodes: int = 1) -> int:
    """Run the task of a directory in fresh processes on this machine; returns its exit code.

    Signals are handed on; when one rank fails the others are ended; none outlives this call, nor this process.
    """
    environments = _environments(processes, nodes)
    ranks = [_start(run, number, environment) for number, environment in enumerate(environments)]
    try:
        with _signals_handed_to(ranks):
            failed = _wait(ranks)
    finally:
        _end(ranks)
    if failed is None:
        _remove_empty_logs(run, processes)
        return 0
    if failed > 0:
        lines = rank_log(run, failed).read_text(errors="replace").strip().splitlines()
        print(f"rank {failed} failed: {lines[-1] if lines else 'it says nothing'}", file=sys.stderr)
    code = ranks[failed].returncode
    return code if code > 0 else 128 - code


def rank_log(run: RunDirectory, number: int) -> Path:
    """Where a rank other than the first writes what it has to say."""
    return run.path / f"rank-{number}.log"


def _environments(processes: int, nodes: int) -> list[dict[str, str]]:
    """The environment of every process; several get what torch.distributed needs to find each other."""
    common = dict(os.environ)
    if processes * nodes == 1:
        return [common]
    node = int(common.get("NODE_RANK", "0"))
    common |= {"NODE_RANK": str(node), "WORLD_SIZE": str(processes * nodes)}
    common.setdefault("MASTER_ADDR", "127.0.0.1")
    common.setdefault("MASTER_PORT", str(_free_port()))
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    return [common | {"LOCAL_RANK": str(number), "RANK": str(node * processes + number)} for number in range(processes)]


def _start(run: RunDirectory, number: int, environment: dict[str, str]) -> Process:
    """One process, in a session of its own, so that Ctrl-C reaches only this one, which hands it on once.

    Nothing is written to its standard input: it closes with this process, however that ends, and ends the other.
    """
    command = [sys.executable, "-m", "ghostexp.runner.job", str(run.path)]
    if number == 0:
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    with rank_log(run, number).open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )


def _wait(ranks: list[Process]) -> int | None:
    """Wait until all have ended well, or one has failed and the grace of the others is over; returns that one.

    Where several fail at once it is the first rank, which has said why on the terminal.
    """
    deadline = None
    while any(process.poll() is None for process in ranks):
        failed = [number for number, process in enumerate(ranks) if process.poll() not in (None, 0)]
        if failed and deadline is None:
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            return failed[0]
        time.sleep(0.02)
    failed = [number for number, process in enumerate(ranks) if process.returncode != 0]
    return failed[0] if failed else None


def _end(ranks: list[Process]) -> None:
    """Kill what is left."""
    for process in ranks:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def _signals_handed_to(ranks: list[Process]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM to every process, instead of dying of them; the second one kills them."""
    received = 0

    def hand_on(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        for process in ranks:
            if process.poll() is None:
                process.send_signal(signum if received == 1 else signal.SIGKILL)

    before = {signum: signal.signal(signum, hand_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _remove_empty_logs(run: RunDirectory, processes: int) -> None:
    for number in range(1, processes):
        log = rank_log(run, number)
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
