"""Record what parts of other packages cannot give: an exact resume, a digest of the data, batches of equal parts."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from ghostexp.data.datasets.torch_dataset import DIGESTED, TorchDataset
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule
from ghostexp.runs.third_party import third_party_targets

SEEDED = "a resume is exact if its random numbers are torch's, and its state is in its state_dict"
UNRELATED = ("logger.", "datamodule.test")  # to the training


def reproducibility(
    config: Mapping[str, Any], datamodule: pl.LightningDataModule, trainer: pl.Trainer
) -> dict[str, Any]:
    """Return two entries of result.json: whether a resume is exact, and what is not known or not given, by key.

    exact_resume: true, false, or null where it depends on code of other packages.
    """
    limits = {
        key: f"{target}: {SEEDED}" for key, target in third_party_targets(config) if not key.startswith(UNRELATED)
    }
    exact: bool | None = None if limits else True
    limits |= {
        key: f"{target}: a resume begins a new log" for key, target in third_party_targets({"logger": config["logger"]})
    }
    if isinstance(datamodule, ThirdPartyDataModule):
        limits["datamodule"] = f"{type(datamodule).__name__}: no digest of the data; a resume has other batches"
        if trainer.world_size > 1:
            limits["datamodule"] += "; to divide the test set equally, some images are counted twice"
        exact = False
    elif isinstance(datamodule, TorchDataset):
        limits["datamodule.train"] = f"the digest is of the labels and of {DIGESTED} images of each set"
    if config.get("lightning_module"):
        target = config["lightning_module"]["_target_"]
        limits["lightning_module"] = f"{target}: a resume may differ, as its metrics inside an epoch do"
        exact = False
    return {"exact_resume": exact, "limits": limits}
