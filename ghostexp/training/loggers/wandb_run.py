"""Start a Weights & Biases run: named by the run directory and logger.wandb, online or else offline."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ghostexp.runs.csv_table import number, read_rows
from ghostexp.runs.wandb_mode import Mode, Recording, announce, resolve_recording

STEP = "trainer/global_step"
# Variables that a shell may have kept of another run; the run's directory and logger.wandb decide instead.
IGNORED_VARIABLES = (
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
TIMEOUTS = {"init_timeout": 30.0, "finish_timeout": 600.0}  # seconds; W&B's own are 90 and infinite
SUPERSEDED = "superseded"  # folder for recordings that a later one contains


def start_run(arguments: Mapping[str, Any], offline: bool | None) -> Any:
    """Start a run with the arguments of `wandb.init`; offline if the server refuses it.

    Raises ValueError: `logger.wandb.offline=false`, and there is no key, no network, or the server refuses.
    """
    recording = resolve_recording(offline)
    with _only_own_names():
        if recording.mode == "online":
            try:
                return _init(arguments, "online")
            except Exception as error:  # of half a dozen types, by the server's response
                problem = f"the server refused the run ({_first_line(error)})"
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
    """Ignore the names of another run that a shell may have left in the environment."""
    left = {name: os.environ.pop(name) for name in IGNORED_VARIABLES if name in os.environ}
    if left:
        announce(f"{', '.join(left)}: not used; the run's directory and logger.wandb decide its id, names and project")
    mode = {"WANDB_MODE": os.environ.pop("WANDB_MODE")} if "WANDB_MODE" in os.environ else {}  # already decided
    try:
        yield
    finally:
        os.environ.update(left | mode)


def _remove_failed(folder: Path, run_id: str) -> None:
    """Free the id of a run that could not start, and remove its empty folder."""
    import wandb

    wandb.teardown()
    for path in folder.glob(f"wandb/run-*-{run_id}"):
        if not any(path.glob("files/*")):
            shutil.rmtree(path, ignore_errors=True)


def logged_history(folder: Path, resumed_step: int | None) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield step and values of every row in a run's tables up to the checkpoint that it resumes from."""
    rows: dict[int, dict[str, float]] = {}
    for name in ("metrics.csv", "speed.csv") if resumed_step is not None else ():
        for row in read_rows(folder / name):
            step = int(row.pop("step"))
            if step <= (resumed_step or 0):
                values = {key: number(value) for key, value in row.items() if value != ""}
                rows.setdefault(step, {}).update(values)
    yield from sorted(rows.items())


def move_superseded(run: Any) -> None:
    """Move earlier offline recordings, whose history this one contains, out of the way of `wandb sync`."""
    current = Path(run.settings.sync_dir)
    for path in current.parent.glob(f"offline-run-*-{run.id}"):
        if path != current:
            (current.parent / SUPERSEDED).mkdir(exist_ok=True)
            path.rename(current.parent / SUPERSEDED / path.name)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
