"""Test that the layer `models` works without the rest of the package."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import ghostexp.models

LAYER = Path(ghostexp.models.__file__).parent
LAZY = {"torchvision_timm.py": {"timm"}, "traced_network.py": {"timm"}, "weight_files.py": {"safetensors"}}


def roots(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, relative imports left out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def test_models_import_torch_and_torchvision_only() -> None:
    for path in LAYER.rglob("*.py"):
        optional = LAZY.get(path.name, set())
        assert roots(path) - set(sys.stdlib_module_names) <= {"torch", "torchvision"} | optional, path.name


def test_models_copy_works_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(LAYER, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import sys
import torch
from copied import fuse, ghostify, ghostnetv3, resnet_cifar, vgg_cifar, weights
network = ghostify.ghostify(resnet_cifar.resnet20(num_classes=10, in_chans=1))
assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)
network = ghostnetv3.ghostnetv3(num_classes=10, width=0.5)
torch.save(network.state_dict(), "weights.pth")
assert weights.load_weights(network, "weights.pth") == ()
assert fuse.fuse(network)(torch.randn(2, 3, 33, 33)).shape == (2, 10)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"ghostexp", "lightning", "hydra", "omegaconf", "torchvision", "sklearn", "wandb"}, loaded
from copied.detection import faster_rcnn, retinanet
detector = retinanet.retinanet(ghostnetv3.ghostnetv3(width=0.3), 3, fpn_channels=8)
assert len(detector.eval()(torch.randn(1, 3, 64, 64))) == 1
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"ghostexp", "lightning", "hydra", "omegaconf", "sklearn", "wandb"}, loaded
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
