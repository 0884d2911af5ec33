"""Define the jobs of a sweep: each has one configuration and one run directory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ghostexp.runs.directory import RunDirectory, cannot_write
from ghostexp.runs.fingerprint import differences
from ghostexp.runs.naming import record_identity
from ghostexp.runs.text_files import write_atomically

LAST = "overrides.yaml"  # file of .hydra/ that is written last


class JobStatus(Enum):
    """Progress of a job, by the files in its directory."""

    PENDING = "pending"
    RESUMABLE = "resumable"
    FINISHED = "finished"


@dataclass
class SweepJob:
    """One job of a sweep."""

    run: RunDirectory
    distinguishing_overrides: tuple[str, ...]  # those that differ between jobs: model.ratio=2, seed=0
    config: dict[str, Any]
    record: Callable[[], Mapping[str, str]] = dict  # files of .hydra/, written when the job starts
    processes: int = 1  # on each machine
    state: JobStatus = JobStatus.PENDING
    params: int | None = None
    macs: int | None = None
    monitor: str = "acc1"  # metric of the LightningModule that compares runs
    falling: tuple[str, ...] = ()  # metrics of which less is better
    pause_after: int | None = None  # epochs; None: it is trained to the end
    tags: tuple[str, ...] = ()  # more of W&B

    @property
    def command_config(self) -> dict[str, Any]:
        """Return the configuration of the run's process, with what is of this command and not of the run."""
        return self.config | {"pause_after": self.pause_after, "job_tags": self.tags}

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def nodes(self) -> int:
        return self.config["trainer"]["num_nodes"]


def load_status(job: SweepJob) -> None:
    """Set a job's status, and its costs if it is finished; a resumable one gets `resume`.

    Raises ValueError: its directory contains a run of another configuration.
    """
    run, config = job.run, job.config
    if not run.config.is_file():
        return
    before = run.read_config("hydra.sweep.dir")
    changed = differences(before, config)
    if changed or before["task"] != config["task"]:
        what = "; ".join(changed[:3]) or f"task: {before['task']} -> {config['task']}"
        raise ValueError(f"{run.path}: contains a run of another configuration ({what}); name=... starts a new sweep")
    result = run.read_result()
    if result is not None:
        job.state, job.processes = JobStatus.FINISHED, result.get("devices", 1)
        job.params, job.macs = result.get("params"), result.get("macs")
    elif config["task"]["name"] == "fit":
        job.state, config["resume"] = JobStatus.RESUMABLE, str(run.path)


def error_lines(errors: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each different error, with the first job that has it; errors: by name of the job."""
    names: dict[str, list[str]] = {}
    for name, error in errors:
        names.setdefault(error, []).append(name)
    others = {error: f" and {len(wrong) - 1} others" if len(wrong) > 1 else "" for error, wrong in names.items()}
    return [f"error: {wrong[0]}{others[error]}: {error}" for error, wrong in names.items()]


def prepare_directory(job: SweepJob) -> None:
    """Create a job's run directory with its overrides, and then its configuration, by which it counts as started.

    Raises ValueError: the directory cannot be written.
    """
    folder = job.run.path / ".hydra"
    if not (job.run.config.is_file() and (folder / LAST).is_file()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in sorted(job.record().items(), key=lambda pair: pair[0] == LAST):
                write_atomically(folder / name, text)
        except OSError as error:
            raise cannot_write(job.run.path, error) from error
    job.run.write_config(job.config)
    record_identity(job.run, job.config)
    job.run.failure.unlink(missing_ok=True)
