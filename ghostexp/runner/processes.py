"""The processes of a run, one for each of its ranks: start them, wait, hand signals on, leave none behind."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any

from ghostexp.runner.fork_server import CONTEXT, targets, warm_up, work
from ghostexp.runner.resources import Resources, threads_per_process
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.signals import stop_signals

GRACE = 4.0  # seconds that the other ranks have to end by themselves after one has failed
GRACE_STOPPED = 30.0  # and after one has saved and stopped as it was told to: the first may have uploads to finish


class RunProcesses:
    """A run in processes of its own, each in a session of its own, so that signals reach them through this one only.

    quiet: the first rank too writes its errors to a log instead of the terminal.
    None of them outlives this process, however it ends.
    """

    def __init__(
        self,
        config: dict[str, Any],
        run: RunDirectory,
        processes: int,
        slot: Resources | None = None,
        quiet: bool = False,
    ) -> None:
        nodes = config["trainer"]["num_nodes"]
        self.run = run
        self.slot = slot or Resources(threads_per_process(processes))
        places = environments(processes, nodes, self.slot)
        first = run.log if quiet else None
        self.logs = [first if number == 0 else _rank_log(run, places[number]) for number in range(processes)]
        self.first_failed: int | None = None
        self.deadline = 0.0
        same = (config, str(run.path), os.getcwd(), self.slot.threads, stop_signals())
        self.ranks = [
            CONTEXT.Process(target=work, args=(*same, environment, log))
            for environment, log in zip(places, self.logs, strict=True)
        ]
        for rank in self.ranks:
            rank.start()

    @property
    def sentinels(self) -> list[int]:
        """What becomes ready when a process ends."""
        return [rank.sentinel for rank in self.ranks if rank.exitcode is None]

    def poll(self) -> int | None:
        """The exit code of the run, once all have ended well, or one has failed and the grace of the others is over.

        The first to fail counts: the others then fail for want of it.
        """
        codes = [rank.exitcode for rank in self.ranks]
        failed = [number for number, code in enumerate(codes) if code not in (None, 0)]
        if failed and self.first_failed is None:
            self.first_failed = failed[0]
            is_stopped = (codes[failed[0]] or 0) > 128
            self.deadline = time.monotonic() + (GRACE_STOPPED if is_stopped else GRACE)
        if None in codes and not (failed and time.monotonic() > self.deadline):
            return None
        self.kill()
        _remove_empty(self.logs[1:])
        code = 0 if self.first_failed is None else codes[self.first_failed] or 0
        return code if code >= 0 else 128 - code

    def signal(self, signum: int) -> None:
        """Hand a signal on."""
        for rank in self.ranks:
            if rank.exitcode is None and rank.pid:
                os.kill(rank.pid, signum)

    def kill(self) -> None:
        """Kill what is left."""
        for rank in self.ranks:
            if rank.exitcode is None:
                rank.kill()
            rank.join()

    def cause(self) -> str | None:
        """What a process could not say itself, or said where nobody looks; None where the run has said it."""
        assert self.first_failed is not None
        code, log = self.ranks[self.first_failed].exitcode or 0, self.logs[self.first_failed]
        if code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            how = f"process {self.first_failed} was ended by {signal.Signals(-code).name}{hint}"
            return f"{how}; to continue: {self.run.resume_command}"
        if self.first_failed == 0 or log is None:
            return None
        said = [
            line
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("error: ")
        ]
        text = said[-1].removeprefix("error: ") if said else f"failed, see {log}"
        if self.run.failure.exists() and self.run.read_failure() == text:
            return None  # the first rank found the same, and has said so
        return f"{log.stem}: {text}"


def launch(config: dict[str, Any], run: RunDirectory, processes: int) -> int:
    """Run the task of a configuration in processes of its own on this machine; returns its exit code.

    Signals are handed on; the second one kills.
    """
    warm_up([f"ghostexp.tasks.{config['task']['name']}", *targets(config)])
    job = RunProcesses(config, run, processes)
    try:
        with handle_signals(lambda signum, is_first: job.signal(signum if is_first else signal.SIGKILL)) as received:
            while (code := job.poll()) is None:
                connection.wait(job.sentinels, timeout=1)
    finally:
        job.kill()
    if code and not received and (cause := job.cause()):
        print(f"error: {cause}", file=sys.stderr)
        run.write_failure(RuntimeError(cause), cause)
    return code


@contextmanager
def handle_signals(act: Callable[[int, bool], None]) -> Iterator[list[int]]:
    """Call `act(signum, is_first)` at a stop signal, instead of dying of it; gives those received."""
    received: list[int] = []

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        act(signum, len(received) == 1)

    before = {signum: signal.signal(signum, receive) for signum in stop_signals()}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _rank_log(run: RunDirectory, environment: dict[str, str]) -> Path:
    """Where a rank other than a machine's first writes what it has to say."""
    return run.path / f"rank-{environment['RANK']}.log"


def environments(processes: int, nodes: int, slot: Resources) -> list[dict[str, str]]:
    """The environment of every process; several get what torch.distributed needs to find each other."""
    # Without SLURM's variables: Lightning would take them for its own and each process for the only one.
    common = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    if slot.gpus:
        common["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    if processes * nodes == 1:
        return [common]
    node = int(common.get("NODE_RANK", "0")) if nodes > 1 else 0
    common |= {"NODE_RANK": str(node), "WORLD_SIZE": str(processes * nodes)}
    if nodes == 1:  # never the port of the environment, which every job of a sweep would take
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [common | {"LOCAL_RANK": str(number), "RANK": str(node * processes + number)} for number in range(processes)]


def _remove_empty(logs: list[Path | None]) -> None:
    for log in logs:
        if log is not None and log.exists() and log.stat().st_size == 0:
            log.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
