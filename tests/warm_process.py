"""Run `python -m ghostexp` in a process forked from a server that has imported torch: the same, but for the import.

The child has its own session, environment, working directory, streams and default signal handlers.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import util
from pathlib import Path
from typing import IO, NoReturn

PRELOADED = ("ghostexp.__main__", "ghostexp.tasks.fit", "ghostexp.data.datasets.fake", "ghostexp.models.resnet_cifar")
PRELOADED += ("ghostexp.data.datasets.digits", "ghostexp.models.ghostify")
PRELOADED += ("ghostexp.sweeps.hydra_callback", "torchvision.models", "torchmetrics", "torch._dynamo")
ENVIRONMENT = dict(os.environ)  # without that of any test
JOB_SERVER = "from multiprocessing.forkserver import main"  # begins the code of multiprocessing's fork server
ROOM = 4000  # bytes in which a child shows its own environment in /proc, where tests look for processes


class WarmProcess:
    """Process of a command line, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], output: int | None = None) -> None:
        """Start it; output: a file of both streams, which are pipes without it."""
        self.args = arguments
        self.returncode: int | None = None
        ends = [os.pipe(), os.pipe()]
        streams = [writer if output is None else output for _, writer in ends]
        self._connection = _ask(["command", arguments, dict(environment), os.getcwd()], streams)
        for _, writer in ends:
            os.close(writer)
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())
        self.stdout, self.stderr = (os.fdopen(reader) for reader, _ in ends)
        self._texts = ["", ""]
        self._readers: list[threading.Thread] = []

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both streams to their ends and wait; raises subprocess.TimeoutExpired."""

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                self._texts[number] = stream.read()

        if not self._readers:
            pairs = enumerate((self.stdout, self.stderr))
            self._readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in pairs]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        return self._texts[0], self._texts[1]

    def send_signal(self, signum: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill it, but not its group."""
        self.send_signal(signal.SIGKILL)


def fork_jobs_from_server() -> None:
    """Let the server of the jobs of sweeps that run in this process be forked from the warm one."""
    util.spawnv_passfds = functools.partial(_start_job_server, util.spawnv_passfds)


def _start_job_server(spawn: Callable[..., int], path: str, arguments: list[str], descriptors: list[int]) -> int:
    if not arguments[-1].startswith(JOB_SERVER):
        return spawn(path, arguments, descriptors)
    code = arguments[-1].replace(f"main({descriptors[0]}, {descriptors[1]},", "main(*descriptors,")
    _ask(["code", code, dict(os.environ), os.getcwd()], descriptors).close()
    # multiprocessing watches a child of its own, which ends with the pipe that ends the server
    return subprocess.Popen(["cat"], stdin=descriptors[1], stdout=subprocess.DEVNULL).pid


def _ask(request: list[object], descriptors: list[int]) -> socket.socket:
    """Send the server a request with two files, and return the connection."""
    connection, text = socket.socket(socket.AF_UNIX), json.dumps(request).encode()
    connection.connect(_server())
    socket.send_fds(connection, [len(text).to_bytes(8, "big")], descriptors)
    connection.sendall(text)
    return connection


@functools.cache
def _server() -> str:
    """Start the server, unless another worker of pytest-xdist has; returns its address."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    address = f"\0ghostexp tests of process {owner}"  # abstract: no file
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(address)
    except OSError:  # in use
        return address
    listener.listen()
    subprocess.Popen(
        [sys.executable, "-c", f"from tests.warm_process import serve; serve({listener.fileno()}, {owner})"],
        env=ENVIRONMENT | {"OMP_NUM_THREADS": "1", "WARM_ROOM": "-" * ROOM},
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(listener.fileno(),),
        start_new_session=True,
    )
    listener.close()
    return address


def serve(listening: int, owner: int) -> NoReturn:
    """Import, then fork a child for each request until the process that owns the tests has ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the threads"
    listener, ending = socket.socket(fileno=listening), os.pidfd_open(owner)
    waiting: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, ending], [], [], 0.02 if waiting else None)
        if ending in ready:
            os._exit(0)
        if listener in ready:
            connection, _ = listener.accept()
            pid = _fork(connection, [listening, ending, *(other.fileno() for other in waiting.values())])
            waiting[pid] = connection
            _answer(connection, pid)
        while waiting and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with waiting.pop(ended[0]) as connection:
                _answer(connection, os.waitstatus_to_exitcode(ended[1]))


def _answer(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for a server of jobs
        connection.sendall(f"{number}\n".encode())


def _fork(connection: socket.socket, ours: list[int]) -> int:
    """Read a request and fork its process; returns its pid."""
    length, streams, _, _ = socket.recv_fds(connection, 8, 2)
    with connection.makefile("rb") as request:
        kind, what, environment, cwd = json.loads(request.read(int.from_bytes(length, "big")))
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        return pid
    with _exiting():
        os.setsid()
        for number in (*ours, connection.fileno()):
            os.close(number)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        if kind == "code":
            exec(what, {"descriptors": streams})
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)
        _run(what, environment)
    raise AssertionError


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    """Run the command line in this process, as `python -m ghostexp` does."""
    _show_environment(environment)
    util.spawnv_passfds = functools.partial(_fork_server, util.spawnv_passfds)
    sys.argv = ["ghostexp", *arguments]
    runpy.run_module("ghostexp", run_name="__main__", alter_sys=True)


def _show_environment(environment: dict[str, str]) -> None:
    """Write the environment to where /proc/PID/environ is read from; forked processes inherit it."""
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47])
    room = start + Path("/proc/self/environ").read_bytes().index(b"WARM_ROOM=")
    text = "\0".join(f"{key}={value}" for key, value in environment.items() if key.startswith("GHOSTEXP_"))
    ctypes.memmove(room, text.encode()[:ROOM].ljust(ROOM, b"\0"), ROOM)


def _fork_server(spawn: Callable[..., int], path: str, arguments: list[str], descriptors: list[int]) -> int:
    """Fork the server of a sweep's jobs, where multiprocessing would start a new interpreter."""
    code = arguments[-1]
    if not code.startswith(JOB_SERVER) or threading.active_count() > 1:
        return spawn(path, arguments, descriptors)
    pid = os.fork()
    if pid:
        return pid
    with _exiting():
        for number in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *descriptors}:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(number)
        exec(code, {})
    raise AssertionError


@contextlib.contextmanager
def _exiting() -> Iterator[None]:
    """End this process behind the block."""
    try:
        yield
    except SystemExit:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)
