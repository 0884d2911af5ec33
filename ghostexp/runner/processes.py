"""Start the processes of a run, one per rank: wait for them, forward signals, and kill what is left."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any

from ghostexp.runner.fork_server import CONTEXT, targets, warm_up, work
from ghostexp.runner.ranks import without_ranks
from ghostexp.runner.resources import Resources, threads_per_process
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.signals import stop_signals

GRACE = 4.0  # seconds for the other ranks to end after one has failed
GRACE_STOPPED = 30.0  # after a stop signal: rank 0 may have uploads to finish


class RunProcesses:
    """Processes of a run, each in its own session, so that they receive signals from this process only.

    quiet: rank 0 writes what it prints to stderr to run.log instead of the terminal.
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
        self.run = run
        self.resources = resources or Resources(threads_per_process(processes))
        rank_environments = environments(processes, config["trainer"]["num_nodes"], self.resources)
        first = run.log if quiet else None
        self.numbers = [int(environment.get("RANK", "0")) for environment in rank_environments]  # on all machines
        self.logs = [run.rank_log(number) if number else first for number in self.numbers]
        self.first_failed: int | None = None
        self.deadline = 0.0
        self.errors: dict[int, tuple[float, Exception]] = {}  # of each rank that failed, with their time
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(processes)]
        self.receivers = [receiver for receiver, _ in pipes]
        same = (config, str(run.path), os.getcwd(), self.resources.threads, stop_signals())
        self.ranks = [
            CONTEXT.Process(target=work, args=(*same, environment, log, sender))
            for environment, log, (_, sender) in zip(rank_environments, self.logs, pipes, strict=True)
        ]
        for rank, (_, sender) in zip(self.ranks, pipes, strict=True):
            rank.start()
            sender.close()

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
            self._receive_errors()
            self.first_failed = min({*failed, *self.errors}, key=lambda number: self.errors.get(number, (0.0,))[0])
            is_stopped = (codes[failed[0]] or 0) > 128
            self.deadline = time.monotonic() + (GRACE_STOPPED if is_stopped else GRACE)
        if None in codes and not (failed and time.monotonic() > self.deadline):
            return None
        self.kill()
        _remove_empty([self.run.rank_log(number) for number in self.numbers if number])
        code = 0 if self.first_failed is None else self.ranks[self.first_failed].exitcode or 1
        return 1 if self.first_failed in self.errors else code if code >= 0 else 128 - code

    def _receive_errors(self) -> None:
        """Read what ranks have reported; one that was killed reports nothing."""
        for number, receiver in enumerate(self.receivers):
            with suppress(EOFError, OSError):
                if number not in self.errors and receiver.poll():
                    self.errors[number] = receiver.recv()

    def signal(self, signum: int) -> None:
        """Send a signal to all processes."""
        for rank in self.ranks:
            if rank.exitcode is None and rank.pid:
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(rank.pid, signum)

    def kill(self) -> None:
        """Kill all processes that still run."""
        for rank in self.ranks:
            if rank.exitcode is None:
                rank.kill()
            rank.join()

    def explain(self) -> str | None:
        """Return why the first rank failed, which failure.json then has too; None if it gave no reason."""
        assert self.first_failed is not None
        self._receive_errors()
        number, code = self.numbers[self.first_failed], self.ranks[self.first_failed].exitcode or 0
        if self.first_failed in self.errors:
            error = self.errors[self.first_failed][1]
            if any(self.numbers[other] == 0 and str(found) == str(error) for other, (_, found) in self.errors.items()):
                return str(error)  # of rank 0, which has written it, or of all ranks
            cause = f"rank-{number}: {error}"
            self.run.write_failure(type(error)(cause), cause)
            return cause
        if code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            how = f"process {number} was killed by {signal.Signals(-code).name}{hint}"
            cause = f"{how}; to continue: {self.run.resume_command}"
        else:
            return None
        self.run.write_failure(RuntimeError(cause), cause)
        return cause


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
    if code and (ranks.errors or not received) and (cause := ranks.explain()):
        print(f"error: {cause}", file=sys.stderr)
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


def environments(processes: int, nodes: int, resources: Resources) -> list[dict[str, str]]:
    """Return the environment of each process, with the variables of torch.distributed if there are several."""
    # Without SLURM's variables, by which Lightning would treat each process as the only one.
    common = {key: value for key, value in without_ranks(os.environ, nodes > 1).items() if not key.startswith("SLURM_")}
    if resources.gpus:
        common["CUDA_VISIBLE_DEVICES"] = ",".join(resources.gpus)
    if processes * nodes == 1:
        return [common]
    node = int(common.get("NODE_RANK", "0")) if nodes > 1 else 0
    common |= {"NODE_RANK": str(node), "WORLD_SIZE": str(processes * nodes)}
    if nodes == 1:  # not the port of the environment, which every job of a sweep would use
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [common | {"LOCAL_RANK": str(number), "RANK": str(node * processes + number)} for number in range(processes)]


def _remove_empty(logs: list[Path]) -> None:
    for log in logs:
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
