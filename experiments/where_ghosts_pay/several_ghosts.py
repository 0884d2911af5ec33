"""Time training steps of networks with s > 2, in turn with plain convolutions for their cheap filters.

python experiments/where_ghosts_pay/several_ghosts.py    # two minutes on one core
"""

import argparse
import copy

import torch
from planned import speedups, training_step
from torch import nn

import ghostexp
from ghostexp.analysis.timing import alternate, quiet_clock
from ghostexp.models.cheap_conv import CheapConv2d
from ghostexp.runs.provenance import cpu
from ghostexp.runs.text_files import markdown_table

NETWORKS = [("ghost_resnet20", ratio, 128) for ratio in (3, 4, 5, 10)]  # with the ratio and the batch size
NETWORKS += [("ghost_resnet56", 4, 128), ("ghost_vgg16", 4, 32)]


def main() -> None:
    """Print a table of speed-ups over plain convolutions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, ratio, batch in NETWORKS:
        network = ghostexp.create_model(name, num_classes=10, ratio=ratio)
        images = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
        row = [f"{name}, s = {ratio}"]
        for precision in (torch.bfloat16, torch.float32):
            forms = {"ordinary": plain(network), "repeated": network}
            steps = {form: training_step(built, images, precision, False) for form, built in forms.items()}
            row += speedups(alternate(steps, arguments.rounds, images.device, clock=quiet_clock()))
        rows.append(row)
    print(f"{cpu()}, one thread, torch {torch.__version__}\n")
    print(markdown_table(["network", "bfloat16", "float32"], rows))


def plain(network: nn.Module) -> nn.Module:
    """Return a copy in which torch's own convolution has the cheap filters."""
    copied = copy.deepcopy(network)
    for name, conv in list(copied.named_modules()):
        if isinstance(conv, CheapConv2d):
            side = conv.kernel_size[0]
            own = nn.Conv2d(
                conv.in_channels, conv.out_channels, side, padding=side // 2, groups=conv.groups, bias=False
            )
            own.load_state_dict(conv.state_dict())
            copied.set_submodule(name, own)
    return copied


if __name__ == "__main__":
    main()
