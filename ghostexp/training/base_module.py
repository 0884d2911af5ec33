"""Base of the LightningModules: optimizer and schedule, reproducible random state, metrics."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ghostexp.models.finite import non_finite_weights
from ghostexp.training.distributed import broadcast_buffers
from ghostexp.training.loggers import log_metrics
from ghostexp.training.optimization import Optimization
from ghostexp.training.top_losses import TestOutputs

# Lightning advises sync_dist=True, with two collectives for each metric; ours are equal on all ranks.
warnings.filterwarnings("ignore", message=".*recommended to use .*sync_dist=True")


class BaseModule(pl.LightningModule):
    """A network with its optimizer and schedule.

    optimizer, schedule, interval: see `Optimization`. monitor: replaces that of the class.
    A batch is images and targets, images first. The sums behind the training means are in the checkpoint, and the
    random state is a function of (seed, batch), so that a resumed run equals the uninterrupted one bit for bit.
    """

    monitor: str  # the metric by which networks are compared; without its prefix val/ or test/
    monitor_mode: str = "max"  # whether more of it is better, or min

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Any],
        *,
        seed: int,
        sums: int,
        interval: str | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimization = Optimization(optimizer, schedule, interval)
        self.monitor = monitor or self.monitor
        self.seed = seed
        self.lr = 0.0  # of the last step
        self.metrics: dict[str, float] = {}  # latest value of each
        self.is_validated = False  # whether the current epoch has been
        self.test_outputs: TestOutputs | None = None  # of the last test, for classifiers
        # This rank's sums of the current epoch. No buffer: DDP would overwrite it with rank 0's.
        self.train_sums = torch.zeros(sums)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; faster than `nn.Module` where Lightning notes each hook, fifty times a step."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule."""
        epochs = self.trainer.max_epochs
        assert epochs is not None
        optimizer = self.optimization.build_optimizer(self.network)
        _ = self.trainer.estimated_stepping_batches  # builds the loader, whose length is needed
        steps, metric = self._steps_per_epoch(), f"val/{self.monitor}"
        scheduler = self.optimization.build_scheduler(optimizer, epochs, steps, metric, self.monitor_mode)
        if scheduler["interval"] == "epoch":
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch if "monitor" in scheduler else 1
        return {"optimizer": optimizer, "lr_scheduler": scheduler}  # pyright: ignore[reportReturnType]

    def _steps_per_epoch(self) -> int:
        """Count the optimizer steps of an epoch.

        Raises ValueError: `trainer.limit_train_batches` or `overfit_batches` leaves an incomplete one.
        """
        batches, accumulate = int(self.trainer.num_training_batches), self.trainer.accumulate_grad_batches
        overfit = self.trainer.overfit_batches  # pyright: ignore[reportAttributeAccessIssue]
        key, limit = (
            ("overfit_batches", overfit) if overfit else ("limit_train_batches", self.trainer.limit_train_batches)
        )
        if batches % accumulate:
            near = max(1, batches // accumulate) * accumulate
            raise ValueError(
                f"trainer.{key}={limit}: leaves {batches} micro-batches an epoch, which must be a multiple of "
                f"trainer.accumulate_grad_batches={accumulate}; set trainer.{key}={near}"
            )
        return batches // accumulate

    def on_train_start(self) -> None:
        """Move the sums, which may be those of an interrupted epoch, to the device."""
        self.train_sums = self.train_sums.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed all random numbers of the network by (seed, batch, rank)."""
        batches = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        key = f"{self.seed} {self.global_rank} {batches}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())
        # torch.manual_seed without a GPU formats a stack for its lazy call: up to a millisecond.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(seed)

    def accumulate_train_metrics(self, loss: Tensor, batch_idx: int, sums: Tensor) -> None:
        """Add a batch to the epoch's sums, and log rank 0's loss of a step's last batch every `log_every_n_steps`."""
        self.lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.train_sums += sums
        done = self.trainer.global_step + 1
        ends_step = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if self.global_rank == 0 and every and ends_step and done % every == 0:
            log_metrics(self.trainer, {"train/loss_step": float(loss.detach()), "lr": self.lr}, step=done)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over all devices, and drop the validation metrics of an earlier epoch."""
        if self.is_validated:
            self._step_plateau_schedulers()
        else:
            self._drop_validation_metrics()
        self.is_validated = False
        self.log_epoch_metrics(self.average_train_metrics(self.sum_over_devices(self.train_sums)) | {"lr": self.lr})
        self.train_sums.zero_()

    def _step_plateau_schedulers(self) -> None:
        """Step them after a validation, before the checkpoint: Lightning does it after, and a resume would skip it."""
        for scheduler in (config.scheduler for config in self.trainer.lr_scheduler_configs):
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(self.metrics[f"val/{self.monitor}"])

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler, unless it is stepped after validations."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def average_train_metrics(self, sums: list[float]) -> dict[str, float]:
        """Compute an epoch's metrics from its sums over all devices."""
        raise NotImplementedError

    def on_validation_epoch_start(self) -> None:
        """Reset the validation metrics, and give all devices the same statistics of BatchNorm."""
        broadcast_buffers(self.network)
        self._check_weights()
        self.reset_eval_metrics()

    def on_test_epoch_start(self) -> None:
        """Reset the test metrics."""
        self._check_weights()
        self.reset_eval_metrics()

    def _check_weights(self) -> None:
        """Raise FloatingPointError where weights are not finite: a detector would silently find nothing."""
        if names := non_finite_weights(self.network):
            raise FloatingPointError(f"the weights to evaluate are not finite numbers ({', '.join(names[:3])})")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Update the validation metrics with a batch."""
        self.update_eval_metrics(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Update the test metrics with a batch."""
        self.update_eval_metrics(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, each image counted once over all devices."""
        self._drop_validation_metrics()
        self.is_validated = True
        self.log_epoch_metrics({f"val/{name}": value for name, value in self.compute_eval_metrics().items()})

    def _drop_validation_metrics(self) -> None:
        self.metrics = {name: value for name, value in self.metrics.items() if not name.startswith("val/")}

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, each image counted once over all devices."""
        self.log_epoch_metrics({f"test/{name}": value for name, value in self.compute_eval_metrics().items()})

    def reset_eval_metrics(self) -> None:
        """Reset the metrics under evaluation."""
        raise NotImplementedError

    def update_eval_metrics(self, batch: Any) -> Any:
        """Update the metrics with a batch."""
        raise NotImplementedError

    def compute_eval_metrics(self) -> dict[str, float]:
        """Compute the metrics over all devices."""
        raise NotImplementedError

    def sum_over_devices(self, sums: Tensor) -> list[float]:
        """Add up sums over all devices; every device gets the total."""
        total = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.tolist()

    def log_epoch_metrics(self, metrics: dict[str, float]) -> None:
        """Log metrics to the callbacks and, when training, to the loggers."""
        self.metrics |= metrics
        self.log_dict(metrics, logger=False)  # equal on all ranks
        if self.trainer.state.fn == TrainerFn.FITTING:
            log_metrics(self.trainer, metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the latest metrics, the class names, and every rank's sums of the current epoch."""
        checkpoint["metrics"] = self.metrics
        for name in ("class_names", "category_ids"):
            checkpoint[name] = list(getattr(self.trainer.datamodule, name, ()))  # pyright: ignore
        sums = self.all_gather(self.train_sums)
        assert isinstance(sums, Tensor)
        checkpoint["train_sums"] = sums.reshape(-1, len(self.train_sums))  # (ranks, sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics and this rank's sums; with another number of ranks, the first gets all sums."""
        self.metrics = checkpoint["metrics"]
        sums = checkpoint["train_sums"]
        if len(sums) == self.trainer.world_size:
            self.train_sums = sums[self.global_rank]
        else:
            self.train_sums = sums.sum(0) if self.global_rank == 0 else torch.zeros_like(sums[0])


def latest_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the latest metrics: of a LightningModule that is none of ours, those that it logged."""
    module = trainer.lightning_module
    if isinstance(module, BaseModule):
        return module.metrics
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def training_loss(outputs: Any) -> Tensor | None:
    """Return the loss of a training step; None if it returned none, as Lightning allows."""
    return outputs.get("loss") if isinstance(outputs, Mapping) else None
