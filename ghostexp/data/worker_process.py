"""Start, end and diagnose the worker processes of a DataLoader."""

import errno
import os
import resource
import signal
import sys
import threading
import time
from contextlib import ExitStack
from multiprocessing import active_children, connection, parent_process
from multiprocessing.queues import Queue, SimpleQueue
from types import TracebackType
from typing import Any, NoReturn

from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

DESCRIPTORS = 4  # file descriptors in the trainer per worker
CLOSING = 2.0  # seconds for workers to finish their current batch, before they are killed
# Signals that stop a run or make it save: the trainer, which receives them too, saves first and then ends its workers.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def prepare_worker(failures: "SimpleQueue[str]", worker: int) -> None:
    """Make a worker ignore signals to the process group, and exit with its trainer or if it cannot send a batch."""
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)

    def exit_with(error: BaseException | None, *_: object) -> NoReturn:
        # By default the queue prints the error and drops the batch, for which the trainer then waits forever.
        failures.put(" ".join(str(error).split())[:500])
        os._exit(0)  # any other code would make torch raise in the middle of a training step

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
        exit_with(error)  # of the thread that sends file descriptors, which would retry forever

    Queue._on_queue_feeder_error = staticmethod(exit_with)  # pyright: ignore[reportAttributeAccessIssue]
    sys.excepthook = hook
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    """End this worker when the process that started it has died, also where a fork server is the parent."""
    trainer = parent_process()
    assert trainer is not None
    connection.wait([trainer.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def start_workers(loader: DataLoader[Any]) -> _MultiProcessingDataLoaderIter:
    """Start the workers of a loader and its first epoch.

    Raises OSError: there are too few file descriptors, no memory, or no further processes.
    """
    with ExitStack() as probe:  # torch would fail midway and leave processes behind
        for _ in range(DESCRIPTORS * (loader.num_workers + 2)):
            probe.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    before = set(active_children())
    try:
        iterator = iter(loader)
    except OSError:
        for worker in set(active_children()) - before:
            worker.kill()
        raise
    assert isinstance(iterator, _MultiProcessingDataLoaderIter)
    # A dead worker is detected by its missing batch; torch would raise from a signal handler, anywhere.
    _remove_worker_pids(id(iterator))
    iterator._worker_pids_set = False
    return iterator


def end_workers(iterator: _MultiProcessingDataLoaderIter) -> None:
    """End the workers of a loader, and wait for them; one that is stuck is killed."""
    if iterator._shutdown:
        return
    iterator._workers_done_event.set()
    for queue in iterator._index_queues:
        queue.put(None)
    deadline = time.monotonic() + CLOSING
    for worker in iterator._workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    for worker in iterator._workers:
        worker.kill()
    iterator._shutdown_workers()  # torch's own, which closes the queues, and now has no worker to wait for


def failure_of(error: Exception, num_workers: int, reported: str | None, exit_codes: list[int | None]) -> str | None:
    """Describe in one line why workers failed; None for other errors.

    reported: the message of a worker that exited. exit_codes: of the workers, None where one is alive.
    """
    key, reason = f"datamodule.num_workers={num_workers}", reported or str(error)
    if os.strerror(errno.EMFILE) in reason:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{key}: too many open files, `ulimit -n` is {limit}; raise it, or set datamodule.num_workers=0"
    killed = [signal.Signals(-code).name for code in exit_codes if code is not None and code < 0]
    if os.strerror(errno.ENOSPC) in reason or "SIGBUS" in killed:
        larger = "make it larger (docker run --shm-size=8g), or set datamodule.num_workers=0"
        return f"{key}: the shared memory of the workers, /dev/shm, is full; {larger}"
    if killed and isinstance(error, RuntimeError):
        hint = " (out of memory?)" if killed[0] == "SIGKILL" else ""
        return f"{key}: a worker process was ended by {killed[0]}{hint}; fewer workers need less memory"
    if reported is not None or (isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM)):
        return f"{key}: the worker processes failed ({reason}); set datamodule.num_workers=0 to run without workers"
    return None
