"""TF32, torch.compile and what result.json says of a GPU, without a GPU."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ghostexp.runs import provenance
from ghostexp.tasks.common.acceleration import allow_tf32, compile_network, warn_of_slow_bfloat16
from ghostexp.tasks.common.load_model import inference_device
from ghostexp.tasks.common.summary import device_info
from tests.cli import TINY, command


@pytest.fixture(autouse=True)
def _restore_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Return a device that torch describes as a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3)
    monkeypatch.setattr("torch.cuda.nccl.version", lambda: (2, 28, 9))
    return torch.device("cuda", 2)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_holds_for_convolutions_and_products(allowed: bool) -> None:
    allow_tf32(allowed)
    assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is allowed


def test_result_names_gpu_and_its_settings(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghostexp.tasks.common.summary.nvidia_driver", lambda: "580.65.06")
    allow_tf32(False)
    info = device_info(gpu)
    assert (info["hardware"], info["cpu"]) == ("Some GPU", provenance.cpu())
    wanted = {"nccl": "2.28.9", "driver": "580.65.06", "tf32": False, "memory_bytes": 80, "peak_memory_bytes": 3}
    assert info["gpu"].items() >= wanted.items()
    assert info["gpu"].keys() >= {"cuda", "cudnn", "cudnn_benchmark"}


def test_list_of_devices_selects_the_gpu_of_every_task(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert inference_device({"trainer": {"accelerator": "auto", "devices": [2]}}) == gpu
    assert inference_device({"trainer": {"accelerator": "auto", "devices": 1}}) == torch.device("cuda", 0)
    assert inference_device({"trainer": {"accelerator": "cpu", "devices": 1}}) == torch.device("cpu")


def test_compile_without_compiler_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    assert command(*TINY, "compile=reduce-overhead") == 1
    assert "error: compile=reduce-overhead: torch.compile needs a C compiler, found none of cc, gcc, clang" in (
        capsys.readouterr().err
    )


def test_compile_passes_its_mode_and_fixed_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: given.append(kwargs))
    for mode in (False, True, "max-autotune"):
        compile_network(nn.Linear(1, 1), mode)
    assert given == [{"dynamic": False}, {"dynamic": False, "mode": "max-autotune"}]


def test_sync_batchnorm_refuses_a_batchnorm_with_activation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    rest = ("model=timm", "model.name=mobilenetv3_small_050", "trainer.sync_batchnorm=true")
    data = [text for text in TINY if not text.startswith("model")]
    assert command(*data, *rest) == 1
    assert "trainer.sync_batchnorm=true: BatchNormAct2d (bn1) does more than normalise" in capsys.readouterr().err


@pytest.mark.parametrize("is_fast", [False, True])
def test_bfloat16_on_a_cpu_without_its_kernels_warns(
    is_fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_fast)
    assert command(*TINY, "trainer.precision=bf16-mixed") == 0
    warning = "warning: trainer.precision=bf16-mixed: torch has no fast bfloat16 convolutions for this CPU"
    assert capsys.readouterr().err.count(warning) == (not is_fast)
    warn_of_slow_bfloat16("32-true", torch.device("cpu"))
    warn_of_slow_bfloat16("bf16-mixed", torch.device("cuda"))
    assert warning not in capsys.readouterr().err
