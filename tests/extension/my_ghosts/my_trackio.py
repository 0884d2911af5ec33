"""A logger for Trackio, for which Lightning has none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Trackio's run has the name of the run's directory, and is continued by a resume."""

    def __init__(self, project: str, save_dir: str) -> None:
        super().__init__()
        self.project, self.folder, self.run = project, Path(save_dir), None

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return self.folder.name

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        self.run = trackio.init(self.project, self.version, config=params, resume="allow", embed=False)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.run is not None:
            self.run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.run is not None:
            self.run.finish()
            self.run = None
