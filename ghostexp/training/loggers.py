"""Loggers that go on, after a resume, where the checkpoint was: nothing lost and nothing twice."""

import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from ghostexp.runs.table import Table

Metrics = Mapping[str, float]


def log_metrics(trainer: pl.Trainer, metrics: Metrics, step: int | None = None) -> None:
    """Hand a row to every logger at once, before any checkpoint of the same step can be written.

    `step` counts optimizer steps done. Lightning's own way logs an epoch after its checkpoint, so that a run killed
    in between would lose the row.
    """
    step = trainer.global_step if step is None else step
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch + 1, **metrics}, step)


@dataclass(frozen=True)
class LoggedRun:
    """What a logger needs to know of the run: where it is, who it is, and from where it goes on."""

    folder: Path
    id: str
    title: str
    task: str
    config: Mapping[str, Any]
    resumed_step: int | None = None  # of the checkpoint
    logged_step: int | None = None  # of the last row that the stopped process logged


class CSV(Logger):
    """`metrics.csv`, a function of the configuration alone, and `speed.csv`, which differs from machine to machine.

    One row per step that logged anything. On resuming from step n, later rows are dropped: they come again.
    """

    def __init__(self, run: LoggedRun) -> None:
        super().__init__()
        self.metrics = Table(run.folder / "metrics.csv", run.resumed_step)
        self.speed = Table(run.folder / "speed.csv", run.resumed_step)

    @property
    def name(self) -> str:
        """The key in `conf/logger`."""
        return "csv"

    @property
    def version(self) -> str:
        """One run, one directory: there are no versions."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Metrics, step: int | None = None) -> None:
        """Add values to the row of `step`."""
        position = {"step": step or 0, "epoch": int(metrics["epoch"])} if "epoch" in metrics else {"step": step or 0}
        speed = {name: value for name, value in metrics.items() if name.startswith("speed/")}
        rest = {name: value for name, value in metrics.items() if name not in speed and name != "epoch"}
        if rest:
            self.metrics.add(position | rest)
        if speed:
            self.speed.add(position | speed)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: config.yaml is beside metrics.csv."""

    @rank_zero_only
    def save(self) -> None:
        """Bring what was logged to the disk."""
        self.metrics.sync()
        self.speed.sync()


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger in the run's directory."""

    def __init__(self, run: LoggedRun) -> None:
        # With purge_step, TensorBoard hides what an earlier process logged after the checkpoint.
        purge: dict[str, Any] = {} if run.resumed_step is None else {"purge_step": run.resumed_step + 1}
        super().__init__(save_dir=run.folder, name="", version="tensorboard", default_hp_metric=False, **purge)


class WandB(WandbLogger):
    """Lightning's W&B logger: deterministic id, offline where there is no key, no row twice after a resume."""

    def __init__(
        self,
        run: LoggedRun,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        offline: bool | None = None,
    ) -> None:
        import wandb

        self.folder = run.folder
        self.offline = not has_key() if offline is None else offline
        self.logged_step = -1 if run.logged_step is None else run.logged_step
        super().__init__(
            name=run.title,
            id=run.id,
            save_dir=run.folder,
            offline=self.offline,
            project=project,
            entity=entity,
            group=group,
            tags=tags,
            notes=notes,
            job_type=run.task,
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it on, and W&B warns of it in every run

    @rank_zero_only
    def log_metrics(self, metrics: Metrics, step: int | None = None) -> None:
        """Log a row, unless the process that was resumed had logged it."""
        if step is None or step > self.logged_step:
            super().log_metrics(metrics, step)

    @rank_zero_only
    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str:
        """Write the summary and end the run, as failed if the code is not 0; returns where it is, or how to sync it."""
        run = self.experiment
        run.summary.update(dict(summary))
        url = run.url
        run.finish(exit_code=exit_code)
        return f"wandb sync {self.folder}/wandb/offline-run-*" if self.offline else str(url)


def log_images(loggers: Sequence[Logger], paths: Sequence[Path]) -> None:
    """Hand figures to W&B, where that is among the loggers."""
    for logger in loggers:
        if isinstance(logger, WandB):
            logger.log_image("figures", [str(path) for path in paths], caption=[path.stem for path in paths])


def finish(loggers: Sequence[Logger], result: Mapping[str, Any], exit_code: int) -> list[str]:
    """End what has to be ended, with the numbers of a result as its summary; returns what a person should know."""
    summary = {key: value for key, value in result.items() if isinstance(value, int | float)}
    summary |= result.get("metrics", {}).get("test", {})
    said = [logger.finish(summary, exit_code) for logger in loggers if isinstance(logger, WandB)]
    return [line for line in said if line]


def has_key() -> bool:
    """Whether W&B can log in without asking: a key in the environment, or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
