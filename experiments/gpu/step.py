"""Time a training step in every setting: network x memory format x precision x compile mode x batch size.

    python experiments/gpu/step.py gpu steps.csv
    python experiments/gpu/step.py cpu steps.csv --short

A bare loop with this project's networks and SGD. On a GPU the milliseconds are those between two events, and a profile
of three steps counts the kernels and the fraction of the time in which one runs.
"""

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ghostexp.models.ghostify import ghostify
from ghostexp.models.ghostnet import ghostnet
from ghostexp.models.resnet_cifar import resnet56
from ghostexp.tasks.common.acceleration import allow_tf32

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ghost_resnet56": (lambda: ghostify(resnet56(), ratio=2, dw_size=3), 32),
    "resnet56": (resnet56, 32),
    "ghostnet": (lambda: ghostnet(num_classes=10), 224),
}


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    network: str
    channels_last: bool = False
    precision: str = "tf32"
    compile: str = "false"
    batch: int = 128
    benchmark: bool = False

    @property
    def text(self) -> str:
        """Describe all but the network."""
        layout = "channels_last" if self.channels_last else "contiguous"
        more = [f"compile={self.compile}"] * (self.compile != "false") + ["benchmark"] * self.benchmark
        return " ".join([layout, self.precision, f"batch {self.batch}", *more])


def settings(is_short: bool) -> list[Setting]:
    """List the settings, the most important ones first."""
    eager = [
        Setting(network, channels_last, precision)
        for network in NETWORKS
        for channels_last in (False, True)
        for precision in ("tf32", "bf16")
    ]
    if is_short:
        return [Setting("ghost_resnet56", False, "tf32", batch=4), Setting("ghost_resnet56", True, "bf16", batch=4)]
    more = [Setting("ghost_resnet56", precision="float32"), Setting("ghost_resnet56", benchmark=True)]
    more += [
        Setting("ghost_resnet56", channels_last, precision, mode, batch)
        for mode in ("default", "reduce-overhead")
        for channels_last, precision, batch in ((False, "tf32", 128), (False, "bf16", 128), (False, "bf16", 512))
    ]
    return eager + more


def build_step(setting: Setting, device: torch.device) -> Callable[[], None]:
    """Build a training step on random images."""
    build, size = NETWORKS[setting.network]
    allow_tf32(setting.precision != "float32")
    torch.backends.cudnn.benchmark = setting.benchmark
    torch.manual_seed(0)
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = build().to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    if setting.compile != "false":
        network.compile(mode=setting.compile, dynamic=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    images = torch.randn(setting.batch, 3, size, size, device=device).to(memory_format=layout)
    targets = torch.randint(10, (setting.batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bf16"):
            logits: Tensor = network(images)
        F.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def milliseconds(step: Callable[[], None], device: torch.device, steps: int) -> float:
    """Time steps after a warm-up."""
    for _ in range(5 if device.type == "cuda" else 1):
        step()
    if device.type != "cuda":
        clock = time.perf_counter()
        for _ in range(steps):
            step()
        return 1000 * (time.perf_counter() - clock) / steps
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(steps):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / steps


def kernels(step: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Return the kernels of a step and their milliseconds; nothing is counted on a CPU."""
    if device.type != "cuda":
        return 0.0, 0.0
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for _ in range(3):
            step()
        torch.cuda.synchronize(device)
    events = [event for event in profiled.events() or () if event.device_type.name == "CUDA"]
    return len(events) / 3, sum(event.self_device_time_total for event in events) / 3000


def main() -> None:
    """Print and write a row for each setting; a setting that fails is one too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("accelerator", choices=["gpu", "cpu"])
    parser.add_argument("table", type=Path)
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    device = torch.device("cuda" if given.accelerator == "gpu" else "cpu")
    columns = ("network", "setting", "ms", "ms_per_image", "kernels", "busy_ms", "error")
    print(
        "| network | setting | ms a step | images/s | kernels | GPU busy, ms |\n| --- | --- | --- | --- | --- | --- |"
    )
    with given.table.open("w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, columns)
        writer.writeheader()
        for setting in settings(given.short):
            try:
                step = build_step(setting, device)
                ms = milliseconds(step, device, 2 if given.short else 30)
                count, busy = kernels(step, device)
            except Exception as error:
                message = " ".join(str(error).split())[:200]
                writer.writerow(
                    {"network": setting.network, "setting": setting.text, "ms_per_image": "inf", "error": message}
                )
                print(f"| {setting.network} | {setting.text} | FAILED: {message} | | | |", flush=True)
                continue
            row = {"network": setting.network, "setting": setting.text, "ms": ms, "ms_per_image": ms / setting.batch}
            writer.writerow(row | {"kernels": count, "busy_ms": busy, "error": ""})
            file.flush()
            rate = 1000 * setting.batch / ms
            print(
                f"| {setting.network} | {setting.text} | {ms:.2f} | {rate:,.0f} | {count:.0f} | {busy:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
