"""A run of Weights & Biases, begun: under this project's names alone, online or else offline, with all its history."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.wandb_mode import Mode, Recording, announce, resolve_recording

STEP = "trainer/global_step"
# What a shell may have kept of another run. The run's directory and logger.wandb decide these.
NOT_USED = (
    "WANDB_RUN_ID",
    "WANDB_RUN_NAME",
    "WANDB_NAME",
    "WANDB_RUN_GROUP",
    "WANDB_JOB_TYPE",
    "WANDB_TAGS",
    "WANDB_PROJECT",
    "WANDB_RESUME",
    "WANDB_RESUME_FROM",
    "WANDB_FORK_FROM",
    "WANDB_SWEEP_ID",
    "WANDB_LAUNCH",
)
TIMEOUTS = {"init_timeout": 30.0, "finish_timeout": 600.0}  # seconds; W&B's own are 90 and for ever
EARLIER = "superseded"  # folder beside the recording that holds all of theirs


def start_run(arguments: Mapping[str, Any], offline: bool | None) -> Any:
    """Begin the run that `wandb.init` is told of; where the server refuses it, offline.

    Raises ValueError: `logger.wandb.offline=false`, and there is no key, no network, or the server refuses.
    """
    recording = resolve_recording(offline)
    with _only_own_names():
        if recording.mode == "online":
            try:
                return _init(arguments, "online")
            except Exception as error:  # of half a dozen kinds, by the server's answer
                problem = f"the server did not take the run ({_first_line(error)})"
                if offline is False:
                    raise ValueError(f"logger.wandb.offline=false: {problem}; null or true records offline") from error
                recording = Recording("offline", problem)
                _remove_failed(Path(arguments["dir"]), str(arguments["id"]))
        if recording.problem:
            announce(f"W&B: {recording.problem}; this run is recorded offline")
        return _init(arguments, recording.mode)


def _init(arguments: Mapping[str, Any], mode: Mode) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, console="off")
    for name, seconds in TIMEOUTS.items():
        if f"WANDB_{name.upper()}" not in os.environ:
            setattr(settings, name, seconds)
    run = wandb.init(**arguments, mode=mode, settings=settings)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    return run


@contextmanager
def _only_own_names() -> Iterator[None]:
    """Keep the names of another run, which a shell may have left, from this one."""
    left = {name: os.environ.pop(name) for name in NOT_USED if name in os.environ}
    if left:
        announce(f"{', '.join(left)}: not used; the run's directory and logger.wandb decide its id, names and project")
    mode = {"WANDB_MODE": os.environ.pop("WANDB_MODE")} if "WANDB_MODE" in os.environ else {}  # which is settled
    try:
        yield
    finally:
        os.environ.update(left | mode)


def _remove_failed(folder: Path, run_id: str) -> None:
    """Free the id of a run that could not begin, and remove what it left: there is nothing in it."""
    import wandb

    wandb.teardown()
    for path in folder.glob(f"wandb/run-*-{run_id}"):
        if not any(path.glob("files/*")):
            shutil.rmtree(path, ignore_errors=True)


def logged_history(folder: Path, resumed_step: int | None) -> Iterator[tuple[int, dict[str, float]]]:
    """Give step and values of every row that a run's tables hold up to the checkpoint from which it goes on."""
    rows: dict[int, dict[str, float]] = {}
    for name in ("metrics.csv", "speed.csv") if resumed_step is not None else ():
        for row in read_rows(folder / name):
            step = int(row.pop("step"))
            if step <= (resumed_step or 0):
                values = {key: _number(value) for key, value in row.items() if value != ""}
                rows.setdefault(step, {}).update(values)
    yield from sorted(rows.items())


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def set_aside(run: Any) -> None:
    """Move earlier offline recordings, whose history this one repeats, out of the way of `wandb sync`."""
    here = Path(run.settings.sync_dir)
    for path in here.parent.glob(f"offline-run-*-{run.id}"):
        if path != here:
            (here.parent / EARLIER).mkdir(exist_ok=True)
            path.rename(here.parent / EARLIER / path.name)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
