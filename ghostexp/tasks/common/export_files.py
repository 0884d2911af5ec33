"""Write the files of `task=export`, each with the function that it computes when loaded."""

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from ghostexp.analysis.runtimes import (
    BF16,
    F32,
    Converter,
    Logits,
    OpenVINO,
    check_packages,
    import_openvino,
    load_onnx,
)
from ghostexp.models.base import Network
from ghostexp.models.weights import load_weights
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_json
from ghostexp.tasks.common.instantiate import Config
from ghostexp.tasks.common.load_model import LoadedModel
from ghostexp.tasks.common.weights_source import file_sha256

ORIGINS = "checkpoints.json"  # the checkpoint that each file is of
FILES = {
    "onnx": "model.onnx",
    "torch": "model.pt2",
    "safetensors": "model.safetensors",
    "openvino": "model.xml",
    "openvino+int8": "model_int8.xml",
}
RUNTIME = {"onnx": "onnxruntime", "openvino": "openvino", "openvino+int8": "openvino+int8"}  # that a file is for
INEXACT = ("openvino+bf16", "openvino+int8")  # which round by much more than float32 does


@dataclass
class ExportFiles:
    """Writer of the files of one network: its weights, and programs of its fused form."""

    network: Network
    converter: Converter
    files: list[Path] = field(default_factory=list)  # written so far

    def write(self, name: str, folder: Path) -> dict[str, Logits]:
        """Write one format into a folder; returns the functions of its file, by format and precision."""
        path = folder / FILES[name]
        self.files.append(path)
        if name == "safetensors":
            return {name: self._write_weights(path)}
        if name == "torch":
            torch.export.save(self.converter.program, path)
            return {name: torch.export.load(path).module()}
        if name == "onnx":
            path.write_bytes(self.converter.onnx)
            return {name: load_onnx(path)}
        return self._write_openvino(name, path)

    def _write_openvino(self, name: str, path: Path) -> dict[str, Logits]:
        is_int8 = name == "openvino+int8"
        model = self.converter.int8 if is_int8 else self.converter.openvino
        import_openvino().save_model(model, path, compress_to_fp16=False)
        self.files.append(path.with_suffix(".bin"))
        loaded: dict[str, Logits] = {name: OpenVINO(path)}
        return loaded if is_int8 else loaded | {f"{name}+{BF16}": OpenVINO(path, BF16)}

    def _write_weights(self, path: Path) -> Logits:
        save_file({name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}, path)
        loaded = copy.deepcopy(self.network)
        for tensor in loaded.state_dict().values():
            tensor.zero_()
        load_weights(loaded, path)
        return loaded


def check_formats(formats: object) -> list[str]:
    """Return the requested formats as a list.

    Raises ValueError: an unknown format, or a missing package.
    """
    wanted = [str(name) for name in (formats if isinstance(formats, list) else [formats])]
    for name in wanted:
        if name not in FILES:
            raise ValueError(f"task.formats={name}: must be one or several of {', '.join(FILES)}")
        if name in RUNTIME:
            check_packages(RUNTIME[name], f"task.formats={name}")
    if not wanted:
        raise ValueError(f"task.formats=[]: must be one or several of {', '.join(FILES)}")
    return wanted


def record_origin(folder: Path, names: Iterable[str], checkpoint: Path | None) -> None:
    """Record the checkpoint that exported files are of; other files of the folder keep theirs."""
    sha = None if checkpoint is None else file_sha256(checkpoint)
    write_json(folder / ORIGINS, read_origins(folder) | dict.fromkeys(names, sha), indent=1)


def read_origins(folder: Path) -> dict[str, str | None]:
    """Return the checkpoint's SHA-256 by the name of an exported file; None: it was exported from other weights."""
    path, result = folder / ORIGINS, RunDirectory(folder).read_result() or {}
    if path.is_file():
        return json.loads(path.read_bytes())
    return dict.fromkeys(result.get("files", ()), result.get("checkpoint_sha256"))  # of an earlier version


def load_exported(config: Config, trained: LoadedModel) -> Logits:
    """Load the file that `task=export` wrote for `task.runtime` from the run's folder.

    Raises ValueError: a missing package or file, or one of another checkpoint.
    """
    runtime, run = config["task"]["runtime"], config["run"]
    key = f"task.runtime={runtime}"
    check_packages(runtime, key, is_exporting=False)
    if run is None:
        raise ValueError(f"{key}: needs run=DIR, with an export")
    name = next(name for name, one in RUNTIME.items() if one == runtime.removesuffix(f"+{BF16}"))
    export = RunDirectory(Path(run) / "export")
    path = export.path / FILES[name]
    command = f"python -m ghostexp task=export run={run} 'task.formats=[{name}]'"
    if not path.is_file():
        raise ValueError(f"{key}: there is no {path}; {command}")
    assert trained.file is not None
    if read_origins(export.path).get(path.name) != file_sha256(trained.file):
        checkpoint = f" task.checkpoint={trained.checkpoint}"
        raise ValueError(f"{key}: {path} is not an export of {trained.file}; {command}{checkpoint}")
    return load_onnx(path) if name == "onnx" else OpenVINO(path, BF16 if runtime.endswith(BF16) else F32)
