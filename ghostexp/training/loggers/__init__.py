"""Loggers that continue from the checkpoint after a resume: no row lost, none twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from ghostexp.runs.csv_table import CSVTable

Metrics = Mapping[str, float]


def log_metrics(trainer: pl.Trainer, metrics: Metrics, step: int | None = None) -> None:
    """Log a row to every logger at once, before any checkpoint of the same step can be written.

    `step` counts completed optimizer steps. Lightning itself logs an epoch after its checkpoint, so that a run killed
    in between would lose the row.
    """
    step = trainer.global_step if step is None else step
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch + 1, **metrics}, step)


def log_in_our_rows(trainer: pl.Trainer) -> None:
    """Log what a LightningModule of others logs in the rows of ours: epochs from 1, completed steps, no row of a test.

    Lightning counts epochs from 0, and before a validation one step less.
    """

    def log(metrics: Mapping[str, Any], step: int | None = None) -> None:
        if metrics and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            log_metrics(trainer, {name: float(value) for name, value in metrics.items() if name != "epoch"}, step)

    trainer._logger_connector.log_metrics = log


@dataclass(frozen=True)
class RunInfo:
    """What a logger needs of the run: directory, id, title, task, configuration, and the step to resume from."""

    folder: Path
    id: str
    title: str
    task: str
    config: Mapping[str, Any]
    resumed_step: int | None = None  # of the checkpoint


class CSVLogger(Logger):
    """`metrics.csv`, on a CPU a function of the configuration alone, and `speed.csv`, which differs between machines.

    One row per step that logged anything. On resuming from step n, later rows are dropped: they are logged again.
    """

    def __init__(self, run: RunInfo) -> None:
        super().__init__()
        self.metrics = CSVTable(run.folder / "metrics.csv", run.resumed_step)
        self.speed = CSVTable(run.folder / "speed.csv", run.resumed_step)

    @property
    def name(self) -> str:
        """Return the key in `conf/logger`."""
        return "csv"

    @property
    def version(self) -> str:
        """Return no version: a run has one directory."""
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
        """Do nothing: config.yaml is beside metrics.csv."""

    @rank_zero_only
    def save(self) -> None:
        """Write the rows to disk."""
        self.metrics.sync()
        self.speed.sync()


class TensorBoardRunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger in the run's directory."""

    def __init__(self, run: RunInfo) -> None:
        # With purge_step, TensorBoard hides what an earlier process logged after the checkpoint.
        purge: dict[str, Any] = {} if run.resumed_step is None else {"purge_step": run.resumed_step + 1}
        super().__init__(save_dir=run.folder, name="", version="tensorboard", default_hp_metric=False, **purge)
