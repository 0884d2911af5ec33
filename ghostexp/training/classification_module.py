"""LightningModule of the classifiers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ghostexp.training.base_module import BaseModule
from ghostexp.training.distillation import Distillation
from ghostexp.training.top_losses import TestRecorder

OWN_METRICS = ("loss", "acc1", "acc5")


class ClassificationModule(BaseModule):
    """A classifier: a loss, optional distillation, top-1 and top-5 accuracy in percent, and other metrics.

    Top-5 is there for more than five classes. criterion: maps logits (N, num_classes) and targets to the mean loss;
    None: cross-entropy. metrics: by name, of logits and classes, in their own unit.

    A batch is images (N, C, H, W) and targets, (N,) classes or (N, num_classes) probabilities.
    """

    monitor = "acc1"

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Any],
        *,
        num_classes: int,
        criterion: nn.Module | None = None,
        metrics: Mapping[str, Metric] | None = None,
        seed: int = 0,
        distillation: Distillation | None = None,
        interval: str | None = None,
        monitor: str | None = None,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"datamodule.num_classes={num_classes}: must be an integer >= 2 for a classifier")
        sums = 4  # loss, top-1 and top-5 hits, images
        super().__init__(network, optimizer, schedule, seed=seed, sums=sums, interval=interval, monitor=monitor)
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.other_metrics = dict(metrics or {})
        self.monitor_mode = "min" if self.monitor in self.falling_metrics else "max"
        self.distillation = distillation
        self.top_k = 5 if num_classes > 5 else 0
        self.accuracies = self._accuracies(num_classes)
        # Sums of loss and images under evaluation. No module, as the metrics: in bf16-true, sums would be bf16.
        self.eval_sums = torch.zeros(2)
        self.eval_bad = torch.zeros(())  # images under evaluation whose logits are not finite
        self.num_classes = num_classes

    @property
    def falling_metrics(self) -> list[str]:
        """Return the names of the metrics of which less is better."""
        others = self.other_metrics.items()
        return ["loss", *(name for name, metric in others if getattr(metric, "higher_is_better", None) is False)]

    def _accuracies(self, num_classes: int) -> MetricCollection:
        metrics = {"acc1": MulticlassAccuracy(num_classes, average="micro")}
        if self.top_k:
            metrics["acc5"] = MulticlassAccuracy(num_classes, top_k=self.top_k, average="micro")
        return MetricCollection(dict(metrics), compute_groups=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (N, num_classes) of images (N, C, H, W)."""
        return self.network(images)

    def on_train_start(self) -> None:
        """Move the sums and the teacher to the device."""
        super().on_train_start()
        if self.distillation is not None:
            self.distillation.to(self.device, next(self.network.parameters()).dtype)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of a batch, and add it to the epoch's sums."""
        images, targets = batch
        logits = self.network(images)
        loss = self.criterion(logits, targets)
        if self.distillation is not None:
            loss = self.distillation.loss(loss, logits, images)
        with torch.no_grad():
            hits = self._hits(logits, targets)
            count = torch.full_like(hits[0], len(images))
            self.accumulate_train_metrics(loss, batch_idx, torch.stack([loss.float() * count, *hits, count]))
        return loss

    def _hits(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Count a batch's top-1 and top-5 hits."""
        classes = targets if targets.ndim == 1 else targets.argmax(1)
        if not self.top_k:
            return (logits.argmax(1) == classes).sum().float(), torch.zeros((), device=logits.device)
        hits = logits.topk(self.top_k).indices == classes[:, None]  # (N, 5)
        return hits[:, 0].sum().float(), hits.any(1).sum().float()

    def average_train_metrics(self, sums: list[float]) -> dict[str, float]:
        """Compute loss and accuracies of an epoch."""
        loss, hits1, hits5, images = sums
        means = {"train/loss": loss / images, "train/acc1": 100 * hits1 / images}
        return means | ({"train/acc5": 100 * hits5 / images} if self.top_k else {})

    def on_test_epoch_start(self) -> None:
        """Reset the test metrics and the recorder of confusions and top losses."""
        super().on_test_epoch_start()
        self.recorder = TestRecorder(self.num_classes, self.device, self.global_rank)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the test metrics and the recorder with a batch."""
        images, targets = batch
        self.recorder.update(images, self.update_eval_metrics(batch), targets)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, and gather the recorders of all devices."""
        super().on_test_epoch_end()
        self.test_outputs = self.recorder.compute(self.all_gather)  # pyright: ignore[reportArgumentType]

    def reset_eval_metrics(self) -> None:
        """Reset sums and accuracies."""
        self.eval_sums = torch.zeros(2, device=self.device)
        self.eval_bad = torch.zeros((), device=self.device)
        self.accuracies.reset()
        for metric in self.other_metrics.values():
            metric.to(self.device).reset()

    def update_eval_metrics(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Update the metrics with a batch; returns its logits."""
        images, targets = batch
        logits = self.network(images).float()
        loss = self._eval_loss(logits, targets)
        self.eval_sums += torch.stack([loss, torch.full_like(loss, len(images))])
        self.eval_bad += (~torch.isfinite(logits).all(1)).sum()
        self.accuracies.update(logits, targets)
        for metric in self.other_metrics.values():
            metric.update(logits, targets)
        return logits

    def _eval_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the sum of the losses of a batch; cross-entropy is without label smoothing."""
        if type(self.criterion) is nn.CrossEntropyLoss:
            return F.cross_entropy(logits, targets, reduction="sum")
        return self.criterion(logits, targets) * len(logits)

    def compute_eval_metrics(self) -> dict[str, float]:
        """Compute loss and accuracies over all devices.

        Raises FloatingPointError: outputs are not finite; argmax would predict class 0 for them.
        """
        loss, images, bad = self.sum_over_devices(torch.cat([self.eval_sums, self.eval_bad[None]]))
        if bad:
            raise FloatingPointError(
                f"the network's outputs for {bad:.0f} of {images:.0f} images are not finite numbers "
                f"(evaluated in trainer.precision={self.trainer.precision})"
            )
        accuracies = {name: 100 * float(value) for name, value in self.accuracies.compute().items()}
        others = {name: float(metric.compute()) for name, metric in self.other_metrics.items()}
        return {"loss": loss / images} | accuracies | others
