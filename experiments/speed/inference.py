"""Inference of GhostNet 1.0x at 224 x 224: this project's modes and runtimes beside timm's network in eager mode.

    python experiments/speed/inference.py                 # five minutes on two cores, most of them compiling
    python experiments/speed/inference.py --threads 1 --rounds 61
    python experiments/speed/inference.py --runtimes      # by ONNX Runtime and OpenVINO too, as MobileNetV3-Large

All networks have the same weights, with random BatchNorm statistics and scales, so that folding is tested.
Each round times every mode once, so that other work on the machine affects all alike; "times timm" is the median of the
rounds' ratios, and so is "times MobileNetV3-L", by the same runtime and precision. The difference is the largest of a
logit from timm's, in standard deviations of those; int8 is calibrated on noise, which does not change its speed but its
difference. ONNX Runtime and OpenVINO have as many threads as torch.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import timm
import torch
from torch import Tensor, nn

from ghostexp.analysis.latency import InferenceMode, build_modes
from ghostexp.analysis.runtimes import RUNTIMES
from ghostexp.analysis.timing import alternate
from ghostexp.models.ghostnet import ghostnet
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.runs.provenance import cpu

SHAPE = (3, 224, 224)
TIMM, OTHER = "timm, eager", "MobileNetV3-L"
MODES = ("eager", "channels_last", "fused", "fused+channels_last", "fused+channels_last+compiled")


def main() -> None:
    """Measure and print a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--runtimes", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    theirs, ours = timm.create_model("ghostnet_100").eval(), ghostnet().eval()
    randomize_norms(theirs)
    ours.load_state_dict(theirs.state_dict())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modes = {TIMM: InferenceMode(theirs.to(device), torch.float32, torch.contiguous_format)}
    modes |= build_modes(ours, [*MODES, *(RUNTIMES if arguments.runtimes else ())], SHAPE, device)
    if arguments.runtimes:
        other = torchvision_network("mobilenet_v3_large").eval()
        randomize_norms(other)
        modes |= {f"{OTHER}, {name}": mode for name, mode in build_modes(other, RUNTIMES, SHAPE, device).items()}
    print(f"{cpu()}, {arguments.threads} threads, torch {torch.__version__}, medians of {arguments.rounds} rounds\n")
    for batch in arguments.batches:
        print(table(modes, torch.randn(batch, *SHAPE, device=device), arguments.rounds), flush=True)


@torch.inference_mode()
def table(modes: Mapping[str, InferenceMode], images: Tensor, rounds: int) -> str:
    """Time all modes on a batch of images (N, C, H, W) in turn, and return a table."""
    inputs = {name: mode.images(images) for name, mode in modes.items()}
    logits = {name: mode.network(inputs[name]).float() for name, mode in modes.items()}  # warms up, and compiles
    steps = {name: partial(mode.network, inputs[name]) for name, mode in modes.items()}
    samples = alternate(steps, rounds, images.device)
    head = f"batch {len(images)}", "ms (quartiles)", "img/s", "times timm", f"times {OTHER}", "difference"
    lines = [head, ["---"] * len(head)]
    for name, times in samples.items():
        low, median, high = np.percentile(times, (25, 50, 75))
        rate, spread = 1000 * len(images) / median, f"{median:.1f} ({low:.1f} to {high:.1f})"
        difference = (logits[name] - logits[TIMM]).abs().max() / logits[TIMM].std()
        ratios = [times_as_fast(samples, name, other) for other in (TIMM, f"{OTHER}, {name}")]
        lines.append([name, spread, f"{rate:.1f}", *ratios, "" if name.startswith(OTHER) else f"{difference:.0e}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def times_as_fast(samples: Mapping[str, Sequence[float]], name: str, other: str) -> str:
    """Return the median of the rounds' ratios, empty without the other."""
    return f"{np.median(np.divide(samples[other], samples[name])):.2f}" if other in samples else ""


def randomize_norms(network: nn.Module) -> None:
    """Give every BatchNorm random statistics and scales in the range that training leaves."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            nn.init.normal_(norm.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)


if __name__ == "__main__":
    main()
