"""Start the processes of a run, one per rank: wait for them, forward signals, and kill what is left."""

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

GRACE = 4.0  # seconds for the other ranks to end after one has failed
GRACE_STOPPED = 30.0  # after a stop signal: rank 0 may have uploads to finish


class RunProcesses:
    """Processes of a run, each in its own session, so that they receive signals from this process only.

    quiet: rank 0 writes its errors to run.log instead of the terminal.
    They end when this process ends, however it ends.
    """

    def __init__(
        self,
        config: dict[str, Any],
        run: RunDirectory,
        processes: int,
        resources: Resources | None = None,
        quiet: bool = False,
    ) -> None:
        nodes = config["trainer"]["num_nodes"]
        self.run = run
        self.resources = resources or Resources(threads_per_process(processes))
        rank_environments = environments(processes, nodes, self.resources)
        first = run.log if quiet else None
        self.logs = [first if number == 0 else _rank_log(run, rank_environments[number]) for number in range(processes)]
        self.first_failed: int | None = None
        self.deadline = 0.0
        same = (config, str(run.path), os.getcwd(), self.resources.threads, stop_signals())
        self.ranks = [
            CONTEXT.Process(target=work, args=(*same, environment, log))
            for environment, log in zip(rank_environments, self.logs, strict=True)
        ]
        for rank in self.ranks:
            rank.start()

    @property
    def sentinels(self) -> list[int]:
        """Handles that become ready when a process ends."""
        return [rank.sentinel for rank in self.ranks if rank.exitcode is None]

    def poll(self) -> int | None:
        """Return the exit code once all have ended, or one has failed and the grace period is over; else None.

        The exit code is that of the first to fail: the others then fail because of it.
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
        """Send a signal to all processes."""
        for rank in self.ranks:
            if rank.exitcode is None and rank.pid:
                os.kill(rank.pid, signum)

    def kill(self) -> None:
        """Kill all processes that still run."""
        for rank in self.ranks:
            if rank.exitcode is None:
                rank.kill()
            rank.join()

    def cause(self) -> str | None:
        """Error message for a rank that was killed or failed outside rank 0; None if failure.json has it already."""
        assert self.first_failed is not None
        code, log = self.ranks[self.first_failed].exitcode or 0, self.logs[self.first_failed]
        if code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            how = f"process {self.first_failed} was killed by {signal.Signals(-code).name}{hint}"
            return f"{how}; to continue: {self.run.resume_command}"
        if self.first_failed == 0 or log is None:
            return None
        errors = [
            line
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("error: ")
        ]
        text = errors[-1].removeprefix("error: ") if errors else f"failed, see {log}"
        if self.run.failure.exists() and self.run.read_failure() == text:
            return None  # rank 0 found and reported the same
        return f"{log.stem}: {text}"


def launch(config: dict[str, Any], run: RunDirectory, processes: int) -> int:
    """Run the task of a configuration in new processes on this machine and return the exit code.

    Signals are forwarded; the second one kills.
    """
    warm_up([f"ghostexp.tasks.{config['task']['name']}", *targets(config)])
    ranks = RunProcesses(config, run, processes)
    try:
        with handle_signals(lambda signum, is_first: ranks.signal(signum if is_first else signal.SIGKILL)) as received:
            while (code := ranks.poll()) is None:
                connection.wait(ranks.sentinels, timeout=1)
    finally:
        ranks.kill()
    if code and not received and (cause := ranks.cause()):
        print(f"error: {cause}", file=sys.stderr)
        run.write_failure(RuntimeError(cause), cause)
    return code


@contextmanager
def handle_signals(act: Callable[[int, bool], None]) -> Iterator[list[int]]:
    """Call `act(signum, is_first)` at each stop signal; yields the list of received signals."""
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
    """Return the log file of a rank other than the first of a machine."""
    return run.path / f"rank-{environment['RANK']}.log"


def environments(processes: int, nodes: int, resources: Resources) -> list[dict[str, str]]:
    """Return the environment of each process, with the variables of torch.distributed if there are several."""
    # Without SLURM's variables, by which Lightning would treat each process as the only one.
    common = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    if resources.gpus:
        common["CUDA_VISIBLE_DEVICES"] = ",".join(resources.gpus)
    if processes * nodes == 1:
        return [common]
    node = int(common.get("NODE_RANK", "0")) if nodes > 1 else 0
    common |= {"NODE_RANK": str(node), "WORLD_SIZE": str(processes * nodes)}
    if nodes == 1:  # not the port of the environment, which every job of a sweep would use
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
