"""Fresh processes for a run: one for a job of a sweep, one for each device of a run on several."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from ghostexp.runs.directory import RunDirectory

GRACE = 10.0  # seconds that the other ranks have to end by themselves after one has failed
Process = subprocess.Popen[bytes]


def launch(config: dict[str, Any], run: RunDirectory, processes: int, nodes: int = 1) -> int:
    """Run the task of a configuration in fresh processes on this machine; returns its exit code.

    Signals are handed on; when one rank fails the others are ended; none outlives this call, nor this process.
    """
    environments = _environments(processes, nodes)
    logs = [None if number == 0 else rank_log(run, environments[number]) for number in range(processes)]
    ranks = [_start(config, run, *place) for place in zip(environments, logs, strict=True)]
    try:
        with _signals_handed_to(ranks) as received:
            failed = _wait(ranks)
    finally:
        _end(ranks)
    if failed is None:
        _remove_empty(logs)
        return 0
    code = ranks[failed].returncode
    if not received:
        _tell(run, failed, code, logs[failed])
    return code if code > 0 else 128 - code


def _tell(run: RunDirectory, number: int, code: int, log: Path | None) -> None:
    """Say what a process could not say itself, or said where nobody looks."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        message = f"process {number} was ended by {name}{hint}; to continue: python -m ghostexp resume={run.path}"
    elif log is not None:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
        text = said[-1].removeprefix("error: ") if said else f"failed, see {log}"
        if run.failure.exists() and json.loads(run.failure.read_text())["error"] == text:
            return  # the first rank found the same, and has said so
        message = f"{log.stem}: {text}"
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    run.write_failure(RuntimeError(message), message)


def rank_log(run: RunDirectory, environment: dict[str, str]) -> Path:
    """Where a rank other than a machine's first writes what it has to say."""
    return run.path / f"rank-{environment['RANK']}.log"


def _environments(processes: int, nodes: int) -> list[dict[str, str]]:
    """The environment of every process; several get what torch.distributed needs to find each other."""
    # Without SLURM's variables: Lightning would take them for its own and each process for the only one.
    common = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    if processes * nodes == 1:
        return [common]
    node = int(common.get("NODE_RANK", "0")) if nodes > 1 else 0
    common |= {"NODE_RANK": str(node), "WORLD_SIZE": str(processes * nodes)}
    common.setdefault("MASTER_ADDR", "127.0.0.1")
    common.setdefault("MASTER_PORT", str(_free_port()))
    common.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // processes)))
    return [common | {"LOCAL_RANK": str(number), "RANK": str(node * processes + number)} for number in range(processes)]


def _start(config: dict[str, Any], run: RunDirectory, environment: dict[str, str], log: Path | None) -> Process:
    """One process, in a session of its own, so that Ctrl-C reaches only this one, which hands it on once.

    The configuration goes to its standard input, which then stays open until this process ends, however that may be,
    and so tells the other to end too.
    """
    with nullcontext() if log is None else log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ghostexp.runner.job", str(run.path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode() + b"\n")
    process.stdin.flush()
    return process


def _wait(ranks: list[Process]) -> int | None:
    """Wait until all have ended well, or one has failed and the grace of the others is over; returns that one.

    It is the first to fail: the others then fail for want of it.
    """
    first, deadline = None, 0.0
    while None in (codes := [process.poll() for process in ranks]):
        failed = [number for number, code in enumerate(codes) if code not in (None, 0)]
        if failed and first is None:
            first, deadline = failed[0], time.monotonic() + GRACE
        if first is not None and time.monotonic() > deadline:
            return first
        time.sleep(0.02)
    failed = [number for number, process in enumerate(ranks) if process.returncode != 0]
    return first if first is not None else next(iter(failed), None)


def _end(ranks: list[Process]) -> None:
    """Kill what is left."""
    for process in ranks:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def _signals_handed_to(ranks: list[Process]) -> Iterator[list[int]]:
    """Hand SIGINT and SIGTERM to every process, instead of dying of them; the second one kills them.

    Gives the list of those received.
    """
    received: list[int] = []

    def hand_on(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for process in ranks:
            if process.poll() is None:
                process.send_signal(signum if len(received) == 1 else signal.SIGKILL)

    before = {signum: signal.signal(signum, hand_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remove_empty(logs: list[Path | None]) -> None:
    for log in logs:
        if log is not None and log.stat().st_size == 0:
            log.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
