"""A callback that fails on one rank, to see how soon the others end."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class FailingRank(Callback):
    """Raise an error on rank 1 at the third batch, while the others go on to their next collective."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Fail on rank 1."""
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise RuntimeError("failing on purpose")
