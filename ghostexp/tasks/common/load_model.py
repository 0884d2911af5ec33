"""Load a trained network: a run's checkpoint, or `model.weights`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from ghostexp.analysis.cost import Cost
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule
from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.finite import non_finite_weights
from ghostexp.models.weights import check_match
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_network import weights_folder
from ghostexp.tasks.common.normalisation import check_normalisation
from ghostexp.tasks.common.weights_source import find_tested_checkpoint, find_weights_file
from ghostexp.training.callbacks.checkpoint import read_checkpoint


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, its cost on one image, and the source of the weights.

    class_names, category_ids: those of the training data, empty where the file has none.
    ema: decay of the run's weight average, if these weights are one.
    """

    network: Network | DetectionModel
    cost: Cost
    source: str
    checkpoint: str | None = None  # best or last, of a run
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int | str, ...] = ()
    backbone_macs: int | None = None  # of a detector
    ema: float | None = None
    file: Path | None = None  # the checkpoint

    def record(self) -> dict[str, Any]:
        """Return the entries of result.json."""
        return {
            "source": self.source,
            "test_checkpoint": self.checkpoint,
            "params": self.cost.params,
            "macs": self.cost.macs,
            **({} if self.ema is None else {"ema": self.ema}),
        }


def load_trained_model(config: instantiate.Config) -> LoadedModel:
    """Load the network of `run=DIR` with `task.checkpoint`, or that of the configuration with `model.weights`.

    checkpoint: best or last; null is the one that the run itself tested.
    Raises ValueError: neither run nor weights, no such checkpoint, one of another network, or weights not finite.
    """
    trained = _from_weights(config) if config["run"] is None else _of_run(config)
    if names := non_finite_weights(trained.network):
        where = f"{trained.source} ({trained.checkpoint})" if trained.checkpoint else f"model.weights={trained.source}"
        raise ValueError(f"{where}: weights must be finite, got NaN or infinity ({', '.join(names[:3])})")
    return trained


def _of_run(config: instantiate.Config) -> LoadedModel:
    run, chosen = RunDirectory(Path(config["run"])), config["task"]["checkpoint"]
    if chosen not in ("best", "last", None):
        raise ValueError(f"task.checkpoint={chosen}: must be best, last or null")
    path = find_tested_checkpoint(run, "run") if chosen is None else run.path / "checkpoints" / f"{chosen}.ckpt"
    check_normalisation(run, config)
    built = instantiate.build_network(config)
    content = read_checkpoint(path)
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path}: must hold a state_dict")
    state = {name: value for name, value in state.items() if name.startswith("network.")}  # not those of a loss
    module = nn.ModuleDict({"network": built.network})  # as in a checkpoint
    check_match(module.state_dict(), state, path)
    module.load_state_dict(state)
    names, numbers = (tuple(content.get(key, ())) for key in ("class_names", "category_ids"))
    ema = run.read_config("run")["callbacks"].get("ema")
    return LoadedModel(
        built.network, built.cost, str(run.path), path.stem, names, numbers, built.backbone_macs, ema, path
    )


def _from_weights(config: instantiate.Config) -> LoadedModel:
    task, source = config["task"]["name"], config["model"].get("weights")
    if source is None:
        raise ValueError(f"task={task}: needs run=DIR, an earlier run's directory, or model.weights=...")
    if config["task"].get("checkpoint") is not None:
        raise ValueError(f"task.checkpoint={config['task']['checkpoint']}: needs run=DIR, not model.weights")
    built = instantiate.build_network(config)
    file = find_weights_file(str(source), weights_folder(config))
    of_head = file.suffix == ".ckpt" and not config["model"].get("reset_head")
    content = read_checkpoint(file) if of_head else {}
    names, numbers = (tuple(content.get(key, ())) for key in ("class_names", "category_ids"))
    return LoadedModel(built.network, built.cost, str(source), class_names=names, category_ids=numbers)


def build_classification_data(config: instantiate.Config) -> ClassificationDataModule | ThirdPartyDataModule:
    """Build the datamodule of a classifier; nothing is read yet.

    Raises ValueError: a detector's data.
    """
    datamodule = instantiate.build_datamodule(config)
    if not isinstance(datamodule, ClassificationDataModule | ThirdPartyDataModule):
        raise ValueError(f"task={config['task']['name']}: needs a classifier, got a detector")
    return datamodule


def set_up_test(datamodule: pl.LightningDataModule) -> None:
    """Download and read the data of a test, as a Trainer does."""
    datamodule.prepare_data()
    datamodule.setup("test")


def inference_device(config: instantiate.Config) -> torch.device:
    """Return the device of a single-process task: the GPU, if there is one and trainer.accelerator is not cpu.

    With `trainer.devices=[2]` it is that GPU.
    """
    if not torch.cuda.is_available() or config["trainer"]["accelerator"] == "cpu":
        return torch.device("cpu")
    devices = config["trainer"]["devices"]
    return torch.device("cuda", devices[0] if isinstance(devices, list) else 0)
