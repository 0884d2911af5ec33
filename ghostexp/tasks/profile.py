"""Measure a network's cost and latency; no data are read."""

import copy
from dataclasses import asdict
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch.optim.swa_utils import update_bn

from ghostexp.analysis.cost import LayerCost, Shape, count_cost, layer_costs, peak_memory
from ghostexp.analysis.latency import Latency, benchmark_modes, build_modes, module_latency, time_fractions
from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_network import image_shape, is_detector
from ghostexp.tasks.common.load_model import inference_device, load_trained_model
from ghostexp.tasks.common.profile_tables import show_detector, show_profile
from ghostexp.tasks.common.summary import device_info, write_ghostify_report

FAST = "fused+channels_last"
MODES = ["eager", "channels_last", "bf16+channels_last", "compiled", "fused", FAST, f"{FAST}+compiled"]


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Profile the network of the configuration or of `run=DIR`; writes layers.csv and latency.csv.

    Raises ValueError: invalid batch sizes or modes, or a mode that does not work on this machine.
    """
    given = config["task"]["modes"]
    modes = MODES if given is None else _as_list(given)
    if given is not None and any(mode != "eager" for mode in modes) and is_detector(config["model"]):
        raise ValueError(
            f"task.modes={','.join(map(str, modes))}: must be eager, or null, for a detector, timed by module"
        )
    task = config["task"] | {"modes": modes, "batch_sizes": _as_list(config["task"]["batch_sizes"])}
    if not task["batch_sizes"] or not all(type(size) is int and size >= 1 for size in task["batch_sizes"]):
        raise ValueError(
            f"task.batch_sizes={config['task']['batch_sizes']}: must be an integer >= 1, or a list of such"
        )
    config = config | {"task": task}
    shape = image_shape(config)
    network, macs = _network(config, shape, directory)
    rows = layer_costs(network, shape)
    write_rows(directory.path / "layers.csv", [asdict(row) for row in rows])
    if isinstance(network, DetectionModel):
        return _detector(network, macs, config, rows, directory)
    latencies = _latencies(network, shape, config)
    write_rows(directory.path / "latency.csv", [asdict(latency) for latency in latencies])
    device = inference_device(config)
    images = torch.randn(1, *shape, device=device)
    result = _costs(network, shape, rows) | {
        "time_fractions": time_fractions(network.to(device), images, task["repeats"]),
        "latency": [asdict(latency) for latency in latencies],
        **_hardware_info(config),
    }
    show_profile(result, rows, latencies, task, directory)
    return result


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _detector(
    network: DetectionModel,
    macs: int | None,
    config: instantiate.Config,
    rows: list[LayerCost],
    directory: RunDirectory,
) -> dict[str, Any]:
    """Profile a detector on one image of the data's size; its backbone's MACs are counted as in the papers."""
    task, shape, device = config["task"], image_shape(config), inference_device(config)
    network = network.to(device)
    times = [
        {"batch": batch, **module_latency(network, torch.randn(batch, *shape, device=device), task["repeats"])}
        for batch in task["batch_sizes"]
    ]
    write_rows(directory.path / "latency.csv", times)
    result = _costs(network, shape, rows) | {"backbone_macs": macs, "module_ms": times} | _hardware_info(config)
    show_detector(result, rows, task, directory)
    return result


def _hardware_info(config: instantiate.Config) -> dict[str, Any]:
    """Describe the hardware and the shape of the images."""
    device = inference_device(config)
    return {
        "image": list(image_shape(config)),
        "accelerator": device.type,
        **device_info(device),
    }


def _network(
    config: instantiate.Config, shape: Shape, directory: RunDirectory
) -> tuple[Network | DetectionModel, int | None]:
    """Load or build the network; returns it and the MACs of a detector's backbone.

    A randomly initialised network gets BatchNorm statistics of noise.
    """
    plain = config | {"channels_last": False, "compile": False, "tf32": False}  # modes of their own; float32 is exact
    if config["run"] is not None:
        trained = load_trained_model(plain)
        return trained.network, trained.backbone_macs
    built = instantiate.build_network(plain)
    write_ghostify_report(built, config, directory)
    network = built.network
    if built.weights is None:
        # With BatchNorm's initial statistics, feature maps would grow from block to block until all gates saturate.
        network.requires_grad_(True)  # a detector's frozen BatchNorms would keep the initial ones too
        update_bn([torch.randn(8, *shape)], network.backbone if isinstance(network, DetectionModel) else network)
    return network, built.backbone_macs


def _latencies(network: Network, shape: Shape, config: instantiate.Config) -> list[Latency]:
    """Measure all modes at all batch sizes, always including eager, the reference of the others."""
    task, device = config["task"], inference_device(config)
    modes = build_modes(network, list(dict.fromkeys(["eager", *task["modes"]])), shape, device)
    torch.manual_seed(config["seed"])
    try:
        return [
            latency
            for batch in task["batch_sizes"]
            for latency in benchmark_modes(modes, torch.randn(batch, *shape, device=device), task["repeats"])
        ]
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"task.modes={','.join(modes)}: torch.compile does not work here ({reason})") from error


def _costs(network: Network | DetectionModel, shape: Shape, rows: list[LayerCost]) -> dict[str, Any]:
    """Count what does not depend on the machine; deployed: training-only branches fused."""
    deployed = copy.deepcopy(network)
    deployed.reparameterize()
    cost, cost_deployed = count_cost(network, shape), count_cost(deployed, shape)
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
