"""Exponential moving average (EMA) of the weights: a few kernel launches per step and no device synchronisation."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel


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

    @torch.no_grad()
    def update_parameters(self, model: torch.nn.Module) -> None:
        """Add one step's weights to the average."""
        steps = int(self.n_averaged) if self.steps is None else self.steps
        averages = _tensors(self.module)
        # Half-precision weights have a float32 average.
        values = [now.to(mean.dtype) for now, mean in zip(_tensors(model), averages, strict=True)]
        floats = [index for index, tensor in enumerate(averages) if tensor.is_floating_point()]
        others = [index for index, tensor in enumerate(averages) if not tensor.is_floating_point()]
        decay = min(self.decay, (1 + steps) / (10 + steps)) if steps else 0.0
        torch._foreach_lerp_([averages[i] for i in floats], [values[i] for i in floats], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        if others:
            torch._foreach_copy_([averages[i] for i in others], [values[i] for i in others])  # pyright: ignore[reportPrivateImportUsage]
        self.steps = steps + 1
        self.n_averaged.fill_(self.steps)


def _tensors(model: torch.nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in model.parameters()), *model.buffers()]


class EMAWeightAveraging(WeightAveraging):
    """Lightning's weight averaging with `EMAModel`: the average is what is validated, tested and saved."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the average at the start of a training."""
        if stage == "fit":
            self._average_model = EMAModel(pl_module, pl_module.device, self.decay)
