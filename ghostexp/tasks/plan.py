"""Measure each convolution of a network as it is and as a ghost module, and write the best plan of ghost modules."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim.swa_utils import update_bn

from ghostexp.analysis.conv_layers import ConvLayer, find_conv_layers
from ghostexp.analysis.cost import Shape, count_cost
from ghostexp.analysis.placement import LayerForm, NetworkTime, Setting, measure_layers, measure_networks
from ghostexp.analysis.plan_search import choose_forms, predict_ms
from ghostexp.models.base import Network
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.fuse import fuse
from ghostexp.models.ghost_module import GhostModule
from ghostexp.models.plan import apply_plan
from ghostexp.report.plan_report import draw_plan, plan_page
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_atomically
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.build_network import image_shape
from ghostexp.tasks.common.measure_setting import build_setting, describe_setting
from ghostexp.tasks.common.summary import device_info

Chosen = dict[str, LayerForm]
Forms = dict[str, list[LayerForm]]


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Write plan.yaml, layers.csv, networks.csv, plan.png and README.md; with `model.plan` measure that plan.

    Raises ValueError: a detector, no convolution to replace, or a time that no plan reaches.
    """
    task, sizes = config["task"], ghost_sizes(config["task"])
    if task["goal"] == "fastest" and task["time_budget"] != 1:
        raise ValueError(f"task.time_budget={task['time_budget']}: needs task.goal=fewest_macs or most_macs")
    network, given = _ordinary_network(config)
    shape = image_shape(config)
    setting = build_setting(config)
    layers = find_conv_layers(network, shape)
    if not layers:
        raise ValueError(
            f"model: {type(network).__name__} has no convolution outside ghost modules that could become one; "
            "use the ordinary network, such as model=resnet56"
        )
    wanted = _sizes_of_plan(network, given, layers) if given is not None else {}
    forms = measure_layers(layers, list(dict.fromkeys([*sizes, *wanted.values()])), setting, task["repeats"])
    if given is not None:
        chosen = {name: _form(of, wanted.get(name, (1, 1))) for name, of in forms.items()}
        plan = given
    else:
        chosen = _choose(network, forms, config, shape, setting)
        name = config["model"].get("name") or config["choices"]["model"]  # of a library's network, or ours
        plan = as_plan(chosen, f"{name} {task['goal']}")
    everywhere = {name: _form(of, sizes[0]) for name, of in forms.items()}
    variants = {"ordinary": {}, "ghosts everywhere": everywhere, "planned": chosen}
    times = _measure(network, variants, shape, setting, task["repeats"])
    predicted = [times[0].ms / predict_ms(choice, forms, times[0].ms) for choice in variants.values()]
    return _write(config, directory, plan, forms, chosen, times, predicted)


