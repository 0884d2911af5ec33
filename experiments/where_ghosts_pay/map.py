"""Where ghost modules are faster than the 3x3 convolution that they replace: channels x resolution x s x d.

    python experiments/where_ghosts_pay/map.py --threads 1                 # five minutes on one core
    python experiments/where_ghosts_pay/map.py --name gpu                  # on a GPU, if there is one
    python experiments/where_ghosts_pay/map.py --precision bf16-mixed --threads 1 --name bf16
    python experiments/where_ghosts_pay/map.py --threads 1 --rounds 3 --ratios 2 --dw-sizes 3 --name look

Layers have as many input as output channels, and BatchNorm and ReLU behind them; a batch has as many images as fill
`--pixels`, so that all layers of one number of channels have equally many MACs. The forms of a layer are timed in
turn, in training (forward and backward) and in inference (forward, BatchNorm folded into the convolution). On one
thread, times are those of the processor, which other work on the machine changes less. Writes NAME.csv and NAME.png
beside this file, or into --output.
"""

import argparse
import csv
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.image import AxesImage
from torch import nn

from ghostexp.analysis.conv_layers import ConvLayer
from ghostexp.analysis.placement import LayerForm, Setting, measure_layers
from ghostexp.report.plot_style import literal_text, new_figure, save
from ghostexp.runs.provenance import cpu

HERE = Path(__file__).parent
MODES = {"training": True, "inference": False}
SCALE = (0.33, 0.5, 0.75, 1, 1.33, 2, 3)  # of the colours
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def main() -> None:
    """Measure all layers, write the table and the plot."""
    arguments = parse()
    torch.manual_seed(0)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)  # before the measurement
    path = arguments.output / f"{arguments.name}.csv"
    rows = []
    for channels in arguments.channels:
        for mode, training in MODES.items():
            rows += measure(channels, mode, training, arguments)
            print(f"{channels} channels, {mode}: {summary(rows, channels, mode)}", flush=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, describe(arguments), path.with_suffix(".png"))
    print(describe(arguments), f"outputs: {path}", sep="\n")


def parse() -> SimpleNamespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--sides", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--ratios", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--dw-sizes", type=int, nargs="+", default=[3, 5])
    parser.add_argument(
        "--pixels", type=int, help="images x side x side of a batch; by default 8,192, on a GPU 1,048,576"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=AUTOCAST, default="32-true")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--channels-first", action="store_true", help="instead of channels_last")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--name", default="map")
    parser.add_argument("--output", type=Path, default=HERE)
    found = SimpleNamespace(**vars(parser.parse_args()))
    if found.accelerator == "gpu" and not torch.cuda.is_available():
        parser.error("--accelerator gpu: torch finds no GPU")
    is_gpu = found.accelerator != "cpu" and torch.cuda.is_available()
    found.device = torch.device("cuda" if is_gpu else "cpu")
    found.pixels = found.pixels or (2**20 if is_gpu else 2**13)
    return found


def measure(channels: int, mode: str, training: bool, arguments: SimpleNamespace) -> list[dict]:
    """Measure the layers of one number of channels at all resolutions."""
    sizes = [(ratio, dw_size) for ratio in arguments.ratios for dw_size in arguments.dw_sizes]
    rows = []
    for side in arguments.sides:
        batch = max(1, arguments.pixels // side**2)
        forms = measure_layers([layer(channels, side)], sizes, setting(batch, training, arguments), arguments.rounds)
        rows += [row(form, channels, side, batch, mode) for form in forms["conv"]]
    return rows


def layer(channels: int, side: int) -> ConvLayer:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    after = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return ConvLayer("conv", conv, (channels, side, side), side * side, is_first=False, after=after)


def setting(batch: int, training: bool, arguments: SimpleNamespace) -> Setting:
    layout = torch.contiguous_format if arguments.channels_first else torch.channels_last
    dtype, device = AUTOCAST[arguments.precision], arguments.device

    def prepare(module: nn.Module) -> nn.Module:
        return module.to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]

    def autocast() -> torch.autocast | nullcontext:
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

    return Setting(batch, training, device, torch.float32, not arguments.channels_first, prepare, autocast)


