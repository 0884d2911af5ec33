"""Measure what a network costs and how fast it is; no data are read."""

import copy
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim.swa_utils import update_bn

from ghostexp.analysis.cost import Shape, count
from ghostexp.analysis.detector_time import part_times
from ghostexp.analysis.latency import Latency, form_of, measure, time_shares
from ghostexp.analysis.layer_cost import Layer, layers
from ghostexp.analysis.memory import peak_memory
from ghostexp.models.contract import Network
from ghostexp.models.detection import DetectionNetwork
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.provenance import cpu
from ghostexp.runs.table import write_rows
from ghostexp.tasks import build
from ghostexp.tasks.profile_tables import show_detector, show_profile
from ghostexp.tasks.savings import note_savings
from ghostexp.tasks.trained import inference_device, trained_network


def run(config: build.Config, directory: RunDirectory) -> dict[str, Any]:
    """Profile the network of the configuration or of `run=DIR`; writes layers.csv and latency.csv.

    Raises ValueError: batches, rounds or forms that cannot be, or a form that does not work on this machine.
    """
    task = config["task"]
    for key, values in (("batches", task["batches"]), ("rounds", [task["rounds"]])):
        if not values or not all(type(value) is int and value >= 1 for value in values):
            raise ValueError(f"task.{key}={task[key]}: whole numbers >= 1 are needed")
    shape = _shape(config)
    network, macs = _network(config, shape, directory)
    rows = layers(network, shape)
    write_rows(directory.path / "layers.csv", [asdict(row) for row in rows])
    if isinstance(network, DetectionNetwork):
        return _detector(network, macs, config, rows, directory)
    if not isinstance(network, Network):
        raise ValueError(f"model: {type(network).__name__} is none of this project's networks")
    latencies = _latencies(network, shape, config)
    write_rows(directory.path / "latency.csv", [asdict(latency) for latency in latencies])
    device = inference_device(config)
    images = torch.randn(1, *shape, device=device)
    result = _costs(network, shape, rows) | {
        "shares": time_shares(network.to(device), images, task["rounds"]),
        "latency": [asdict(latency) for latency in latencies],
        **_place(config),
    }
    show_profile(result, rows, latencies, task, directory)
    return result


def _detector(
    network: DetectionNetwork, macs: int | None, config: build.Config, rows: list[Layer], directory: RunDirectory
) -> dict[str, Any]:
    """What a detector costs: all of it on one image of the data's size, its whole backbone as the papers count it."""
    task, shape, device = config["task"], _shape(config), inference_device(config)
    network = network.to(device)
    times = [
        {"batch": batch, **part_times(network, torch.randn(batch, *shape, device=device), task["rounds"])}
        for batch in task["batches"]
    ]
    write_rows(directory.path / "latency.csv", times)
    result = _costs(network, shape, rows) | {"backbone_macs": macs, "parts_ms": times} | _place(config)
    show_detector(result, rows, task, directory)
    return result


def _shape(config: build.Config) -> Shape:
    data = config["datamodule"]
    return data["in_chans"], data["image_size"], data["image_size"]


def _place(config: build.Config) -> dict[str, Any]:
    """On what it was measured, and on images of which shape."""
    device = inference_device(config)
    return {
        "image": list(_shape(config)),
        "accelerator": device.type,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu(),
        "threads": torch.get_num_threads(),
    }


def _network(config: build.Config, shape: Shape, directory: RunDirectory) -> tuple[nn.Module, int | None]:
    """The network with its weights, and a detector's backbone's MACs; drawn ones get the statistics of noise."""
    plain = config | {"channels_last": False, "compile": False}  # which are forms here
    if config["run"] is not None:
        trained = trained_network(plain)
        return trained.network, trained.backbone_macs
    built = build.network_of(plain)
    note_savings(built, config, directory)
    network = built.network
    if built.weights is None:
        # With BatchNorm's initial statistics, maps would grow from block to block until every gate is shut or open.
        update_bn([torch.randn(8, *shape)], network.backbone if isinstance(network, DetectionNetwork) else network)
    return network, built.backbone_macs


def _latencies(network: Network, shape: Shape, config: build.Config) -> list[Latency]:
    """All forms at all batch sizes; the eager form is always there, for the others are compared with it."""
    task, device = config["task"], inference_device(config)
    forms = {name: form_of(network, name, device) for name in dict.fromkeys(["eager", *task["forms"]])}
    torch.manual_seed(config["seed"])
    try:
        return [
            latency
            for batch in task["batches"]
            for latency in measure(forms, torch.randn(batch, *shape, device=device), task["rounds"])
        ]
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"task.forms={','.join(forms)}: torch.compile does not work here ({reason})") from error


def _costs(network: Network | DetectionNetwork, shape: Shape, rows: list[Layer]) -> dict[str, Any]:
    """What does not depend on the machine; deployed: without the branches that only training needs."""
    deployed = copy.deepcopy(network)
    deployed.reparameterize()
    cost, cost_deployed = count(network, shape), count(deployed, shape)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "params_deployed": cost_deployed.params,
        "macs_deployed": cost_deployed.macs,
        "macs_primary": sum(row.macs for row in rows if row.part == "primary"),
        "macs_cheap": sum(row.macs for row in rows if row.part == "cheap"),
        "activations": sum(row.activations for row in rows),
        "peak_bytes": peak_memory(network, shape),
        "flops": 2 * cost.macs,
        "thop": sum(row.thop for row in rows),
    }
