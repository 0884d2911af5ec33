"""Test layouts of weight files: wrappers, prefixes, names of a replication."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ghostexp.models.ghostify import ghostify
from ghostexp.models.resnet_cifar import resnet20, resnet56
from ghostexp.models.vgg_cifar import vgg16
from ghostexp.models.weights import load_weights, read_weights

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(7)
    return resnet20()


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


WRAPPERS: dict[str, tuple[Callable[[State], dict[str, Any]], tuple[str, ...]]] = {
    "state_dict": (lambda state: {"state_dict": state, "best_acc1": np.float64(70.1)}, ("under state_dict",)),
    "model": (lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}, ("under model",)),
    "model_ema": (
        lambda state: {
            "model": zeros(state),
            "model_ema": {"n_averaged": torch.tensor(9), **prefixed("module.", state)},
        },
        ("under model_ema", "without the prefix module."),
    ),
    "no average": (lambda state: {"model": state, "model_ema": None}, ("under model",)),
    "nested": (lambda state: {"model": {"state_dict": state}}, ("under model.state_dict",)),
    "lightning": (
        lambda state: {"state_dict": {**prefixed("model.", state), "loss.weight": torch.ones(10)}},
        ("under state_dict", "without the prefix model.", "without 1 other names"),
    ),
    "history": (
        lambda state: {"net": state, "losses": np.arange(3.0), "file": PurePosixPath("a"), "acc": np.float32(1)},
        ("under net",),
    ),
}
PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.net.", "mine.")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_of_training_scripts_are_recognised(wrapper: str, trained: nn.Module, tmp_path: Path) -> None:
    wrap, recognised = WRAPPERS[wrapper]
    arrives(trained, wrap(trained.state_dict()), recognised, tmp_path)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_is_removed_and_recognised(prefix: str, trained: nn.Module, tmp_path: Path) -> None:
    arrives(trained, prefixed(prefix, trained.state_dict()), (f"without the prefix {prefix}",), tmp_path)


def arrives(trained: nn.Module, content: dict[str, Any], recognised: tuple[str, ...], folder: Path) -> None:
    """Check that a network loads all of its weights from a file, and which layout was recognised."""
    torch.save(content, folder / "weights.pth")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("weights.pth", "old.pth"):
        network = resnet20()
        assert read_weights(network, folder / name).recognised == recognised
        assert load_weights(network, folder / name) == ()
        assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())


def test_averaged_model_and_data_parallel_load(trained: nn.Module, tmp_path: Path) -> None:
    for wrapped in (AveragedModel(trained), nn.DataParallel(trained)):
        torch.save(wrapped.state_dict(), tmp_path / "weights.pth")
        load_weights(resnet20(), tmp_path / "weights.pth")


def as_replicated(state: State) -> State:
    """Rename weights as the replication bvn1904/ghostnet names the layers of a ghost ResNet or VGG."""
    names = {name: re.sub(r"(primary_conv|cheap_operation)\.0\.", r"\1.", name) for name in state}
    names = {name: there.replace("cheap_operation.", "cheap_operations.") for name, there in names.items()}
    return {re.sub(r"^fc\.", "linear.", there): state[name] for name, there in names.items()}


def test_replication_ghost_resnet_is_renamed(tmp_path: Path) -> None:
    theirs, ours = (ghostify(resnet56(shortcut="B"), ratio=2, dw_size=3) for _ in range(2))
    state = as_replicated(theirs.state_dict())
    assert {"conv1.primary_conv.weight", "layer2.0.shortcut.0.cheap_operations.weight", "linear.bias"} <= state.keys()
    torch.save(prefixed("module.", state), tmp_path / "weights.pth")
    assert read_weights(ours, tmp_path / "weights.pth").recognised == (
        "without the prefix module.",
        "names of bvn1904/ghostnet",
        "names of CIFAR-10 ResNets that end in `linear`",
    )
    load_weights(ours, tmp_path / "weights.pth")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_replication_head_can_be_reset(tmp_path: Path) -> None:
    theirs = ghostify(resnet20(num_classes=100, shortcut="B"))
    torch.save(as_replicated(theirs.state_dict()), tmp_path / "weights.pth")
    network = ghostify(resnet20(num_classes=7, shortcut="B"))
    assert load_weights(network, tmp_path / "weights.pth", reset_head=True) == ("fc.weight", "fc.bias")


def test_weights_of_other_shortcuts_are_refused(tmp_path: Path) -> None:
    """Those of a common CIFAR-10 ResNet have the names of ours, but zeros on both sides of the shortcuts' channels."""
    content = {"state_dict": prefixed("module.", as_replicated(resnet20().state_dict()))}
    assert "whose shortcuts without parameters have zeros on both sides" in fails(content, tmp_path)


def test_replication_ghost_vgg_loads(tmp_path: Path) -> None:
    theirs = ghostify(vgg16(bias=False))
    state = {
        name.replace("operations", "operation"): value for name, value in as_replicated(theirs.state_dict()).items()
    }
    torch.save(state, tmp_path / "weights.pth")
    load_weights(ghostify(vgg16(bias=False)), tmp_path / "weights.pth")


def fails(content: dict[str, Any], folder: Path) -> str:
    torch.save(content, folder / "weights.pth")
    with pytest.raises(ValueError, match=r"^model\.weights") as error:
        load_weights(resnet20(), folder / "weights.pth")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_error_lists_recognised_layout(trained: nn.Module, tmp_path: Path) -> None:
    state = trained.state_dict()
    del state["fc.bias"]
    message = fails({"model": prefixed("module._orig_mod.", state)}, tmp_path)
    assert message.endswith("1 missing (fc.bias) (under model; without the prefix module._orig_mod.)")


def test_several_networks_in_a_file_are_rejected(trained: nn.Module, tmp_path: Path) -> None:
    both = prefixed("student.", trained.state_dict()) | prefixed("teacher.", trained.state_dict())
    assert fails({"state_dict": both}, tmp_path).endswith(
        "weights.pth: must contain one network, got several, under student., teacher.; save the intended one to a file"
    )


def test_error_suggests_how_to_extract_weights_under_unknown_key(trained: nn.Module, tmp_path: Path) -> None:
    assert 'torch.save(torch.load(FILE)["generator"], NEW)' in fails({"generator": trained.state_dict()}, tmp_path)


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("features.1.conv.0.primary_conv.0.weight", "the GhostNet of d-li14 and iamhankai"),
        ("layer1.0.conv1.weight1", "huawei-noah's Ghost-ResNet-50"),
        ("bottlenecks.0.ghost1.primary_conv.weight", "bvn1904's GhostNet"),
    ],
)
def test_error_names_known_incompatible_network(name: str, whose: str, tmp_path: Path) -> None:
    assert f"(known as {whose}, with" in fails({name: torch.ones(1), "classifier.4.bias": torch.ones(1)}, tmp_path)
