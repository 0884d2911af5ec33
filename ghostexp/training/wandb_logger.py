"""Weights & Biases: one run, one id, in its study's group, offline where there is no key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, WandbLogger
from numpy.typing import NDArray
from PIL.Image import Image

from ghostexp.runs.sweep import sweep_of
from ghostexp.runs.wandb_key import has_key
from ghostexp.training.loggers import LoggedRun, Metrics

Rows = Sequence[Mapping[str, Any]]
CHART_CLASSES = 100  # up to which W&B draws a confusion matrix


@dataclass(frozen=True)
class LoggedTest:
    """What W&B shows of a test beside its figures: see `ghostexp.report.confusion` for the rows."""

    pairs: Rows  # truth, prediction, images
    classes: Rows  # class, accuracy, ...
    mistakes: Rows
    pixels: NDArray[np.floating[Any]]  # of the mistakes, (K, H, W, 1 or 3), in [0, 1]
    pictures: Sequence[Path]


@dataclass(frozen=True)
class LoggedBoxes:
    """A picture, the boxes that are there and those that were found: see `ghostexp.report.scenes.Box` for the rows."""

    title: str
    picture: Image
    truth: Rows
    found: Rows


class WandB(WandbLogger):
    """Lightning's W&B logger: deterministic id, offline where there is no key, no row twice after a resume.

    Tags are the chosen network, data and study, and what is typed; the group is the sweep's name unless it is typed.
    """

    def __init__(
        self,
        run: LoggedRun,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        offline: bool | None = None,
        log_model: bool = False,
    ) -> None:
        import wandb

        if not isinstance(log_model, bool):
            raise ValueError(f"logger.wandb.log_model={log_model}: true or false; the tested checkpoint is logged")
        self.folder = run.folder
        self.logs_model = log_model  # Lightning's own way knows nothing of which checkpoint is tested
        self.offline = not has_key() if offline is None else offline
        self.logged_step = -1 if run.logged_step is None else run.logged_step
        super().__init__(
            name=run.title,
            id=run.id,
            save_dir=run.folder,
            offline=self.offline,
            project=project,
            entity=entity,
            group=group or sweep_of(run.folder),
            tags=tags_of(run.config, tags or []),
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
    def log_test(self, test: LoggedTest) -> None:
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
        self.experiment.log(logged)

    @rank_zero_only
    def log_boxes(self, scenes: Sequence[LoggedBoxes], class_names: Sequence[str]) -> None:
        """Log pictures, over which W&B draws the boxes: by kind, class and score, as its viewer wants them.

        Each has a key of its own: of several under one key, W&B keeps the size of the first alone.
        """
        import wandb

        classes = dict(enumerate(class_names))
        logged = {}
        for number, scene in enumerate(scenes):
            kinds = {"annotated": scene.truth, "found": scene.found}
            boxes = {
                kind: {"box_data": [box_of(row) for row in rows], "class_labels": classes}
                for kind, rows in kinds.items()
            }
            logged[f"test/boxes_{number}"] = wandb.Image(scene.picture, caption=scene.title, boxes=boxes)
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
        """Write the summary and end the run, as failed if the code is not 0; returns where it is, or how to sync it."""
        run = self.experiment
        run.summary.update(dict(summary))
        said = f"wandb sync {self.folder}/wandb/offline-run-*" if self.offline else str(run.url)
        run.finish(exit_code=exit_code)
        return said


def _table(rows: Rows) -> Any:
    """A W&B table; a cell that says nothing is empty, and leaves its column's numbers numbers."""
    import wandb

    cells = [[None if value == "" else value for value in row.values()] for row in rows]
    return wandb.Table([*rows[0]] if rows else ["none"], cells)


def box_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A box in pixels, as W&B has it; its score is given only where there is one."""
    middle = [(row["left"] + row["right"]) / 2, (row["top"] + row["bottom"]) / 2]
    sides = {"width": row["right"] - row["left"], "height": row["bottom"] - row["top"]}
    scores = {} if row["score"] is None else {"scores": {"score": row["score"]}}
    caption = {"box_caption": row["name"] if row["score"] is None else f"{row['name']} {row['score']:.2f}"}
    return {"position": {"middle": middle, **sides}, "domain": "pixel", "class_id": row["label"]} | caption | scores


def tags_of(config: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """The chosen network, data and study, and what is typed, each once."""
    choices = config.get("choices", {})
    chosen = [choices.get(group) for group in ("model", "datamodule", "study")]
    return list(dict.fromkeys(str(tag) for tag in (*chosen, *typed) if tag))


def log_images(loggers: Sequence[Logger], paths: Sequence[Path]) -> None:
    """Hand figures to W&B, where that is among the loggers."""
    for logger in _wandb(loggers):
        logger.log_image("figures", [str(path) for path in paths], caption=[path.stem for path in paths])


def log_test(loggers: Sequence[Logger], test: LoggedTest) -> None:
    """Hand what a test says of classes and images to W&B, where that is among the loggers."""
    for logger in _wandb(loggers):
        logger.log_test(test)


def log_boxes(loggers: Sequence[Logger], scenes: Sequence[LoggedBoxes], class_names: Sequence[str]) -> None:
    """Hand pictures with their boxes to W&B, where that is among the loggers."""
    for logger in _wandb(loggers):
        logger.log_boxes(scenes, class_names)


def log_tested_model(loggers: Sequence[Logger], checkpoint: Path, result: Mapping[str, Any]) -> None:
    """Hand the tested checkpoint to W&B, where `logger.wandb.log_model` asks for it, with the run's numbers."""
    for logger in _wandb(loggers):
        logger.log_tested_model(checkpoint, {"tested": checkpoint.stem, **numbers_of(result)})


def finish(loggers: Sequence[Logger], result: Mapping[str, Any], exit_code: int) -> list[str]:
    """End what has to be ended, with the numbers of a result as its summary; returns what a person should know."""
    said = [logger.finish(numbers_of(result), exit_code) for logger in _wandb(loggers)]
    return [line for line in said if line]


def numbers_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a result, those of the test under their own names: params, macs, img_s, test/acc1."""
    numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
    return numbers | result.get("metrics", {}).get("test", {})


def _wandb(loggers: Sequence[Logger]) -> list[WandB]:
    return [logger for logger in loggers if isinstance(logger, WandB)]
