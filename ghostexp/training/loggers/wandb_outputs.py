"""Log what tasks produce to Weights & Biases, if it is among the loggers; its errors end no run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ghostexp.runs.outcome import Paused
from ghostexp.runs.wandb_mode import announce
from ghostexp.training.loggers.wandb import BoxImage, ResumableWandbLogger, TestArtifacts


def log_images(loggers: Sequence[Logger], paths: Sequence[Path]) -> None:
    """Log figures."""
    for logger in _wandb(loggers):
        with _continue_on_error("the figures are not on W&B"):
            logger.log_image("figures", [str(path) for path in paths], caption=[path.stem for path in paths])


def log_test(loggers: Sequence[Logger], test: TestArtifacts) -> None:
    """Log the artifacts of a test."""
    for logger in _wandb(loggers):
        with _continue_on_error("the tables of the test are not on W&B"):
            logger.log_test(test)


def log_boxes(loggers: Sequence[Logger], images: Sequence[BoxImage], class_names: Sequence[str]) -> None:
    """Log pictures with their boxes."""
    for logger in _wandb(loggers):
        with _continue_on_error("the boxes are not on W&B"):
            logger.log_boxes(images, class_names)


def log_tested_model(loggers: Sequence[Logger], checkpoint: Path, result: Mapping[str, Any]) -> None:
    """Log the tested checkpoint and the run's numbers to W&B, if `logger.wandb.log_model` is set."""
    for logger in _wandb(loggers):
        with _continue_on_error("the checkpoint is not on W&B"):
            logger.log_tested_model(checkpoint, {"test_checkpoint": checkpoint.stem, **numbers_of(result)})


def finish(loggers: Sequence[Logger], result: Mapping[str, Any], error: BaseException | None = None) -> list[str]:
    """Finish the W&B run with the numbers of a result as its summary; returns messages for the user.

    error: what ended the run; W&B has no state for one that is paused or has diverged, which get a tag.
    Errors of W&B lose neither the result nor the error that ended the run.
    """
    messages, is_paused = [], isinstance(error, Paused)
    tags = ["paused"] if is_paused else ["diverged"] if isinstance(error, FloatingPointError) else []
    for logger in _wandb(loggers):
        with _continue_on_error(f"the run was not finished on W&B; the recording is in {logger.folder / 'wandb'}"):
            messages.append(logger.finish(numbers_of(result), 0 if error is None or is_paused else 1, tags))
    return [line for line in messages if line]


@contextmanager
def _continue_on_error(loss: str) -> Iterator[None]:
    """Continue without W&B where it fails, and print what is lost."""
    try:
        yield
    except Exception as error:
        announce(f"W&B: {loss} ({type(error).__name__}: {' '.join(str(error).split())})")


def numbers_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Select the numbers of a result, test metrics by name: params, macs, images_per_second, test/acc1."""
    numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
    return numbers | result.get("metrics", {}).get("test", {})


def _wandb(loggers: Sequence[Logger]) -> list[ResumableWandbLogger]:
    return [logger for logger in loggers if isinstance(logger, ResumableWandbLogger)]
