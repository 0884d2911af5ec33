"""Weights & Biases: one run, one id, in its study's group, offline where there is no key."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, WandbLogger
from numpy.typing import NDArray
from PIL.Image import Image

from ghostexp.runs.sweep_record import find_sweep_name
from ghostexp.runs.wandb_mode import announce
from ghostexp.runs.wandb_names import build_tags, check_tags, shorten_name
from ghostexp.training.loggers import Metrics, RunInfo
from ghostexp.training.loggers.wandb_run import STEP, logged_history, set_aside, start_run

Rows = Sequence[Mapping[str, Any]]
CHART_CLASSES = 100  # up to which W&B draws a confusion matrix


@dataclass(frozen=True)
class TestArtifacts:
    """What W&B shows of a test beside its figures: see `ghostexp.report.confusion` for the rows."""

    pairs: Rows  # truth, prediction, images
    classes: Rows  # class, accuracy, ...
    mistakes: Rows
    pixels: NDArray[np.floating[Any]]  # of the mistakes, (K, H, W, 1 or 3), in [0, 1]
    pictures: Sequence[Path]


@dataclass(frozen=True)
class BoxImage:
    """A picture, the boxes that are there and those that were found: see `ghostexp.report.boxes.Box` for the rows."""

    title: str
    picture: Image
    truth: Rows
    found: Rows


class ResumableWandbLogger(WandbLogger):
    """Lightning's W&B logger: deterministic id, offline where need be, one row a step, and after a resume all of them.

    Tags are the chosen network, data and study, and what is typed; the group is the sweep's name unless it is typed.
    """

    def __init__(
        self,
        run: RunInfo,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        offline: bool | None = None,
        log_model: bool = False,
    ) -> None:
        if not isinstance(log_model, bool):
            raise ValueError(f"logger.wandb.log_model={log_model}: true or false; the tested checkpoint is logged")
        check_tags(tags or [])
        self.folder = run.folder
        self.resumed_step = run.resumed_step
        self.logs_model = log_model  # Lightning's own way knows nothing of which checkpoint is tested
        self.offline = offline
        self.logged_step = -1  # of the last row that the server has already
        self.row: dict[str, float] = {}  # of `row_step`, which may grow yet
        self.row_step = -1
        group = group or find_sweep_name(run.folder)
        super().__init__(
            name=shorten_name(run.title),
            id=run.id,
            save_dir=run.folder,
            project=project,
            entity=entity,
            group=group and shorten_name(group),
            tags=build_tags(run.config, tags or []),
            notes=notes,
            job_type=run.task,
            config=dict(run.config),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it on, and W&B warns of it in every run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; the first use begins it, and logs what an earlier process of it logged and W&B does not have."""
        if self._experiment is None:
            run = self._experiment = start_run(self._wandb_init, self.offline)
            if run.resumed:
                self.logged_step = int(run.summary.get(STEP, -1))
            for step, row in logged_history(self.folder, self.resumed_step):
                if step > self.logged_step:
                    run.log({**row, STEP: step})
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Metrics, step: int | None = None) -> None:
        """Add values to the row of a step, unless the server has that row."""
        if step is None:
            self.experiment.log(dict(metrics))
            return
        _ = self.experiment  # which finds out what the server has
        if step != self.row_step:
            self.flush()
        if step > self.logged_step:
            self.row_step = step
            self.row |= metrics

    def flush(self) -> None:
        """Log the row that was collected."""
        if self.row:
            row, self.row = self.row, {}
            self.experiment.log({**row, STEP: self.row_step})

    @rank_zero_only
    def save(self) -> None:
        """Log the row that was collected, before a checkpoint of its step is written."""
        self.flush()

    @rank_zero_only
    def log_test(self, test: TestArtifacts) -> None:
        """Log what a test says of classes and images: pictures, tables, and charts of these."""
        import wandb

        classes, mistakes = _table(test.classes), _table(test.mistakes)
        if test.mistakes:
            pixels = (255 * test.pixels).round().astype(np.uint8)
            mistakes.add_column("picture", [wandb.Image(image.squeeze()) for image in pixels])
        logged = {f"test/{path.stem}": wandb.Image(str(path)) for path in test.pictures}
        logged |= {"test/classes_table": classes, "test/mistakes_table": mistakes}
        if len(test.classes) <= CHART_CLASSES:
            fields = {name: name for name in ("Actual", "Predicted", "nPredictions")}
            pairs = wandb.Table([*fields], [list(row.values()) for row in test.pairs])
            chart = wandb.plot_table("wandb/confusion_matrix/v1", pairs, fields, {"title": "confusion"})
            bars = wandb.plot.bar(classes, "class", "accuracy", title="accuracy by class, %")
            logged |= {"test/confusion_chart": chart, "test/classes_chart": bars}
        self.flush()
        self.experiment.log(logged)

    @rank_zero_only
    def log_boxes(self, scenes: Sequence[BoxImage], class_names: Sequence[str]) -> None:
        """Log pictures, over which W&B draws the boxes: by kind, class and score, as its viewer wants them.

        Each has a key of its own: of several under one key, W&B keeps the size of the first alone.
        """
        import wandb

        classes = dict(enumerate(class_names))
        logged = {}
        for number, scene in enumerate(scenes):
            kinds = {"annotated": scene.truth, "found": scene.found}
            boxes = {
                kind: {"box_data": [wandb_box(row) for row in rows], "class_labels": classes}
                for kind, rows in kinds.items()
            }
            logged[f"test/boxes_{number}"] = wandb.Image(scene.picture, caption=scene.title, boxes=boxes)
        self.flush()
        self.experiment.log(logged)

    @rank_zero_only
    def log_tested_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        """Log the tested checkpoint as an artifact of type model, where that is asked for.

        Its name and its file's are those of Lightning's logger, `model-ID` and `model.ckpt`, its alias is best or last.
        """
        import wandb

        if self.logs_model:
            artifact = wandb.Artifact(f"model-{self.version}", type="model", metadata=dict(metadata))
            artifact.add_file(str(checkpoint), name="model.ckpt", policy="immutable")  # which is not copied
            self.experiment.log_artifact(artifact, aliases=[checkpoint.stem])

    @rank_zero_only
    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str:
        """Write the summary and end the run, as failed if the code is not 0; returns where it is, or how to sync it.

        A run that failed before it began is not begun for its end.
        """
        import wandb

        if exit_code and self._experiment is None:
            return ""
        run = self.experiment
        self.flush()
        run.summary.update(dict(summary))
        run.finish(exit_code=exit_code)
        if run.disabled:
            return ""
        set_aside(run)
        is_whole = not run.offline and not getattr(run, "_finish_timed_out", False)
        where = str(run.url) if is_whole else f"wandb sync {run.settings.sync_dir}"
        wandb.teardown()  # so that W&B's own process ends with the run, and reads the environment anew for another
        return where


