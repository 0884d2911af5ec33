"""Check the Trainer arguments that decide when a training ends and when it validates.

Schedule, validation, checkpoints and metrics all end with an epoch; an argument that would end or validate a training
elsewhere is refused, with the one to set instead. A test lists every argument of Lightning's Trainer.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard


def check_trainer(trainer: Mapping[str, Any], task: str) -> None:
    """Raise ValueError for a Trainer argument that is not supported by a training or a test."""
    keys = ALLOWED if task == "fit" else OF_TESTS
    for key in keys:
        is_allowed, instead = ALLOWED[key]
        if key in trainer and not is_allowed(trainer[key]):
            raise ValueError(f"trainer.{key}={trainer[key]}: {instead}")
    if task == "fit":
        _check_train_limit(trainer)


def _is_unset(value: Any) -> bool:
    return value is None or value is False


def _is_whole_epoch(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value == 1.0)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


# By argument: allowed values, and the message for others.
ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fast_dev_run": (
        lambda value: _is_unset(value) or value == 0,
        "would write the result of one batch as if it were a full one; debug=default runs a few batches of everything",
    ),
    "max_steps": (
        lambda value: value in (None, -1),
        "a training ends with an epoch, and its schedule there; set trainer.max_epochs, "
        "and trainer.limit_train_batches for shorter epochs",
    ),
    "max_time": (
        _is_unset,
        "would end a training before its schedule; `timeout -s TERM 2h python -m ghostexp ...` stops it "
        "with a checkpoint, from which resume=DIR continues",
    ),
    "min_epochs": (_is_unset, "a training ends at trainer.max_epochs, or earlier by callbacks.patience alone"),
    "min_steps": (_is_unset, "a training ends at trainer.max_epochs, or earlier by callbacks.patience alone"),
    "val_check_interval": (
        _is_whole_epoch,
        "validation runs at the end of an epoch, where its checkpoint is saved; "
        "set trainer.check_val_every_n_epoch, or trainer.limit_train_batches for shorter epochs",
    ),
    "limit_test_batches": (
        lambda value: value is None or value != 0,
        "a run ends with its test metrics; 1 measures them on one batch",
    ),
    "check_val_every_n_epoch": (_is_count, "must be an integer >= 1"),
    "limit_predict_batches": (
        lambda value: value in (None, 1.0) and not _is_count(value),
        "no task predicts with the trainer; task=predict reads all of task.input",
    ),
}
OF_TESTS = ("fast_dev_run", "limit_test_batches", "limit_predict_batches")


def _check_train_limit(trainer: Mapping[str, Any]) -> None:
    """Raise ValueError if an epoch has no micro-batches, or not a multiple of the accumulation steps.

    For a fraction this is checked once the data are read, see `ghostexp.training.base_module`.
    """
    accumulate = trainer.get("accumulate_grad_batches") or 1
    for key in ("limit_train_batches", "overfit_batches"):
        limit = trainer.get(key)
        if key == "limit_train_batches" and limit is not None and limit == 0:
            raise ValueError(f"trainer.{key}={limit}: must be an integer >= 1 or a fraction in (0, 1], or null")
        if _is_count(limit) and limit % accumulate:
            near = max(1, round(limit / accumulate)) * accumulate
            raise ValueError(
                f"trainer.{key}={limit}: counts micro-batches, and must be a multiple of "
                f"trainer.accumulate_grad_batches={accumulate}; set trainer.{key}={near}"
            )
