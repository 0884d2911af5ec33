"""The callbacks of a run, from the scalars of `conf/callbacks`."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from ghostexp.training.checkpoints import Checkpoints
from ghostexp.training.divergence import StopOnNonFinite, WarnOnDivergence
from ghostexp.training.ema import EMAWeightAveraging
from ghostexp.training.progress import Progress
from ghostexp.training.stopping import StopOnSignal, StopWithoutProgress
from ghostexp.training.throughput import Throughput


def build(
    folder: Path,
    monitor: str,
    ema: float | None = None,
    patience: int | None = None,
    save_epochs: int | None = 1,
    save_steps: int | None = None,
    save_minutes: float | None = None,
    progress: bool = True,
) -> list[Callback]:
    """Everything that watches a training; checkpoints go to `folder`.

    Lightning itself moves `Checkpoints` behind the others.
    """
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"callbacks.ema={ema}: a decay in (0, 1), or null, is needed")
    if patience is not None and patience < 1:
        raise ValueError(f"callbacks.patience={patience}: a number of epochs >= 1, or null, is needed")
    checkpoints = Checkpoints(folder, monitor, save_epochs, save_steps, save_minutes)
    callbacks: list[Callback] = [StopOnNonFinite(checkpoints.last), WarnOnDivergence(), Throughput()]
    if ema is not None:
        callbacks.append(EMAWeightAveraging(ema))
    if patience is not None:
        callbacks.append(StopWithoutProgress(monitor, patience))
    if progress:
        callbacks.append(Progress(monitor))
    return [*callbacks, StopOnSignal(checkpoints), checkpoints]