def row(form: LayerForm, channels: int, side: int, batch: int, mode: str) -> dict:
    return {
        "mode": mode,
        "channels": channels,
        "side": side,
        "batch": batch,
        "ratio": form.ratio,
        "dw_size": form.dw_size,
        "params": form.params,
        "macs": form.macs,
        "ms": round(form.ms, 4),
        "speedup": round(form.speedup, 3),
        "speedup_low": round(form.speedup_low, 3),
        "speedup_high": round(form.speedup_high, 3),
    }


def summary(rows: list[dict], channels: int, mode: str) -> str:
    found = [row["speedup"] for row in rows if (row["channels"], row["mode"]) == (channels, mode) and row["ratio"] > 1]
    return f"{min(found):.2f} to {max(found):.2f} times as fast as the convolution"


def describe(arguments: SimpleNamespace) -> str:
    is_gpu = arguments.device.type == "cuda"
    threads = torch.get_num_threads()
    machine = torch.cuda.get_device_name() if is_gpu else f"{cpu()}, {threads} thread{'s'[: threads > 1]}"
    layout = "" if arguments.channels_first else ", channels_last"
    return (
        f"{machine}, {arguments.precision}{layout}, batches of {arguments.pixels:,} pixels, torch {torch.__version__}"
    )


@literal_text
def draw(rows: list[dict], machine: str, path: Path) -> None:
    """Draw a map for each ratio, dw_size and mode: speed-up by channels and resolution."""
    forms = list(dict.fromkeys((row["ratio"], row["dw_size"]) for row in rows if row["ratio"] > 1))
    figure = new_figure(2.3 + 2.35 * len(forms), 5.9)
    axes = figure.subplots(len(MODES), len(forms), sharex=True, sharey=True, squeeze=False)
    image: AxesImage | None = None
    for line, mode in zip(axes, MODES, strict=True):
        for axis, form in zip(line, forms, strict=True):
            chosen = [row for row in rows if (row["mode"], row["ratio"], row["dw_size"]) == (mode, *form)]
            image = heat_map(axis, chosen)
            if mode == next(iter(MODES)):
                axis.set_title(f"s = {form[0]}, d = {form[1]}", fontsize=10)
        line[0].set_ylabel(f"{mode}\nchannels")
    for axis in axes[-1]:
        axis.set_xlabel("side of the map, pixels")
    assert image is not None
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01, extend="both")
    bar.set_ticks(np.log2(SCALE).tolist(), labels=[f"{value:g}" for value in SCALE])
    bar.set_label("times as fast as the 3x3 convolution\n(ghosts pay above 1)")
    save(figure, f"Where ghost modules pay: time of a 3x3 convolution over that of its ghost module\n{machine}", path)


def heat_map(axis: Axes, rows: list[dict]) -> AxesImage:
    """Draw the speed-ups as colours and numbers; light is 1, and numbers below it are in italics."""
    channels, sides = (sorted({row[key] for row in rows}) for key in ("channels", "side"))
    values = np.full((len(channels), len(sides)), np.nan)
    for one in rows:
        values[channels.index(one["channels"]), sides.index(one["side"])] = one["speedup"]
    norm = CenteredNorm(0, np.log2(SCALE[-1]))  # twice as fast and twice as slow are equally dark
    image = axis.imshow(np.log2(values), cmap="PuOr", norm=norm, origin="lower", aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        pays = value >= 1
        shade = "white" if abs(norm(np.log2(value)) - 0.5) > 0.33 else "black"
        weight = "bold" if pays else "normal"
        style = "normal" if pays else "italic"
        axis.text(x, y, f"{value:.2f}", ha="center", va="center", color=shade, weight=weight, style=style, fontsize=8)
    axis.set_xticks(range(len(sides)), [str(side) for side in sides])
    axis.set_yticks(range(len(channels)), [str(count) for count in channels])
    return image


if __name__ == "__main__":
    main()
