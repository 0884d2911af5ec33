"""Build the callbacks of a run from the values of `conf/callbacks`."""

from pathlib import Path
from typing import Literal

from lightning.pytorch.callbacks import Callback

from ghostexp.training.callbacks.batch_timeout import BatchTimeout
from ghostexp.training.callbacks.checkpoint import ModelCheckpoint
from ghostexp.training.callbacks.divergence import TerminateOnNaN, WarnOnDivergence
from ghostexp.training.callbacks.ema import EMAWeightAveraging
from ghostexp.training.callbacks.progress_bar import EpochProgressBar
from ghostexp.training.callbacks.stopping import ResumableEarlyStopping, SignalHandler
from ghostexp.training.callbacks.throughput import Throughput
from ghostexp.training.distributed import BATCH_SECONDS


def build_callbacks(
    folder: Path,
    monitor: str,
    ema: float | None = None,
    patience: int | None = None,
    save_every_n_epochs: int | None = 1,
    save_every_n_steps: int | None = None,
    save_every_n_minutes: float | None = None,
    min_seconds_between_saves: float = 0,
    batch_timeout: float = BATCH_SECONDS,
    progress: bool = True,
    mode: Literal["max", "min"] = "max",
    pause_after: int | None = None,
) -> list[Callback]:
    """Build the callbacks; checkpoints go to `folder`. mode: whether more of the monitored metric is better.
    pause_after: epochs after which the training is paused.

    Raises ValueError: a value out of range. Lightning itself moves `ModelCheckpoint` behind the others.
    """
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"callbacks.ema={ema}: must be a decay in (0, 1), or null")
    if patience is not None and patience < 1:
        raise ValueError(f"callbacks.patience={patience}: must be a number of epochs >= 1, or null")
    often = (save_every_n_epochs, save_every_n_steps, save_every_n_minutes, min_seconds_between_saves)
    checkpoints = ModelCheckpoint(folder, monitor, *often, mode)
    callbacks: list[Callback] = [TerminateOnNaN(checkpoints.last), WarnOnDivergence(), Throughput()]
    if ema is not None:
        callbacks.append(EMAWeightAveraging(ema))
    if patience is not None:
        callbacks.append(ResumableEarlyStopping(monitor, patience, mode))
    if progress:
        callbacks.append(EpochProgressBar(monitor))
    return [*callbacks, SignalHandler(checkpoints, pause_after), BatchTimeout(batch_timeout, checkpoints), checkpoints]