def _table(rows: Rows) -> Any:
    """A W&B table; a cell that says nothing is empty, and leaves its column's numbers numbers."""
    import wandb

    cells = [[None if value == "" else value for value in row.values()] for row in rows]
    return wandb.Table([*rows[0]] if rows else ["none"], cells)


def wandb_box(row: Mapping[str, Any]) -> dict[str, Any]:
    """A box in pixels, as W&B has it; its score is given only where there is one."""
    middle = [(row["left"] + row["right"]) / 2, (row["top"] + row["bottom"]) / 2]
    sides = {"width": row["right"] - row["left"], "height": row["bottom"] - row["top"]}
    scores = {} if row["score"] is None else {"scores": {"score": row["score"]}}
    caption = {"box_caption": row["name"] if row["score"] is None else f"{row['name']} {row['score']:.2f}"}
    return {"position": {"middle": middle, **sides}, "domain": "pixel", "class_id": row["label"]} | caption | scores


def log_images(loggers: Sequence[Logger], paths: Sequence[Path]) -> None:
    """Hand figures to W&B, where that is among the loggers."""
    for logger in _wandb(loggers):
        with _survived("the figures are not on W&B"):
            logger.log_image("figures", [str(path) for path in paths], caption=[path.stem for path in paths])


def log_test(loggers: Sequence[Logger], test: TestArtifacts) -> None:
    """Hand what a test says of classes and images to W&B, where that is among the loggers."""
    for logger in _wandb(loggers):
        with _survived("the tables of the test are not on W&B"):
            logger.log_test(test)


def log_boxes(loggers: Sequence[Logger], scenes: Sequence[BoxImage], class_names: Sequence[str]) -> None:
    """Hand pictures with their boxes to W&B, where that is among the loggers."""
    for logger in _wandb(loggers):
        with _survived("the boxes are not on W&B"):
            logger.log_boxes(scenes, class_names)


def log_tested_model(loggers: Sequence[Logger], checkpoint: Path, result: Mapping[str, Any]) -> None:
    """Hand the tested checkpoint to W&B, where `logger.wandb.log_model` asks for it, with the run's numbers."""
    for logger in _wandb(loggers):
        with _survived("the checkpoint is not on W&B"):
            logger.log_tested_model(checkpoint, {"test_checkpoint": checkpoint.stem, **numbers_of(result)})


def finish(loggers: Sequence[Logger], result: Mapping[str, Any], exit_code: int) -> list[str]:
    """End what has to be ended, with the numbers of a result as its summary; returns what a person should know.

    Whatever W&B answers, neither a result nor the error that ended a run is lost by it.
    """
    said = []
    for logger in _wandb(loggers):
        with _survived(f"the run did not end well there; what was recorded is in {logger.folder / 'wandb'}"):
            said.append(logger.finish(numbers_of(result), exit_code))
    return [line for line in said if line]


@contextmanager
def _survived(loss: str) -> Iterator[None]:
    """Go on without W&B where it fails, and say what is lost by it."""
    try:
        yield
    except Exception as error:
        announce(f"W&B: {loss} ({type(error).__name__}: {' '.join(str(error).split())})")


def numbers_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a result, those of the test under their own names: params, macs, images_per_second, test/acc1."""
    numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
    return numbers | result.get("metrics", {}).get("test", {})


def _wandb(loggers: Sequence[Logger]) -> list[ResumableWandbLogger]:
    return [logger for logger in loggers if isinstance(logger, ResumableWandbLogger)]
