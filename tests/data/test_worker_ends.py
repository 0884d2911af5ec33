"""Workers that cannot send a batch, are killed or are stuck: errors of one line, and no deadlock."""

import errno
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any

import pytest
import torch

from ghostexp.data.dataloader import EvalBatchSampler, MultiprocessLoader
from ghostexp.data.sampling import DistributedBatches
from ghostexp.data.worker_process import failure_of
from tests.cli import is_running, wait_until


def loader_of(load_batch: Callable[[Any], Any], num_workers: int = 2) -> MultiprocessLoader[Any]:
    """Build a loader of four batches."""
    batch_sampler = EvalBatchSampler(torch.arange(8), DistributedBatches(2))
    return MultiprocessLoader(load_batch, batch_sampler, num_workers=num_workers, pin_memory=False)


def unpicklable(spec: object) -> object:
    return lambda: spec


def stuck(begun: Event, spec: object) -> None:
    begun.set()
    time.sleep(600)


def good(spec: object) -> torch.Tensor:
    return torch.zeros(2)


def test_unpicklable_batch_error_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"datamodule.num_workers=2: the worker processes failed \(.*pickle.*"):
        list(loader_of(unpicklable))


def test_too_few_file_descriptors_error_is_one_line() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = len(os.listdir("/proc/self/fd")) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with pytest.raises(ValueError, match=f"num_workers=4: too many open files, `ulimit -n` is {limit}"):
            list(loader_of(good, num_workers=4))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_failure_of_full_shared_memory_and_killed_worker() -> None:
    reported = f"unable to allocate shared memory(shm) for file </torch_1>: {os.strerror(errno.ENOSPC)} (28)"
    text = failure_of(RuntimeError("DataLoader worker exited unexpectedly"), 2, reported, [0, None])
    assert text is not None
    assert text.startswith("datamodule.num_workers=2: the shared memory of the workers, /dev/shm, is full")
    assert "datamodule.num_workers=0" in text
    text = failure_of(RuntimeError("DataLoader worker exited unexpectedly"), 2, None, [None, -signal.SIGKILL])
    assert text is not None
    assert text.startswith("datamodule.num_workers=2: a worker process was ended by SIGKILL (out of memory?)")
    assert failure_of(ValueError("a.png: not a readable image"), 2, None, [None, None]) is None


def test_close_kills_stuck_worker() -> None:
    begun = multiprocessing.Event()
    loader = loader_of(partial(stuck, begun), num_workers=1)
    loader._start()
    assert loader.workers is not None
    assert begun.wait(60)
    workers = loader.workers._workers
    started = time.monotonic()
    loader.close()
    assert time.monotonic() - started < 5
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL]


def test_stuck_worker_ends_when_its_trainer_is_killed() -> None:
    context = multiprocessing.get_context("fork")
    begun, pids = context.Event(), context.SimpleQueue()

    def train() -> None:
        loader = loader_of(partial(stuck, begun), num_workers=1)
        loader._start()
        assert loader.workers is not None
        pids.put(loader.workers._workers[0].pid)
        time.sleep(600)

    trainer = context.Process(target=train)
    trainer.start()
    worker = pids.get()
    assert begun.wait(60)
    trainer.kill()
    trainer.join()
    wait_until(lambda: not is_running(worker), seconds=5)


def test_garbage_collected_loader_ends_its_workers() -> None:
    loader = loader_of(good)
    next(iter(loader))
    assert loader.workers is not None
    workers = loader.workers._workers
    del loader
    assert [worker.exitcode for worker in workers] == [0, 0]
