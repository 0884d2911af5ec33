"""Check that each layer of the package imports only lower layers."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ghostexp"
LAYERS = {  # other layers that each may import
    "errors": set(),
    "validation": set(),
    "models": set(),
    "runs": set(),
    "analysis": {"models"},
    "data": {"validation"},
    "training": {"runs", "models", "analysis"},
    "report": {"runs"},
    "tasks": {"report", "training", "data", "analysis", "runs", "models", "validation", "errors"},
    "runner": {"runs", "errors"},
    "config": {"runner", "runs", "errors"},
    "sweeps": {"config", "runner", "report", "runs", "errors"},
    "api": {"tasks", "report", "config", "runs", "errors"},
    "timm": {"api", "tasks", "config"},
}
HYDRA = {"tasks", "config", "sweeps", "api", "__main__"}
WITHOUT_TORCH = {
    "config",
    "runs",
    "report",
    "runner",
    "sweeps",
    "errors",
    "api",
    "__main__",
}  # so that reports and --help start fast


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Return the absolute names that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_only_lower_layers(layer: str) -> None:
    for path in [*(PACKAGE / layer).rglob("*.py"), *PACKAGE.glob(f"{layer}.py")]:
        known = {name.split(".")[1] for name in imports(path) if name.startswith("ghostexp.")}
        assert known <= LAYERS[layer] | {layer}, path


def test_hydra_is_imported_in_few_layers() -> None:
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer not in HYDRA:
            assert not {name for name in imports(path) if name.split(".")[0] in ("hydra", "omegaconf")}, path


def test_light_layers_do_not_import_torch() -> None:
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer in WITHOUT_TORCH:
            heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)}
            assert not heavy & {"torch", "torchvision", "lightning", "torchmetrics", "wandb"}, path


def test_only_nodes_module_uses_hydra_instantiate() -> None:
    users = [path.name for path in PACKAGE.rglob("*.py") if "hydra.utils" in imports(path)]
    assert users == ["nodes.py"]
