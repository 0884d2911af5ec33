"""Time training steps of a planned network: python experiments/where_ghosts_pay/planned.py resnet56 PLAN.yaml

Forward and backward over a batch of 32 x 32 in float32 and bfloat16, eager and compiled, in turn with the ordinary
network and with ghosts everywhere (s = 2).
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ghostexp
from ghostexp.analysis.timing import alternate, quiet_clock
from ghostexp.runs.provenance import cpu
from ghostexp.runs.text_files import markdown_table


def main() -> None:
    """Print a table of speed-ups over the ordinary network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("plan")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(arguments.batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    networks = {
        "ordinary": ghostexp.create_model(arguments.network, num_classes=10),
        "ghosts everywhere": ghostexp.create_model(f"ghost_{arguments.network}", num_classes=10),
        "planned": ghostexp.create_model(arguments.network, num_classes=10, plan=arguments.plan),
    }
    rows = []
    for precision in (torch.float32, torch.bfloat16):
        for is_compiled in (False, True):
            steps = {
                name: training_step(network.to(device), images, precision, is_compiled)
                for name, network in networks.items()
            }
            samples = alternate(steps, arguments.rounds, device, clock=quiet_clock())
            row = [f"{precision}".removeprefix("torch."), "compiled" if is_compiled else "eager"]
            rows.append([*row, f"{statistics.median(samples['ordinary']):.0f}", *speedups(samples)])
    print(f"{cpu()}, threads: {arguments.threads}, torch {torch.__version__}, batch {arguments.batch}\n")
    print(markdown_table(["precision", "mode", "ordinary, ms", "ghosts everywhere", "planned"], rows))


def training_step(network: nn.Module, images: Tensor, precision: torch.dtype, is_compiled: bool) -> Callable[[], None]:
    """Return forward and backward of a network."""
    torch.compiler.reset()
    network.to(memory_format=torch.channels_last)
    called = torch.compile(network) if is_compiled else network
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def step() -> None:
        network.zero_grad()
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            loss = F.cross_entropy(called(images), labels)
        loss.backward()

    return step


def speedups(samples: dict[str, list[float]]) -> list[str]:
    """Return for each other network how many times as fast it is as the ordinary one, with quartiles."""
    texts = []
    for name in list(samples)[1:]:
        ratios = [one / other for one, other in zip(samples["ordinary"], samples[name], strict=True)]
        low, median, high = statistics.quantiles(ratios)
        texts.append(f"{median:.2f} ({low:.2f} to {high:.2f})")
    return texts


if __name__ == "__main__":
    main()
