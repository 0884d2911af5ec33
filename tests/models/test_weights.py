"""Test weights from files of every layout, and the errors of bad files."""

import argparse
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from ghostexp.models.ghostnet import ghostnet
from ghostexp.models.ghostnetv2 import ghostnetv2
from ghostexp.models.ghostnetv3 import ghostnetv3
from ghostexp.models.resnet_cifar import resnet20
from ghostexp.models.vgg_cifar import vgg16
from ghostexp.models.weights import load_weights
from ghostexp.training.classification_module import ClassificationModule

State = dict[str, Tensor]
BUILDS: dict[str, Callable[..., nn.Module]] = {
    "ghostnet_050": lambda **kwargs: ghostnet(width=0.5, **kwargs),
    "ghostnetv2_100": lambda **kwargs: ghostnetv2(width=1.0, **kwargs),
    "ghostnetv3_050": lambda **kwargs: ghostnetv3(width=0.5, **kwargs),
}


def released(name: str) -> State:
    return dict(_released(name))


@functools.cache
def _released(name: str) -> State:
    return timm.create_model(name, pretrained=False).state_dict()


def equal(network: nn.Module, state: State) -> bool:
    ours = network.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[name], tensor) for name, tensor in state.items())


def plain(state: State) -> State:
    return state


def of_official_v3(state: State) -> State:
    """Rename weights as the official GhostNetV3, with the buffers that thop adds."""
    renamed = {re.sub(r"(_rpr_\w+(\.\d+)?)\.bn1\.", r"\1.bn.", name): tensor for name, tensor in state.items()}
    return {**renamed, "total_ops": torch.zeros(1), "blocks.0.0.ghost1.total_params": torch.zeros(1)}


