"""With Lightning: a run resumed from any checkpoint gets the remaining batches of the uninterrupted run."""

import gc
import hashlib
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ghostexp.data.base import DataModule
from ghostexp.data.datasets.coco import Coco
from ghostexp.data.datasets.fake import Fake
from ghostexp.data.datasets.image_folder import ImageFolder
from tests.data.fake_coco import tensors_of, unread_coco, write_set
from tests.data.fake_image_folders import MakeTree, image_folder

Step = tuple[int, int, str]  # epoch, batch, hash of the batch


class BatchRecorder(pl.LightningModule):
    """Records the hash of each training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Step] = []

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors_of(batch))
        self.seen.append((self.current_epoch, batch_idx, hashlib.sha256(content).hexdigest()))
        return self.bias.sum()

    def validation_step(self, batch: Sequence[Any], batch_idx: int) -> None:
        """Do nothing; validation only has to run."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0  # makes Lightning build the loader before it restores
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEverywhere(Callback):
    """Saves after each batch, validation and epoch, with the number of batches so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: dict[Path, int] = {}

    def save(self, trainer: pl.Trainer, module: Any, moment: str) -> None:
        if not trainer.sanity_checking:
            path = self.folder / f"{len(self.saved)}-{moment}.ckpt"
            trainer.save_checkpoint(path)
            self.saved[path] = len(module.seen)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.save(trainer, pl_module, "batch")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer, pl_module, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer, pl_module, "epoch")


def fit(data: DataModule, checkpoint: Path | None = None, **trainer: Any) -> list[Step]:
    recorder = BatchRecorder()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    lightning = pl.Trainer(accelerator="cpu", max_epochs=3, use_distributed_sampler=False, **quiet, **trainer)
    lightning.fit(recorder, data, ckpt_path=checkpoint, weights_only=True)
    return recorder.seen


def check_resume(make: Callable[[], DataModule], folder: Path, every: int, **trainer: Any) -> None:
    saver = SaveEverywhere(folder)
    uninterrupted = fit(make(), callbacks=[saver], **trainer)
    assert len({content for _, _, content in uninterrupted}) == len(uninterrupted)
    for path, done in list(saver.saved.items())[::every]:
        assert fit(make(), checkpoint=path, **trainer) == uninterrupted[done:], path.name


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.mark.parametrize(
    "trainer",
    [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 0.5}, {"limit_train_batches": 2}],
    ids=["default", "accumulating", "validating-twice", "limited"],
)
@pytest.mark.filterwarnings("error:You're resuming from a checkpoint that ended before the epoch ended")
def test_in_memory_batches_resume(tmp_path: Path, trainer: dict[str, Any]) -> None:
    def make() -> Fake:
        return Fake(
            batch_size=8,
            num_classes=4,
            in_chans=1,
            image_size=4,
            num_images=30,
            crop_padding=1,
            hflip=True,
            mixup_alpha=0.2,
            seed=3,
        )

    check_resume(make, tmp_path, every=1, **trainer)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_worker_batches_resume(make_tree: MakeTree, tmp_path: Path, accumulation_steps: int) -> None:
    root = make_tree({"train": 5, "val": 1}, size=70)

    def make() -> ImageFolder:
        return image_folder(root, batch_size=4, image_size=65, num_workers=2, hflip=True, seed=3)

    gc.collect()
    before = set(multiprocessing.active_children())  # of loaders that other tests hold
    check_resume(make, tmp_path, every=3, accumulate_grad_batches=accumulation_steps)
    assert set(multiprocessing.active_children()) <= before  # no worker outlives its run


def test_detection_batches_resume(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")

    def make() -> Coco:
        return unread_coco(root, scale_jitter=0.5, keep_empty=True, aspect_ratio_grouping=True)

    check_resume(make, tmp_path, every=3)


def test_overfit_batches_repeat_in_every_epoch() -> None:
    seen = fit(Fake(batch_size=8, num_classes=4, in_chans=1, image_size=4, num_images=64), overfit_batches=2)
    contents = [content for _, _, content in seen]
    assert contents == contents[:2] * 3
