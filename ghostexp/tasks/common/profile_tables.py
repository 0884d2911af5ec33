"""Print the tables of `task=profile`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ghostexp.analysis.cost import LayerCost
from ghostexp.analysis.latency import DETECTOR_PARTS, Latency
from ghostexp.runs.directory import RunDirectory

HEADER = "MACs are multiply-accumulates of convolutions and linear layers, which the GhostNet papers call FLOPs."
TEXT = ("layer", "kind", "part", "output", "mode")  # left-justified columns


def show_profile(
    result: Mapping[str, Any],
    layers: Sequence[LayerCost],
    latencies: Sequence[Latency],
    task: Mapping[str, Any],
    run: RunDirectory,
) -> None:
    """Print the totals, the most expensive layers, and the latency of every mode."""
    console = Console(highlight=False, width=110)
    image = " x ".join(str(side) for side in result["image"])
    console.print(f"One image of {image}. {HEADER}", soft_wrap=True)
    for name, text in _totals(result, task["show_flops"]):
        console.print(f"{name:<11} {text}", soft_wrap=True)
    console.print(_layer_table(layers, task["top_layers"], result["macs"]))
    title = f"{result['hardware']}, {result['threads']} threads; median (quartiles) of {task['repeats']} repeats"
    console.print(_latency_table(latencies, title))
    console.print("difference: largest difference of a logit from eager, in standard deviations of the logits")
    console.print(f"outputs: {run.path}", soft_wrap=True)


def show_detector(
    result: Mapping[str, Any], layers: Sequence[LayerCost], task: Mapping[str, Any], run: RunDirectory
) -> None:
    """Print the totals of a detector, the most expensive layers, and the latency of its parts."""
    console = Console(highlight=False, width=110)
    image = " x ".join(str(side) for side in result["image"])
    console.print(f"One image of {image}. {HEADER}", soft_wrap=True)
    for name, text in _totals({**result, "time_fractions": {}}, task["show_flops"]):
        console.print(f"{name:<11} {text}", soft_wrap=True)
    backbone = f"{result['backbone_macs']:,}: the full backbone at 224 x 224, as in the papers"
    console.print(f"{'backbone':<11} {backbone}", soft_wrap=True)
    console.print(_layer_table(layers, task["top_layers"], result["macs"]))
    title = f"{result['hardware']}, {result['threads']} threads; ms, medians of {task['repeats']} repeats, eager"
    table = _table(title, "batch", *DETECTOR_PARTS, "total")
    for row in result["module_ms"]:
        table.add_row(str(row["batch"]), *(f"{row[part]:.1f}" for part in (*DETECTOR_PARTS, "total")))
    console.print(table)
    console.print(f"outputs: {run.path}", soft_wrap=True)


def _totals(result: Mapping[str, Any], show_flops: bool) -> list[tuple[str, str]]:
    rows = [("parameters", f"{result['params']:,}"), ("MACs", f"{result['macs']:,}")]
    if result["macs_deployed"] != result["macs"]:
        deployed = f"{result['params_deployed']:,} parameters, {result['macs_deployed']:,} MACs"
        rows.append(("deployed", f"{deployed}: training branches fused"))
    if show_flops:
        rows.append(("as FLOPs", f"{result['flops']:,}: 2 per MAC"))
        rows.append(("by thop", f"{result['thop']:,}: MACs, plus 4 per output element of BatchNorm"))
    rows.append(("activations", f"{result['activations']:,}: output elements of convolutions and linear layers"))
    rows.append(("memory", f"{result['peak_bytes'] / 2**20:.1f} MiB: peak of weights and feature maps, in float32"))
    for part, fraction in result["time_fractions"].items():
        macs = 100 * result[f"macs_{part}"] / result["macs"]
        rows.append((part, f"{100 * fraction:.0f} % of the time, {macs:.0f} % of the MACs (eager, batch 1)"))
    return rows


def _layer_table(layers: Sequence[LayerCost], top: int, macs: int) -> Table:
    largest = sorted(layers, key=lambda layer: layer.macs, reverse=True)[:top]
    columns = ("layer", "kind", "part", "output", "parameters", "MACs", "%")
    table = _table(f"the {len(largest)} layers with most MACs", *columns)
    for layer in largest:
        numbers = (f"{layer.params:,}", f"{layer.macs:,}", f"{100 * layer.macs / macs:.1f}")
        table.add_row(layer.name, layer.kind, layer.part, layer.output, *numbers)
    return table


def _latency_table(latencies: Sequence[Latency], title: str) -> Table:
    table = _table(title, "mode", "batch", "ms", "", "img/s", "x eager", "difference")
    for row in latencies:
        spread = f"({row.low_ms:.2f} to {row.high_ms:.2f})"
        numbers = (
            f"{row.median_ms:.2f}",
            spread,
            f"{row.images_per_second:,.0f}",
            f"{row.speedup:.2f}",
            f"{row.difference:.0e}",
        )
        table.add_row(row.mode, str(row.batch), *numbers)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=None, title_justify="left", title_style="", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXT else "right")
    return table