def ghost_sizes(task: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the combinations of ratio and dw_size of `task.ratios` and `task.dw_sizes`.

    Raises ValueError: a ratio below 2, or an even dw_size.
    """
    listed = {key: task[key] if isinstance(task[key], list) else [task[key]] for key in ("ratios", "dw_sizes")}
    for key, least, needed in (("ratios", 2, "an integer >= 2"), ("dw_sizes", 1, "an odd integer >= 1")):
        for value in listed[key] or [None]:
            if type(value) is not int or value < least or (key == "dw_sizes" and value % 2 == 0):
                raise ValueError(f"task.{key}={task[key]}: must be {needed}, or a list of such")
    return [(ratio, dw_size) for ratio in listed["ratios"] for dw_size in listed["dw_sizes"]]


def as_plan(chosen: Chosen, name: str) -> dict[str, Any]:
    """Return a plan for `model.plan`; layers without ghosts are left out."""
    ghosts = {layer: form for layer, form in chosen.items() if form.ratio > 1}
    return {
        "name": name,
        "layers": {layer: {"ratio": form.ratio, "dw_size": form.dw_size} for layer, form in ghosts.items()},
    }


def _ordinary_network(config: instantiate.Config) -> tuple[Network, dict[str, Any] | None]:
    """Build the network without `model.plan`, and return the plan too."""
    plan = config["model"].get("plan")
    plain = config | {"model": {**config["model"], "plan": None}, "channels_last": False, "compile": False}
    network = instantiate.build_network(plain, is_resumed=True).network  # weights do not change its time
    if isinstance(network, DetectionModel):
        raise ValueError("task=plan: needs a classifier; a plan of one is that of a detector's model.backbone.plan")
    return network, plan


def _sizes_of_plan(network: Network, plan: dict[str, Any], layers: Sequence[ConvLayer]) -> dict[str, tuple[int, int]]:
    """Return ratio and dw_size of the layers that a plan replaces."""
    planned = apply_plan(copy.deepcopy(network), plan)
    found = {}
    for layer in layers:
        module = planned.get_submodule(layer.name)
        if isinstance(module, GhostModule):
            found[layer.name] = module.ratio, module.dw_size
    return found


def _form(forms: list[LayerForm], size: tuple[int, int]) -> LayerForm:
    """Return the form of a size, or the ordinary one where there is none."""
    return next((form for form in forms if (form.ratio, form.dw_size) == size), forms[0])


def _choose(network: Network, forms: Forms, config: instantiate.Config, shape: Shape, setting: Setting) -> Chosen:
    task = config["task"]
    if task["goal"] == "fastest":
        return choose_forms(forms, "fastest")
    (ordinary,) = _measure(network, {"ordinary": {}}, shape, setting, task["repeats"])
    try:
        return choose_forms(forms, task["goal"], (1 - task["time_budget"]) * ordinary.ms)
    except ValueError as error:
        raise ValueError(
            f"task.time_budget={task['time_budget']}: no plan is that fast; the best one {error}"
        ) from error


def _measure(
    network: Network, variants: dict[str, Chosen], shape: Shape, setting: Setting, rounds: int
) -> list[NetworkTime]:
    """Measure the network with each choice of forms, in turn."""
    built: dict[str, nn.Module] = {}
    costs = []
    for name, chosen in variants.items():
        variant = apply_plan(copy.deepcopy(network), as_plan(chosen, name))
        update_bn([torch.randn(8, *shape)], variant)
        costs.append(count_cost(variant, shape))
        built[name] = variant if setting.training else fuse(variant, shape)
    times = measure_networks(built, shape, setting, rounds)
    return [replace(time, params=cost.params, macs=cost.macs) for time, cost in zip(times, costs, strict=True)]


def _command(config: instantiate.Config, directory: RunDirectory) -> str:
    """Return the command that trains by the plan: that of this run, or of the one whose model it plans."""
    file = Path(config["run"] or directory.path) / ".hydra" / "overrides.yaml"
    typed = yaml.safe_load(file.read_bytes()) if file.is_file() else [f"model={config['choices']['model']}"]
    kept = [text for text in typed if not text.lstrip("+").startswith(("task", "model.plan=", "compile="))]
    return directory.command(*kept, f"model.plan={directory.path / 'plan.yaml'}")


def _write(
    config: instantiate.Config,
    directory: RunDirectory,
    plan: dict[str, Any],
    forms: Forms,
    chosen: Chosen,
    times: Sequence[NetworkTime],
    predicted: Sequence[float],
) -> dict[str, Any]:
    """Write the outputs, print the page's table of networks, and return the entries of result.json."""
    info = device_info(build_setting(config).device)
    setting = describe_setting(config, info)
    rows = [
        {**asdict(form), "pays": form.pays, "planned": form is chosen[name]}
        for name, of in forms.items()
        for form in of
    ]
    networks = [
        {**asdict(time), "predicted_speedup": value, "error_percent": 100 * (value / time.speedup - 1)}
        for time, value in zip(times, predicted, strict=True)
    ]
    write_rows(directory.path / "layers.csv", rows)
    write_rows(directory.path / "networks.csv", networks)
    title = str(plan.get("name", "plan"))
    text = yaml.safe_dump(plan, sort_keys=False)
    write_atomically(directory.path / "plan.yaml", f"# {setting}\n{text}")
    draw_plan(rows, f"{title}: {setting}", directory.path / "plan.png")
    page = plan_page(title, setting, rows, networks, _command(config, directory))
    write_atomically(directory.path / "README.md", page)
    print(page, f"outputs: {directory.path}", sep="\n")
    return {"plan": plan, "networks": networks, "layers": rows, **info}
