"""Save confusion matrix, metrics per class and misclassified images of a test, also to W&B."""

from collections.abc import Sequence
from dataclasses import asdict

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.detection_datamodule import DetectionDataModule
from ghostexp.data.image_files import display_name
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule
from ghostexp.report.confusion import Mistake, class_rows, confused_rows, draw_confusion, draw_mistakes
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.outcome import Outputs
from ghostexp.tasks.common.class_names import readable
from ghostexp.tasks.common.detection_outputs import save_detections
from ghostexp.training.classification_module import ClassificationModule
from ghostexp.training.detection_module import DetectionModule
from ghostexp.training.loggers.wandb import TestArtifacts
from ghostexp.training.loggers.wandb_outputs import log_test
from ghostexp.training.top_losses import TestOutputs, TopLosses


def save_test_outputs(
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    directory: RunDirectory,
    title: str,
    loggers: Sequence[Logger],
    outputs: Outputs,
) -> None:
    """Save the outputs of the last test beside its metrics; each failure is isolated."""
    if isinstance(module, DetectionModule):
        assert isinstance(datamodule, DetectionDataModule)
        save_detections(module, datamodule, directory, title, loggers, outputs)
    elif isinstance(module, ClassificationModule) and module.test_outputs is not None:
        assert isinstance(datamodule, ClassificationDataModule | ThirdPartyDataModule)
        _save_classification(module.test_outputs, datamodule, directory, title, loggers, outputs)


@rank_zero_only
def _save_classification(
    tested: TestOutputs,
    datamodule: ClassificationDataModule | ThirdPartyDataModule,
    directory: RunDirectory,
    title: str,
    loggers: Sequence[Logger],
    outputs: Outputs,
) -> None:
    """Write confusion.csv, per_class.csv and misclassified.csv, plot the first and the last, and log all to W&B."""
    confusion, names = tested.confusion.numpy(), readable(datamodule.class_names)
    pairs, classes = confused_rows(confusion, names), class_rows(confusion, names)
    mistakes = describe_mistakes(tested.top_losses, datamodule, names)
    pixels = datamodule.denormalize(tested.top_losses.images.float()).movedim(1, -1).numpy()
    tables = {"confusion": pairs, "per_class": classes, "misclassified": [asdict(mistake) for mistake in mistakes]}
    for name, rows in tables.items():
        if rows:
            outputs.make(f"{name}.csv", write_rows, directory.path / f"{name}.csv", rows)
    caption = f"{title}: {confusion.diagonal().sum():,} of {confusion.sum():,} test images correct"
    matrix, worst = (directory.path / f"{name}.png" for name in ("confusion", "misclassified"))
    drawn = [
        outputs.make(matrix.name, draw_confusion, confusion, names, caption, matrix),
        outputs.make(worst.name, draw_mistakes, pixels, mistakes, caption, worst),
    ]
    pictures = [path for path in drawn if path is not None]
    outputs.make("W&B", log_test, loggers, TestArtifacts(pairs, classes, tables["misclassified"], pixels, pictures))


def describe_mistakes(
    worst: TopLosses, datamodule: ClassificationDataModule | ThirdPartyDataModule, names: Sequence[str]
) -> list[Mistake]:
    """Describe misclassified images by class names, and by their index in the test set."""
    columns = zip(*(values.tolist() for values in worst[:-1]), strict=True)
    mistakes = []
    for loss, target, prediction, probability, rank, batch, position in columns:
        image = datamodule.test_index(rank, batch, position)
        file = display_name(datamodule.test_file(image))
        mistakes.append(
            Mistake(image, names[int(target)], names[int(prediction)], round(probability, 6), round(loss, 6), file)
        )
    return mistakes
