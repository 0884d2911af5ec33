"""Train on several devices with few collectives and time limits on those."""

from datetime import timedelta

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH_SECONDS = 300.0  # default time limit of a rank that waits for a batch
# Longer, so that this rank gives the reason: for a collective, which ends a run whose other machines have failed.
# With the default that is ten minutes; torch's own is 30.
COLLECTIVE_SECONDS = 300.0  # in addition
BUCKET_BYTES = 2**28
PLAIN_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class DDP(DDPStrategy):
    """Lightning's DDP, whose only collective in a step is the all-reduce of the gradients.

    Buffers are not sent before each forward, but rank 0's before each evaluation, see `broadcast_buffers`: in training
    no rank reads its running statistics. batch_timeout: seconds that a rank may wait for a batch.
    """

    def __init__(self, find_unused_parameters: bool = False, batch_timeout: float = BATCH_SECONDS) -> None:
        super().__init__(
            find_unused_parameters=find_unused_parameters,
            broadcast_buffers=False,
            timeout=timedelta(seconds=batch_timeout + COLLECTIVE_SECONDS),
        )


def broadcast_buffers(module: nn.Module) -> None:
    """Give all ranks rank 0's buffers, such as BatchNorm's running statistics."""
    buffers = list(module.buffers())
    if buffers and torch.distributed.is_available() and torch.distributed.is_initialized():
        group = torch.distributed.distributed_c10d._get_default_group()
        torch.distributed._broadcast_coalesced(group, buffers, BUCKET_BYTES, 0)  # pyright: ignore[reportPrivateImportUsage]


def silence_sigterm_broadcast(trainer: pl.Trainer) -> None:
    """Keep Lightning from broadcasting in each step whether SIGTERM was received: `SignalHandler` handles it.

    (https://github.com/Lightning-AI/pytorch-lightning/issues/21487)
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # pyright: ignore[reportAttributeAccessIssue]


def check_sync_batchnorm(network: nn.Module) -> None:
    """Raise ValueError for a BatchNorm that torch would replace by one without its activation, as timm's have one."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and type(module) not in PLAIN_BATCHNORMS:
            kind = type(module).__name__
            raise ValueError(
                f"trainer.sync_batchnorm=true: {kind} ({name}) does more than normalise, which synchronised "
                "BatchNorm would drop; set trainer.sync_batchnorm=false"
            )
