"""Profile the networks of the papers' ImageNet tables, and compare counts and latencies with the papers.

    python experiments/imagenet_cost/cost_table.py            # ten minutes on one core

Counts: a run per network, `python -m ghostexp task=profile datamodule=image_folder MODEL`, in
outputs/imagenet_cost/NETWORK; finished runs are kept. Latency: all networks in one process, each once a
round, so that other work on the machine affects them alike. Writes results.csv and figure.png beside this file and
prints the page's table.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from ghostexp.__main__ import main as ghostexp
from ghostexp.analysis.latency import InferenceMode, benchmark_modes, build_mode
from ghostexp.models.base import Network
from ghostexp.report.profiles import ACCURACIES, plot_profiles, profile_table, read_profile
from ghostexp.report.published import PublishedResult, read_published_tables
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.provenance import cpu
from ghostexp.tasks.common import instantiate

HERE = Path(__file__).parent
MODE = "fused+channels_last"
TASK = (
    "task=profile task.modes=[] task.batch_sizes=[1] task.repeats=3 task.top_layers=5 threads=1 datamodule=image_folder"
)
TORCHVISION = "model=torchvision model.name"
WIDTH = "+model.kwargs.width_mult"
NETWORKS = {  # overrides by the papers' names
    "GhostNet 0.5x": "model=ghostnet model.width=0.5",
    "GhostNet 1.0x": "model=ghostnet",
    "GhostNet 1.3x": "model=ghostnet model.width=1.3",
    "GhostNetV2 1.0x": "model=ghostnetv2",
    "GhostNetV2 1.3x": "model=ghostnetv2 model.width=1.3",
    "GhostNetV2 1.6x": "model=ghostnetv2 model.width=1.6",
    "GhostNetV3 1.0x": "model=ghostnetv3",
    "GhostNetV3 1.3x": "model=ghostnetv3 model.width=1.3",
    "GhostNetV3 1.6x": "model=ghostnetv3 model.width=1.6",
    "MobileNetV2 0.35x": f"{TORCHVISION}=mobilenet_v2 {WIDTH}=0.35",
    "MobileNetV2 0.6x": f"{TORCHVISION}=mobilenet_v2 {WIDTH}=0.6",
    "MobileNetV2 1.0x": "model=mobilenet_v2",
    "MobileNetV3-S 0.75x": "model=timm model.name=mobilenetv3_small_075",
    "MobileNetV3-L 0.75x": "model=timm model.name=mobilenetv3_large_075",
    "MobileNetV3-L 1.0x": "model=mobilenet_v3_large",
    "ShuffleNetV2 0.5x": f"{TORCHVISION}=shufflenet_v2_x0_5",
    "ShuffleNetV2 1.0x": f"{TORCHVISION}=shufflenet_v2_x1_0",
    "ShuffleNetV2 1.5x": f"{TORCHVISION}=shufflenet_v2_x1_5",
    "MnasNet-A1": "model=timm model.name=semnasnet_100",
    "ResNet-50": "model=resnet50",
    "Ghost-ResNet-50, s = 2": "model=ghost_resnet50",
    "Ghost-ResNet-50, s = 4": "model=ghost_resnet50 model.ratio=4",
}


def main() -> None:
    """Profile and time the networks; write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=Path("outputs/imagenet_cost"))
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    printed = {row.name: row for table in ACCURACIES for row in read_published_tables()[table].rows}
    runs = {name: profile(arguments.outputs, name) for name in NETWORKS}
    profiles = [read_profile(name, run, "eager", printed[name]) for name, run in runs.items()]
    latencies = benchmark_modes(
        {name: ready(run) for name, run in runs.items()}, torch.randn(1, 3, 224, 224), arguments.rounds
    )
    for number, row in enumerate(latencies):
        profiles[number] = replace(profiles[number], milliseconds=(row.low_ms, row.median_ms, row.high_ms))
    write_rows(HERE / "results.csv", [profile.row() for profile in profiles])
    plot_profiles(profiles, HERE / "figure.png", f"{cpu()}, {torch.get_num_threads()} thread, {MODE}")
    print(profile_table(profiles), "\n".join(differences(printed)), sep="\n")


def profile(outputs: Path, name: str) -> RunDirectory:
    """Profile a network unless it was profiled before; return the run."""
    run = RunDirectory(outputs / re.sub(r"[^\w.-]+", "-", name))
    if run.read_result() is None:
        code = ghostexp([*TASK.split(), *NETWORKS[name].split(), f"hydra.run.dir={run.path}"])
        assert code == 0, name
    return run


def ready(run: RunDirectory) -> InferenceMode:
    """Build a profiled network for inference, with BatchNorm statistics of noise."""
    network = instantiate.build_network({**run.read_config(), "channels_last": False}).network
    assert isinstance(network, Network)
    update_bn([torch.randn(8, 3, 224, 224)], network)
    return build_mode(network, MODE, torch.device("cpu"))


def differences(printed: dict[str, PublishedResult]) -> list[str]:
    """List the reasons for counts that differ from the printed ones."""
    rows = [row for name, row in printed.items() if name in NETWORKS]
    return [f"{row.name}, {column}: {reason}" for row in rows for column, reason in row.differs.items()]


if __name__ == "__main__":
    main()
