"""Assign resources to parallel jobs: GPUs, or a fraction of the CPU threads."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Threads and GPUs of a job."""

    threads: int  # of each of its processes
    gpus: tuple[str, ...] = ()  # for CUDA_VISIBLE_DEVICES; empty: all that the sweep sees


class ResourcePool:
    """Resources for at most n_jobs parallel jobs; by default as many as GPUs, or cores, allow.

    gpus: names as in CUDA_VISIBLE_DEVICES; empty: CPU.
    max_processes_per_job: of the largest job. jobs: number of all jobs of the sweep, finished ones too, so that a
    repeated sweep gives each job the same number of threads, on which exact results depend.
    """

    def __init__(self, gpus: list[str], n_jobs: int | None, max_processes_per_job: int, jobs: int) -> None:
        fitting = max(1, (len(gpus) or cores()) // max_processes_per_job)
        self.n_jobs = max(1, min(n_jobs or fitting, jobs))
        self.threads = threads_per_process(self.n_jobs * max_processes_per_job)
        self.load = dict.fromkeys(gpus, 0)
        self.acquired = 0

    def acquire(self, processes: int, is_pinned: bool) -> Resources | None:
        """Return resources for a job, or None if none are free; a pinned job selects its GPUs itself."""
        if self.acquired >= self.n_jobs:
            return None
        self.acquired += 1
        free = () if is_pinned else sorted(self.load, key=self.load.__getitem__)[:processes]
        for gpu in free:
            self.load[gpu] += 1
        return Resources(self.threads, tuple(free))

    def release(self, resources: Resources) -> None:
        """Return the resources of a finished job to the pool."""
        self.acquired -= 1
        for gpu in resources.gpus:
            self.load[gpu] -= 1


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_process(processes: int) -> int:
    """Return OMP_NUM_THREADS, or the cores divided by the number of processes."""
    variable = os.environ.get("OMP_NUM_THREADS", "")
    return int(variable) if variable.isdigit() else max(1, cores() // processes)


def list_visible_gpus(count: int) -> list[str]:
    """List the names of the GPUs that are visible to this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
