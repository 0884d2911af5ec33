"""The command of a small search, and its runs."""

from pathlib import Path

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.trials import parse_name
from tests.cli import TINY

SPACE = ("optimizer.lr=tag(log,interval(0.001,0.1))", "optimizer.weight_decay=choice(1e-4,5e-4)")
DATA = (
    *TINY,
    "datamodule.validate_on=holdout",
    "datamodule.holdout_fraction=0.5",
    "callbacks.min_seconds_between_saves=0",
)
SEARCH = ("-m", *DATA, *SPACE, "search=random", "search.trials=4", "search.rungs=[1]", "search.factor=2", "name=tuned")


def runs(folder: Path) -> dict[str, RunDirectory]:
    """Return the runs of a search by name."""
    paths = sorted(path.parent for path in folder.glob("*/config.yaml"))
    return {path.name: RunDirectory(path) for path in paths if parse_name(path.name)}
