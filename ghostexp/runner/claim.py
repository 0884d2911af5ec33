"""Whether a run may have its directory: nothing finished is overwritten, and no two configurations are mixed."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ghostexp.runner.ranks import is_first
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.fingerprint import differences


def claim(run: RunDirectory, config: dict[str, Any]) -> bool:
    """Write the run's configuration into its directory; False where there is nothing left to do.

    Raises ValueError: the directory holds another run, or cannot be written.
    """
    is_fit = config["task"]["name"] == "fit"
    if config["resume"] is not None and run.path.resolve() != Path(config["resume"]).resolve():
        raise ValueError(f"resume={config['resume']}: continues where that run is; leave out hydra.run.dir={run.path}")
    if is_fit and run.config.is_file() and config["resume"] is None and is_first():
        _refuse(run, config)
    if is_fit and run.result.is_file():
        if is_first():
            print(f"{run.path}: finished already", file=sys.stderr)
        return False
    if is_first():
        run.write_config(config)
        run.result.unlink(missing_ok=True)  # of another task, which is repeated in its directory
    return True


def _refuse(run: RunDirectory, config: dict[str, Any]) -> None:
    changed = differences(run.read_config("hydra.run.dir"), config)
    if changed:
        raise ValueError(f"{run.path}: holds a run of another configuration ({'; '.join(changed[:3])})")
    how = "is finished" if run.result.is_file() else f"goes on with {run.resume_command}"
    raise ValueError(f"hydra.run.dir={run.path}: holds a run already, which {how}; choose another directory")


@contextmanager
def removed_unless_used(run: RunDirectory) -> Iterator[None]:
    """Remove a directory in which Hydra alone has written, if the run turns out not to start."""
    try:
        yield
    except ValueError:
        if {path.name for path in run.path.iterdir()} == {".hydra"}:
            shutil.rmtree(run.path)
        raise
