"""The one LightningModule for every classifying network."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ghostexp.training.distillation import Distillation
from ghostexp.training.loggers import log_metrics
from ghostexp.training.schedules import Schedule


class Classifier(pl.LightningModule):
    """Cross-entropy with label smoothing, and what a teacher says where there is one.

    Top-1, top-5 (of more than five classes) and loss, per epoch, in percent.

    A batch is images (N, C, H, W) and targets, (N,) classes or (N, num_classes) probabilities.

    Training means are sums that travel in the checkpoint, and the random state is a function of (seed, batch), so
    that a resumed run repeats the unbroken one to the bit.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[nn.Module], Optimizer],
        schedule: Callable[[int, int], Schedule],
        *,
        num_classes: int,
        label_smoothing: float = 0.0,
        seed: int = 0,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={label_smoothing}: a number in [0, 1) is needed")
        self.network = network
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.distillation = distillation
        self.top_k = 5 if num_classes > 5 else 0
        self.accuracies = self._accuracies(num_classes)
        # Sums of loss and images under evaluation. No metric: in bf16-true its sums would be bf16 too.
        self.eval_sums = torch.zeros(2)
        self.lr = 0.0  # of the last step taken
        self.figures: dict[str, float] = {}  # the latest of each
        # Loss, top-1 hits, top-5 hits and images of this rank's epoch. No buffer: DDP would overwrite it with rank 0's.
        self.train_sums = torch.zeros(4)

    def _accuracies(self, num_classes: int) -> MetricCollection:
        metrics = {"acc1": MulticlassAccuracy(num_classes, average="micro")}
        if self.top_k:
            metrics["acc5"] = MulticlassAccuracy(num_classes, top_k=self.top_k, average="micro")
        return MetricCollection(dict(metrics), compute_groups=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        return self.network(images)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the schedule stepped after every optimizer step."""
        epochs = self.trainer.max_epochs
        assert epochs is not None
        optimizer = self.make_optimizer(self.network)
        _ = self.trainer.estimated_stepping_batches  # has the loader made, whose length is needed
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = LambdaLR(optimizer, self.make_schedule(epochs, steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Bring the sums, of an epoch that was broken off perhaps, and the teacher to the device."""
        self.train_sums = self.train_sums.to(self.device)
        if self.distillation is not None:
            self.distillation.to(self.device, next(self.network.parameters()).dtype)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout a function of (seed, batch, rank)."""
        batches = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        key = f"{self.seed} {self.global_rank} {batches}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, its share of the epoch's means kept."""
        images, targets = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        if self.distillation is not None:
            loss = self.distillation.mix(loss, logits, images)
        self.lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        with torch.no_grad():
            hits = self._hits(logits, targets)
            count = torch.full_like(hits[0], len(images))
            self.train_sums += torch.stack([loss.float() * count, *hits, count])
        self._log_step(loss, batch_idx)
        return loss

    def _log_step(self, loss: Tensor, batch_idx: int) -> None:
        """Log the loss of the step now being taken, every `log_every_n_steps`; rank 0's share of it."""
        done = self.trainer.global_step + 1
        ends_step = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if self.global_rank == 0 and every and ends_step and done % every == 0:
            log_metrics(self.trainer, {"train/loss_step": float(loss.detach()), "lr": self.lr}, step=done)

    def _hits(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """How many of a batch are right at the first, and within the first five, guesses."""
        classes = targets if targets.ndim == 1 else targets.argmax(1)
        if not self.top_k:
            return (logits.argmax(1) == classes).sum().float(), torch.zeros((), device=logits.device)
        right = logits.topk(self.top_k).indices == classes[:, None]  # (N, 5)
        return right[:, 0].sum().float(), right.any(1).sum().float()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over all devices."""
        loss, hits1, hits5, images = self._sum_over_devices(self.train_sums)
        means = {"train/loss": loss / images, "train/acc1": 100 * hits1 / images}
        if self.top_k:
            means["train/acc5"] = 100 * hits5 / images
        self._log(means | {"lr": self.lr})
        self.train_sums.zero_()

    def on_validation_epoch_start(self) -> None:
        """Start the validation figures."""
        self._start_evaluation()

    def on_test_epoch_start(self) -> None:
        """Start the test figures."""
        self._start_evaluation()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch to the validation figures."""
        self._evaluate(batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch to the test figures."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures, each image counted once over all devices."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the test figures, each image counted once over all devices."""
        self._log_evaluation("test")

    def _start_evaluation(self) -> None:
        self.eval_sums = torch.zeros(2, device=self.device)
        self.accuracies.reset()

    def _evaluate(self, batch: tuple[Tensor, Tensor]) -> None:
        images, targets = batch
        logits = self.network(images).float()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        self.eval_sums += torch.stack([loss, torch.full_like(loss, len(images))])
        self.accuracies.update(logits, targets)

    def _log_evaluation(self, stage: str) -> None:
        loss, images = self._sum_over_devices(self.eval_sums)
        accuracies = {f"{stage}/{name}": 100 * float(value) for name, value in self.accuracies.compute().items()}
        self._log({f"{stage}/loss": loss / images} | accuracies)

    def _sum_over_devices(self, sums: Tensor) -> list[float]:
        total = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.tolist()

    def _log(self, figures: dict[str, float]) -> None:
        """Give figures to the callbacks and, when training, to the loggers."""
        self.figures |= figures
        self.log_dict(figures, logger=False, sync_dist=True)  # equal on all ranks
        if self.trainer.state.fn == TrainerFn.FITTING:
            log_metrics(self.trainer, figures)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the latest figures, what the classes are called, and every rank's sums of the epoch under way."""
        checkpoint["figures"] = self.figures
        checkpoint["class_names"] = list(getattr(self.trainer.datamodule, "class_names", ()))  # pyright: ignore
        sums = self.all_gather(self.train_sums)
        assert isinstance(sums, Tensor)
        checkpoint["train_sums"] = sums.reshape(-1, 4)  # (ranks, 4)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the figures, and this rank's sums; on another number of ranks, all of them go to the first."""
        self.figures = checkpoint["figures"]
        sums = checkpoint["train_sums"]
        if len(sums) == self.trainer.world_size:
            self.train_sums = sums[self.global_rank]
        else:
            self.train_sums = sums.sum(0) if self.global_rank == 0 else torch.zeros(4)
