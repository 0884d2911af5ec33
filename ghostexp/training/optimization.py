"""Call the factories of optimizer and learning-rate schedule, ours, torch's or others'."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

# of other packages' code
BUILD_ERRORS = (TypeError, AttributeError, LookupError, RuntimeError, AssertionError, ImportError)


@dataclass(frozen=True)
class Optimization:
    """Factories of the optimizer and of its schedule.

    optimizer: a subclass of `torch.optim.Optimizer`, which gets the trainable parameters, or a function, which gets the
    network; often a `functools.partial` of either. schedule: a function of epochs and steps per epoch that returns the
    factor of the peak rate by step, or a class of `torch.optim.lr_scheduler`, which gets the optimizer, and epochs and
    steps_per_epoch where it takes them.
    interval: when a class of torch is stepped; None: every step if it takes steps_per_epoch, else once an epoch.
    """

    optimizer: Callable[..., Any]
    schedule: Callable[..., Any]
    interval: str | None = None

    def build_optimizer(self, network: nn.Module) -> Optimizer:
        """Build the optimizer of a network's trainable parameters.

        Raises ValueError: the factory builds something else, or refuses its arguments.
        """
        takes_params = _is_class_of(self.optimizer, Optimizer)
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = _call("optimizer", self.optimizer, trainable if takes_params else network)
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"optimizer: must build a torch.optim.Optimizer, got {type(optimizer).__name__}")
        return optimizer

    def build_scheduler(
        self, optimizer: Optimizer, epochs: int, steps_per_epoch: int, monitor: str = "", mode: str = "max"
    ) -> dict[str, Any]:
        """Build the schedule and when it is stepped, as Lightning takes it.

        monitor, mode: metric for `ReduceLROnPlateau`, and whether more is better.
        Raises ValueError: the factory builds something else, or refuses its arguments.
        """
        if not _is_class_of(self.schedule, LRScheduler):
            factor: Callable[[int], float] = _call("scheduler", self.schedule, epochs, steps_per_epoch)
            if not callable(factor):
                raise ValueError(
                    f"scheduler: must build a torch.optim.lr_scheduler.LRScheduler, or a function from step to the "
                    f"factor of the peak rate, got {type(factor).__name__}"
                )
            # A lambda: LambdaLR would save the fields of an object, and restore them over those of a resumed run.
            return {"scheduler": _call("scheduler", LambdaLR, optimizer, lambda step: factor(step)), "interval": "step"}
        named = inspect.signature(_function(self.schedule)).parameters
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch, "mode": mode}
        is_plateau = _is_class_of(self.schedule, ReduceLROnPlateau)
        if not is_plateau:
            del given["mode"]  # of CyclicLR, something else
        typed = self.schedule.keywords if isinstance(self.schedule, partial) else {}
        given = {name: value for name, value in given.items() if name in named and name not in typed}
        made = _call("scheduler", self.schedule, optimizer, **given)
        interval = self.interval or ("step" if "steps_per_epoch" in given else "epoch")
        return {"scheduler": made, "interval": interval} | ({"monitor": monitor} if is_plateau else {})

    def check(self, network: nn.Module, epochs: int) -> None:
        """Build optimizer and schedule once; raises ValueError as the training would."""
        self.build_scheduler(self.build_optimizer(network), epochs, steps_per_epoch=1)


def _function(factory: Callable[..., Any]) -> Callable[..., Any]:
    return factory.func if isinstance(factory, partial) else factory


def _is_class_of(factory: Callable[..., Any], kind: type) -> bool:
    function = _function(factory)
    return isinstance(function, type) and issubclass(function, kind)


def _call(key: str, factory: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    try:
        return factory(*args, **kwargs)
    except BUILD_ERRORS as error:
        raise ValueError(f"{key}: cannot be built ({type(error).__name__}: {' '.join(str(error).split())})") from error
