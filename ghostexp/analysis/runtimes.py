"""Run exported classifiers with ONNX Runtime and OpenVINO on the CPU, on as many threads as torch."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from torch import Tensor, nn

from ghostexp.analysis.timing import alternate, quiet_clock
from ghostexp.models.concat_free import concat_free, has_concatenations

Logits = Callable[[Tensor], Tensor]
BATCH_AXIS = ({0: torch.export.Dim("batch")},)  # batches may have any size
RUNTIMES = ("onnxruntime", "openvino", "openvino+bf16", "openvino+int8")
EXPORTING = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino+int8": ("openvino", "nncf")}
EXTRAS = {"openvino": "openvino", "nncf": "nncf"}  # of a package; of others, export
BF16, F32 = "bf16", "f32"  # OpenVINO's inference precisions: without one it would choose, by the processor


def check_packages(runtime: str, key: str, is_exporting: bool = True) -> None:
    """Raise ValueError, which says what to install, if packages are missing by which a runtime runs, or exports."""
    running = ("onnxruntime",) if runtime == "onnxruntime" else ("openvino",)
    needed = EXPORTING.get(runtime, running) if is_exporting else running
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS.get(package, "export") for package in missing))
        raise ValueError(f'{key}: needs {", ".join(missing)}; pip install "ghostexp[{extras}]"')


def export_program(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Export a network for batches of any size; an example of one image would specialise it to one."""
    return torch.export.export(network, (example,), dynamic_shapes=BATCH_AXIS)


def to_onnx(program: torch.export.ExportedProgram) -> bytes:
    """Convert a program to ONNX, with the input `images` and the output `logits`."""
    converted = torch.onnx.export(
        program,
        (),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=BATCH_AXIS,  # known from the program, but without their names
        verbose=False,
    )
    assert converted is not None
    return converted.model_proto.SerializeToString()


def load_onnx(model: Path | bytes) -> Logits:
    """Load an ONNX model, or its file, into ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])


def import_openvino() -> Any:
    """Import OpenVINO without the package by which it reports its use over the network, from forks of this process."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino


@cache
def openvino_core() -> Any:
    """Return this process's one Core, which is never deleted.

    Each Core gives its thread another stack for signal handlers, and frees it when it is deleted. Of two that are
    deleted in the order in which they were made, the second restores the freed stack of the first: the next signal with
    a handler, such as Ctrl-C, ends the process (https://github.com/openvinotoolkit/openvino/pull/11894).
    """
    return import_openvino().Core()


def convert_to_openvino(program: torch.export.ExportedProgram, shape: tuple[int, int, int]) -> Any:
    """Convert a program to an OpenVINO model in float32 with the input `images` (N, *shape) and the output `logits`."""
    model = import_openvino().convert_model(program)
    model.reshape([-1, *shape])
    model.inputs[0].set_names({"images"})
    model.outputs[0].set_names({"logits"})
    return model


def quantize(model: Any, batches: Iterable[Tensor]) -> Any:
    """Quantise an OpenVINO model to int8 after training, calibrated on batches of images (N, C, H, W), by NNCF.

    The preset keeps activations that are not ReLUs in an asymmetric range.
    """
    import logging

    import_openvino()  # NNCF reports by the same package
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    images = [batch[None].numpy() for part in batches for batch in part]
    return nncf.quantize(model, nncf.Dataset(images), preset=nncf.QuantizationPreset.MIXED, subset_size=len(images))


class OpenVINO:
    """Run an OpenVINO model, or its file; compiled for each size of a batch, which is faster than for any size."""

    def __init__(self, model: Any, precision: str = F32) -> None:
        self.model = openvino_core().read_model(model) if isinstance(model, Path) else model
        self.options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.requests: dict[int, Any] = {}

    def __call__(self, images: Tensor) -> Tensor:
        request = self.requests.get(len(images))
        if request is None:
            model = self.model.clone()
            model.reshape(list(images.shape))
            request = openvino_core().compile_model(model, "CPU", self.options).create_infer_request()
            self.requests[len(images)] = request
        found = request.infer({0: images.contiguous().numpy()}, share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0]).clone()  # of memory that the next call writes to


def measure_speedup(model: Any, other: Any, shape: tuple[int, int, int], rounds: int = 7) -> float:
    """Return how many times as fast another OpenVINO model is: the mean over batches of 1 and 16, in turn."""
    ratios = []
    for batch in (1, 16):
        images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
        steps = {name: partial(OpenVINO(one), images) for name, one in (("model", model), ("other", other))}
        samples = alternate(steps, rounds, torch.device("cpu"), clock=quiet_clock())
        ratios.append(median(a / b for a, b in zip(samples["model"], samples["other"], strict=True)))
    return geometric_mean(ratios)


@dataclass
class Converter:
    """Converts a network, fused for inference, to the form of each runtime; each form is made once.

    calibration: makes batches of images by which int8 is calibrated.
    concat_free: whether OpenVINO's form is that of `concat_free`; None: whichever is faster on this machine.
    speedups: how many times as fast it is in a runtime, where that was measured; it is chosen above 1.
    """

    network: nn.Module
    shape: tuple[int, int, int]  # of an image
    calibration: Callable[[], Iterable[Tensor]]
    concat_free: bool | None = None
    speedups: dict[str, float] = field(default_factory=dict)

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        return self._export(self.network)

    def _export(self, network: nn.Module) -> torch.export.ExportedProgram:
        return export_program(network, torch.zeros(2, *self.shape))

    @cached_property
    def onnx(self) -> bytes:
        return to_onnx(self.program)

    @cached_property
    def _plain(self) -> Any:
        return convert_to_openvino(self.program, self.shape)

    @cached_property
    def _free(self) -> Any:
        return convert_to_openvino(self._export(concat_free(self.program)), self.shape)

    @cached_property
    def openvino(self) -> Any:
        return self._faster("openvino", lambda form: form)

    @cached_property
    def int8(self) -> Any:
        return self._faster("openvino+int8", lambda form: quantize(form, self.calibration()))

    def _faster(self, runtime: str, prepare: Callable[[Any], Any]) -> Any:
        """Prepare the form that was asked for, or both, of which the faster one is returned."""
        is_free = self.concat_free if has_concatenations(self.program) else False
        if is_free is None:
            plain, free = prepare(self._plain), prepare(self._free)
            self.speedups[runtime] = measure_speedup(plain, free, self.shape)
            return free if self.speedups[runtime] > 1 else plain
        return prepare(self._free if is_free else self._plain)

    def load(self, runtime: str) -> Logits:
        """Load the network into a runtime."""
        if runtime == "onnxruntime":
            return load_onnx(self.onnx)
        model = self.int8 if runtime == "openvino+int8" else self.openvino
        return OpenVINO(model, BF16 if runtime == "openvino+bf16" else F32)
