"""Exponential moving average (EMA) of the weights: a few kernel launches per step and no device synchronisation."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

Places = list[tuple[Any, str]]  # a dictionary of a module, and a key of it


class EMAModel(AveragedModel):
    """Average of a model's weights and buffers; the decay rises as (1 + n) / (10 + n) after n steps.

    With a constant decay of 0.999, the initial weights would still be a third of the average after a thousand steps.
    Torch's own class reads the step count from the device and averages tensor by tensor: slow on a GPU.
    Integer buffers are copied: a count of batches has no average.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, decay: float) -> None:
        super().__init__(model, device=device, use_buffers=True)
        self.decay = decay
        self.steps: int | None = None  # value of the buffer `n_averaged`, which a checkpoint may set; read once
        self.places: tuple[Places, Places] | None = None  # of the average's tensors and of the model's

    @torch.no_grad()
    def update_parameters(self, model: torch.nn.Module) -> None:
        """Add one step's weights to the average."""
        steps = int(self.n_averaged) if self.steps is None else self.steps
        self.places = self.places or (_places(self.module), _places(model))
        averages, current = ([tensors[name] for tensors, name in places] for places in self.places)
        # Half-precision weights have a float32 average.
        values = [now.to(mean.dtype) for now, mean in zip(current, averages, strict=True)]
        floats, others = _by_kind(averages)
        decay = min(self.decay, (1 + steps) / (10 + steps)) if steps else 0.0
        torch._foreach_lerp_([averages[i] for i in floats], [values[i] for i in floats], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        if others:
            torch._foreach_copy_([averages[i] for i in others], [values[i] for i in others])  # pyright: ignore[reportPrivateImportUsage]
        self.steps = steps + 1
        self.n_averaged.fill_(self.steps)


def _places(model: torch.nn.Module) -> Places:
    """Return where a model keeps its parameters and buffers, each once: a look there spares the walk in each step."""
    found: dict[int, tuple[Any, str]] = {}
    for kind in ("_parameters", "_buffers"):
        for tensors in [getattr(module, kind) for module in model.modules()]:
            for name in tensors:
                if tensors[name] is not None:
                    found.setdefault(id(tensors[name]), (tensors, name))
    return list(found.values())


def _tensors(model: torch.nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in model.parameters()), *model.buffers()]


def _by_kind(tensors: list[Tensor]) -> tuple[list[int], list[int]]:
    """Return the indices of tensors of floats, and of the others: a foreach call is fast on one dtype."""
    floats = [index for index, tensor in enumerate(tensors) if tensor.is_floating_point()]
    return floats, [index for index, tensor in enumerate(tensors) if not tensor.is_floating_point()]


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for indices in _by_kind(targets):
        if indices:
            torch._foreach_copy_([targets[i] for i in indices], [sources[i] for i in indices])  # pyright: ignore[reportPrivateImportUsage]


class EMAWeightAveraging(WeightAveraging):
    """Lightning's weight averaging with `EMAModel`: the average is what is validated, tested and saved.

    Lightning's own exchanges average and weights for a validation, in the dtype of the weights: bfloat16 would round
    the average each time.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.weights: list[Tensor] | None = None  # of the training, during a validation

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the average at the start of a training."""
        if stage == "fit":
            self._average_model = EMAModel(pl_module, pl_module.device, self.decay)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        """Put the average into the network for a validation, or the weights of the training back."""
        current = _tensors(pl_module)
        if self.weights is None:
            self.weights = [tensor.clone() for tensor in current]
            self._copy_average_to_current(pl_module)
        else:
            _copy(current, self.weights)
            self.weights = None

    def _copy_average_to_current(self, pl_module: pl.LightningModule) -> None:
        assert self._average_model is not None
        _copy(_tensors(pl_module), _tensors(self._average_model.module))