def of_data_parallel(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


def of_timms_script(state: State) -> dict[str, Any]:
    arguments = argparse.Namespace(model="ghostnet_050", lr=0.1)
    return {"epoch": 3, "arch": "ghostnet", "state_dict": state, "args": arguments, "metric": 70.1}


def of_timms_script_with_averaged_weights(state: State) -> dict[str, Any]:
    last = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    return {"epoch": 3, "state_dict": last, "state_dict_ema": state}


def of_this_project(state: State) -> dict[str, Any]:
    module = {f"network.{name}": tensor for name, tensor in state.items()}
    return {"epoch": 3, "global_step": 7, "state_dict": {**module, "teacher.fc.weight": torch.zeros(1)}}


def of_this_project_with_averaged_weights(state: State) -> dict[str, Any]:
    last = {f"network.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    return {**of_this_project(state), "current_model_state": last}


LAYOUTS = [
    (plain, "ghostnet_050"),
    (plain, "ghostnetv2_100"),
    (plain, "ghostnetv3_050"),
    (of_official_v3, "ghostnetv3_050"),
    (of_data_parallel, "ghostnet_050"),
    (of_timms_script, "ghostnet_050"),
    (of_timms_script_with_averaged_weights, "ghostnet_050"),
    (of_this_project, "ghostnet_050"),
    (of_this_project_with_averaged_weights, "ghostnet_050"),
]


@pytest.mark.parametrize(("layout", "name"), LAYOUTS, ids=lambda value: getattr(value, "__name__", value))
def test_every_layout_loads_all_weights(layout: Callable, name: str, tmp_path: Path) -> None:
    state, file, network = released(name), tmp_path / "weights.pth", BUILDS[name]()
    torch.save(layout(state), file)
    assert load_weights(network, file) == ()
    assert equal(network, state)


@pytest.mark.parametrize("name", BUILDS)
def test_safetensors_written_by_its_library_load(name: str, tmp_path: Path) -> None:
    state, file, network = released(name), tmp_path / "weights.safetensors", BUILDS[name]()
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    assert load_weights(network, str(file)) == ()
    assert equal(network, state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_another_dtype_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    network = resnet20()
    state = {name: tensor.to(dtype) for name, tensor in resnet20().state_dict().items() if tensor.ndim}
    counters = {name: tensor for name, tensor in network.state_dict().items() if not tensor.ndim}
    safetensors.torch.save_file({**state, **counters}, tmp_path / "weights.safetensors")
    load_weights(network, tmp_path / "weights.safetensors")
    assert torch.equal(network.conv1.weight, state["conv1.weight"].float())


def test_reparameterized_weights_load_into_reparameterized_network(tmp_path: Path) -> None:
    network, other = ghostnetv3(width=0.5), ghostnetv3(width=0.5)
    network.reparameterize()
    torch.save(network.state_dict(), tmp_path / "deployed.pth")
    with pytest.raises(ValueError, match="does not match the network"):
        load_weights(other, tmp_path / "deployed.pth")
    other.reparameterize()
    load_weights(other, tmp_path / "deployed.pth")
    assert equal(other, network.state_dict())


def test_lightning_checkpoint_loads(tmp_path: Path) -> None:
    network = resnet20()
    trained = ClassificationModule(resnet20(), torch.optim.Adam, lambda *_: lambda _: 1.0, num_classes=10)  # pyright: ignore[reportArgumentType]
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "last.ckpt")
    load_weights(network, tmp_path / "last.ckpt")
    assert equal(network, trained.network.state_dict())


def fails(network: nn.Module, file: Path, key: str = "weights", **kwargs: Any) -> str:
    """Return the error of a file that cannot be loaded: one line, and the network is unchanged."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^model\.{key}=") as error:
        load_weights(network, file, **kwargs)
    assert "\n" not in str(error.value)
    assert equal(network, before)
    return str(error.value)


def test_error_lists_mismatches(tmp_path: Path) -> None:
    state, file = resnet20().state_dict(), tmp_path / "weights.pth"
    state["fc.weight"] = torch.zeros(7, 64)
    state["stem.weight"] = state.pop("conv1.weight")
    for index in range(5):
        del state[f"layer1.{index % 3}.bn{index // 3 + 1}.running_mean"]
    torch.save(state, file)
    assert fails(resnet20(), file) == (
        f"model.weights={file}: does not match the network: 6 missing (conv1.weight, layer1.0.bn1.running_mean, "
        "layer1.0.bn2.running_mean, ...); 1 unexpected (stem.weight); "
        "1 of another shape (fc.weight (7, 64) instead of (10, 64))"
    )


@pytest.mark.parametrize(("ours", "theirs"), [("ghostnetv2_100", "ghostnet_100"), ("ghostnet_050", "ghostnet_130")])
def test_weights_of_similar_network_are_rejected(ours: str, theirs: str, tmp_path: Path) -> None:
    torch.save(released(theirs), tmp_path / "weights.pth")
    assert "does not match the network" in fails(BUILDS[ours](), tmp_path / "weights.pth")


def test_head_of_another_size_needs_reset_head(tmp_path: Path) -> None:
    state, file = released("ghostnet_050"), tmp_path / "weights.pth"
    torch.save(state, file)
    network = ghostnet(width=0.5, num_classes=10)
    assert "2 of another shape (classifier.weight (1000, 1280) instead of (10, 1280), classifier" in fails(
        network, file
    )
    fresh = network.classifier.weight.clone()
    assert load_weights(network, file, reset_head=True) == ("classifier.weight", "classifier.bias")
    assert torch.equal(network.classifier.weight, fresh)
    assert equal(network, {**state, "classifier.weight": fresh, "classifier.bias": network.classifier.bias})


def test_reset_head_keeps_initial_head(
    tmp_path: Path,
) -> None:
    network, state = vgg16(), vgg16().state_dict()
    fresh = network.get_parameter("classifier.4.weight").clone()
    torch.save(state, tmp_path / "whole.pth")
    torch.save({name: tensor for name, tensor in state.items() if "classifier.4" not in name}, tmp_path / "none.pth")
    for file in ("whole.pth", "none.pth"):
        assert load_weights(network, tmp_path / file, reset_head=True) == ("classifier.4.weight", "classifier.4.bias")
        assert torch.equal(network.get_parameter("classifier.4.weight"), fresh)
    assert "2 missing (classifier.4.weight, classifier.4.bias)" in fails(network, tmp_path / "none.pth")


def test_reset_head_still_checks_other_weights(tmp_path: Path) -> None:
    state = released("ghostnet_050")
    del state["conv_head.bias"]
    torch.save(state, tmp_path / "weights.pth")
    message = fails(ghostnet(width=0.5, num_classes=10), tmp_path / "weights.pth", reset_head=True)
    assert message.endswith("does not match the network: 1 missing (conv_head.bias)")


def test_reset_head_rejects_network_without_linear_layer(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    message = fails(network, tmp_path / "weights.pth", key="reset_head", reset_head=True)
    assert message == "model.reset_head=true: Sequential has no linear layer"


class Executes:
    """An object whose pickle runs code when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_executes_code_is_rejected(zipped: bool, tmp_path: Path) -> None:
    file, mark = tmp_path / "weights.pth", tmp_path / "executed"
    content = {"state_dict": resnet20().state_dict(), "extra": Executes(mark)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    message = fails(resnet20(), file)
    assert not mark.exists()
    assert message == (
        f"model.weights={file}: refused: contains {os.mkdir.__module__}.mkdir, "
        "which is neither a tensor nor a plain value"
    )


def test_pickled_module_is_rejected(tmp_path: Path) -> None:
    torch.save(resnet20(), tmp_path / "module.pth")
    assert "refused: contains ghostexp.models.resnet_cifar.ResNet" in fails(resnet20(), tmp_path / "module.pth")


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["weights.pth", "old.pth", "weights.safetensors"])
def test_truncated_file_is_rejected(name: str, fraction: float, tmp_path: Path) -> None:
    file, state = tmp_path / name, resnet20().state_dict()
    if name.endswith("safetensors"):
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=name == "weights.pth")
    data = file.read_bytes()
    file.write_bytes(data[: int(fraction * len(data))])
    assert f"model.weights={file}: not a valid weight file (" in fails(resnet20(), file)


def test_truncated_tensor_is_rejected(tmp_path: Path) -> None:
    file, state = tmp_path / "weights.safetensors", resnet20().state_dict()
    safetensors.torch.save_file(state, file)
    file.write_bytes(file.read_bytes()[:-1])
    assert fails(resnet20(), file).endswith(
        "not a valid weight file (Error while deserializing header: incomplete metadata, file not fully covered)"
    )


def test_error_keeps_first_line_of_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unreadable\nframe #0: ...")

    (tmp_path / "weights.pth").touch()
    monkeypatch.setattr(torch, "load", fail)
    assert fails(resnet20(), tmp_path / "weights.pth").endswith("(unreadable)")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pointer.pth", "version https://git-lfs.github.com/spec/v1", "not a valid weight file (not a pickle of"),
        (
            "page.safetensors",
            "<!DOCTYPE html><html>Not Found</html>",
            "not a valid weight file (Error while deserializing header: header too large",
        ),
    ],
)
def test_file_of_another_format_is_rejected(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert message in fails(resnet20(), tmp_path / name)


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "{",
        '{"a": 1}',
        '{"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    ],
)
def test_invalid_safetensors_header_is_rejected(header: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    assert "not a valid weight file (" in fails(resnet20(), file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must contain weights by name, got a list"),
        ({}, "must contain weights by name"),
        ({"epoch": 3, "state_dict": {"fc.weight": "here"}}, "must contain weights by name"),
        ({"epoch": 3}, "must contain weights by name"),
        ({0: "here"}, "must contain weights by name"),
    ],
)
def test_file_without_weights_is_rejected(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert fails(resnet20(), tmp_path / "weights.pth").endswith(f"weights.pth: {message}")


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    assert fails(resnet20(), tmp_path / "none.pth").endswith("none.pth: no such file")
    assert fails(resnet20(), tmp_path).endswith(f"{tmp_path.name}: no such file")
