"""The floor `models` can be lifted out of the package and used alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import ghostexp.models

FLOOR = Path(ghostexp.models.__file__).parent


def roots(path: Path) -> set[str]:
    """The top-level packages that a file imports; its own neighbours count as none."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def test_models_import_torch_and_torchvision_only() -> None:
    for path in FLOOR.rglob("*.py"):
        optional = {"timm"} if path.name == "external.py" else set()  # inside the function that says it is missing
        assert roots(path) - set(sys.stdlib_module_names) <= {"torch", "torchvision"} | optional, path.name


def test_a_copy_under_another_name_works_without_the_rest(tmp_path: Path) -> None:
    shutil.copytree(FLOOR, tmp_path / "lifted", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import sys
import torch
from lifted import fuse, ghostify, ghostnet_v3, resnet, vgg, weights
network = ghostify.ghostify(resnet.resnet20(num_classes=10, in_chans=1))
assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)
network = ghostnet_v3.ghostnetv3(num_classes=10, width=0.5)
torch.save(network.state_dict(), "weights.pth")
assert weights.load_weights(network, "weights.pth") == ()
assert fuse.fuse(network)(torch.randn(2, 3, 33, 33)).shape == (2, 10)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"ghostexp", "lightning", "hydra", "omegaconf", "torchvision", "sklearn", "wandb"}, loaded
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
