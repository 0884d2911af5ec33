"""Log to Weights & Biases: one id a run, in its study's group, offline where there is no key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from PIL.Image import Image

from ghostexp.runs.sweep_record import find_sweep_name
from ghostexp.runs.wandb_names import build_tags, check_tags, shorten_name
from ghostexp.training.loggers import Metrics, RunInfo
from ghostexp.training.loggers.wandb_run import STEP, logged_history, move_superseded, start_run

Rows = Sequence[Mapping[str, Any]]
CHART_CLASSES = 100  # up to which W&B draws a confusion matrix


@dataclass(frozen=True)
class TestArtifacts:
    """What W&B shows of a test beside its metrics: see `ghostexp.report.confusion` for the rows."""

    pairs: Rows  # target, prediction, images
    classes: Rows  # class, accuracy, ...
    mistakes: Rows
    pixels: NDArray[np.floating[Any]]  # of misclassified images, (K, H, W, 1 or 3), in [0, 1]
    pictures: Sequence[Path]


@dataclass(frozen=True)
class BoxImage:
    """A picture with its ground-truth and its predicted boxes: see `ghostexp.report.boxes.Box` for the rows."""

    title: str
    picture: Image
    ground_truth: Rows
    detections: Rows


class ResumableWandbLogger(WandbLogger):
    """Lightning's W&B logger: deterministic id, offline fallback, one row a step, complete after a resume.

    Tags are the chosen network, data and study, then `tags`; the group is the sweep's name unless `group` is set.
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
            raise ValueError(
                f"logger.wandb.log_model={log_model}: must be true or false; the tested checkpoint is logged"
            )
        check_tags(tags or [])
        self.folder = run.folder
        self.resumed_step = run.resumed_step
        self.logs_model = log_model  # Lightning's own log_model does not know which checkpoint is tested
        self.offline = offline
        self.logged_step = -1  # last step that the server already has
        self.row: dict[str, float] = {}  # of `row_step`, still incomplete
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
        """Return the run; the first use starts it, and logs earlier rows that W&B does not have."""
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
        """Add values to the row of a step, unless the server already has it."""
        if step is None:
            self.experiment.log(dict(metrics))
            return
        _ = self.experiment  # sets logged_step
        if step != self.row_step:
            self.flush()
        if step > self.logged_step:
            self.row_step = step
            self.row |= metrics

    def flush(self) -> None:
        """Log the collected row."""
        if self.row:
            row, self.row = self.row, {}
            self.experiment.log({**row, STEP: self.row_step})

    @rank_zero_only
    def save(self) -> None:
        """Log the collected row, before a checkpoint of its step is written."""
        self.flush()

    @rank_zero_only
    def log_test(self, test: TestArtifacts) -> None:
        """Log the confusion matrix, the accuracy per class and the misclassified images of a test."""
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
    def log_boxes(self, images: Sequence[BoxImage], class_names: Sequence[str]) -> None:
        """Log pictures with their boxes in W&B's format, by kind, class and score.

        Each has its own key: of several under one key, W&B keeps only the size of the first.
        """
        import wandb

        classes = dict(enumerate(class_names))
        logged = {}
        for number, image in enumerate(images):
            kinds = {"annotated": image.ground_truth, "found": image.detections}
            boxes = {
                kind: {"box_data": [wandb_box(row) for row in rows], "class_labels": classes}
                for kind, rows in kinds.items()
            }
            logged[f"test/boxes_{number}"] = wandb.Image(image.picture, caption=image.title, boxes=boxes)
        self.flush()
        self.experiment.log(logged)

    @rank_zero_only
    def log_tested_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        """Log the tested checkpoint as an artifact of type model, if `log_model` is set.

        Names are those of Lightning's logger: `model-ID` with the file `model.ckpt`; the alias is best or last.
        """
        import wandb

        if self.logs_model:
            artifact = wandb.Artifact(f"model-{self.version}", type="model", metadata=dict(metadata))
            artifact.add_file(str(checkpoint), name="model.ckpt", policy="immutable")  # not copied
            self.experiment.log_artifact(artifact, aliases=[checkpoint.stem])

    @rank_zero_only
    def finish(self, summary: Mapping[str, Any], exit_code: int, tags: Sequence[str] = ()) -> str:
        """Write the summary and finish the run, as failed if exit_code is not 0; returns its URL, or how to sync it.

        tags: added to the run's.
        A run that failed before it was started is not started here.
        """
        import wandb

        if exit_code and self._experiment is None:
            return ""
        run = self.experiment
        self.flush()
        run.summary.update(dict(summary))
        if tags:
            run.tags = (*run.tags, *tags)
        run.finish(exit_code=exit_code)
        if run.disabled:
            return ""
        move_superseded(run)
        is_complete = not run.offline and not getattr(run, "_finish_timed_out", False)
        where = str(run.url) if is_complete else f"wandb sync {run.settings.sync_dir}"
        wandb.teardown()  # so that W&B's service process ends, and rereads the environment for another run
        return where


def _table(rows: Rows) -> Any:
    """Build a W&B table; empty cells become None, so that the rest of a column stays numbers."""
    import wandb

    cells: list[Any] = [[None if value == "" else value for value in row.values()] for row in rows]
    return wandb.Table([*rows[0]] if rows else ["none"], cells)


def wandb_box(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a box to W&B's format, in pixels; a ground-truth box has no score."""
    middle = [(row["left"] + row["right"]) / 2, (row["top"] + row["bottom"]) / 2]
    sides = {"width": row["right"] - row["left"], "height": row["bottom"] - row["top"]}
    scores = {} if row["score"] is None else {"scores": {"score": row["score"]}}
    caption = {"box_caption": row["name"] if row["score"] is None else f"{row['name']} {row['score']:.2f}"}
    return {"position": {"middle": middle, **sides}, "domain": "pixel", "class_id": row["label"]} | caption | scores
