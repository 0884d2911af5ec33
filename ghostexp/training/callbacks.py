"""The callbacks of a run, from the scalars of `conf/callbacks`."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import Tensor

from ghostexp.training.checkpoints import Checkpoints
from ghostexp.training.divergence import StopOnNonFinite, WarnOnDivergence
from ghostexp.training.progress import Progress
from ghostexp.training.stopping import StopOnSignal, StopWithoutProgress
from ghostexp.training.throughput import Throughput


class Ema:
    """A running mean whose decay rises from 0.1 to what it is to be, (1 + n) / (10 + n) after n steps.

    At a constant 0.999, the weights before the first step would still be a third of the mean after a thousand steps.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, mean: Tensor, value: Tensor, steps: Tensor | int) -> Tensor:
        """The mean after one more step."""
        decay = min(self.decay, (1 + float(steps)) / (10 + float(steps)))
        return mean + (1 - decay) * (value - mean)


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
        callbacks.append(WeightAveraging(avg_fn=Ema(ema)))
    if patience is not None:
        callbacks.append(StopWithoutProgress(monitor, patience))
    if progress:
        callbacks.append(Progress(monitor))
    return [*callbacks, StopOnSignal(checkpoints), checkpoints]
