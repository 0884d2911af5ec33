"""Inference of GhostNet 1.0x at 224 x 224: this project's modes and runtimes beside timm's network in eager mode.

    python experiments/speed/inference.py                 # five minutes on two cores, most of them compiling
    python experiments/speed/inference.py --threads 1 --rounds 61
    python experiments/speed/inference.py --runtimes      # by ONNX Runtime and OpenVINO too, as MobileNetV3-Large

All networks have the same weights, with random BatchNorm statistics and scales, so that folding is tested.
Each round times every mode once, so that other work on the machine affects all alike; "times timm" is the median of the
rounds' ratios. The difference is the largest of a logit from timm's, in standard deviations of those; of another
network it means nothing. ONNX Runtime and OpenVINO have as many threads as torch.
"""

import argparse

import timm
import torch
from torch import nn

from ghostexp.analysis.latency import InferenceMode, benchmark_modes, build_modes
from ghostexp.analysis.runtimes import RUNTIMES
from ghostexp.models.ghostnet import ghostnet
from ghostexp.models.torchvision_timm import torchvision_network
from ghostexp.runs.provenance import cpu

SHAPE = (3, 224, 224)
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
    modes = {"timm, eager": InferenceMode(theirs.to(device), torch.float32, torch.contiguous_format)}
    modes |= build_modes(ours, [*MODES, *(RUNTIMES if arguments.runtimes else ())], SHAPE, device)
    if arguments.runtimes:
        other = torchvision_network("mobilenet_v3_large").eval()
        randomize_norms(other)
        modes |= {f"MobileNetV3-L, {name}": mode for name, mode in build_modes(other, RUNTIMES, SHAPE, device).items()}
    print(f"{cpu()}, {arguments.threads} threads, torch {torch.__version__}, medians of {arguments.rounds} rounds\n")
    for batch in arguments.batches:
        latencies = benchmark_modes(modes, torch.randn(batch, *SHAPE, device=device), arguments.rounds)
        print(f"| batch {batch} | ms (quartiles) | img/s | times timm | difference |\n| --- | --- | --- | --- | --- |")
        for row in latencies:
            spread = f"{row.median_ms:.1f} ({row.low_ms:.1f} to {row.high_ms:.1f})"
            print(f"| {row.mode} | {spread} | {row.images_per_second:.1f} | {row.speedup:.2f} | {row.difference:.0e} |")
        print(flush=True)


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
