"""What runs side by side: each job on GPUs of its own, or on its share of the processor's threads."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Where a job runs."""

    threads: int  # of each of its processes
    gpus: tuple[str, ...] = ()  # for CUDA_VISIBLE_DEVICES; none: whatever the whole sweep sees


class ResourcePool:
    """At most n_jobs at once; by default as many as there are GPUs, or cores, for.

    gpus: as CUDA_VISIBLE_DEVICES names them; none: on the CPU.
    widest: processes of the job that has most. jobs: of the whole sweep, finished ones too, so that a repeated
    sweep gives each job the same number of threads, on which bits depend.
    """

    def __init__(self, gpus: list[str], n_jobs: int | None, max_processes_per_job: int, jobs: int) -> None:
        fitting = max(1, (len(gpus) or cores()) // max_processes_per_job)
        self.n_jobs = max(1, min(n_jobs or fitting, jobs))
        self.threads = threads_per_process(self.n_jobs * max_processes_per_job)
        self.load = dict.fromkeys(gpus, 0)
        self.taken = 0

    def acquire(self, processes: int, is_pinned: bool) -> Resources | None:
        """A slot for a job of so many processes, if one is free; a pinned job names its GPUs itself."""
        if self.taken >= self.n_jobs:
            return None
        self.taken += 1
        free = () if is_pinned else sorted(self.load, key=self.load.__getitem__)[:processes]
        for gpu in free:
            self.load[gpu] += 1
        return Resources(self.threads, tuple(free))

    def release(self, slot: Resources) -> None:
        """Free a slot."""
        self.taken -= 1
        for gpu in slot.gpus:
            self.load[gpu] -= 1


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_process(processes: int) -> int:
    """The share of each of so many processes, unless the environment says another."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() else max(1, cores() // processes)


def list_visible_gpus(count: int) -> list[str]:
    """The names of the GPUs that this process sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
