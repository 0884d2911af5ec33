"""Export a trained network, and check that each file computes the same logits."""

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import ExportedProgram

from ghostexp.analysis.cost import count_cost
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule
from ghostexp.models.base import Network
from ghostexp.models.fuse import fuse
from ghostexp.models.weights import load_weights
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_atomically, write_json
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.class_names import known_names, readable
from ghostexp.tasks.common.export_checks import TOLERANCE, Logits, Reference, build_reference
from ghostexp.tasks.common.load_model import build_classification_data, check_int, load_trained_model
from ghostexp.tasks.common.model_card import Card
from ghostexp.tasks.common.timm_config import write_timm_config

FILES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": (), "safetensors": ()}
RANDOM_BATCHES = (1, 3)
BATCH_AXIS = ({0: torch.export.Dim("batch")},)  # batches may have any size

log = logging.getLogger(__name__)


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Write the files of `task.formats` (model.onnx, model.pt2, model.safetensors) and README.md, the model card.

    Files are renamed into place when all of them have been compared with the network; older ones stay until then.
    Raises ValueError: an unknown format, a missing package, unreadable data, or a file that differs from the network
    by more than rounding explains.
    """
    formats, count_checked = check_formats(config["task"]["formats"]), check_int(config, "num_check_images", 0)
    trained = load_trained_model(config | {"compile": False})
    datamodule = build_classification_data(config)
    mean_std = datamodule.mean_std()
    network = trained.network.to(memory_format=torch.contiguous_format).eval()
    assert isinstance(network, Network)
    fused = fuse(network)
    reference = build_reference(network, fused, list(check_images(datamodule, count_checked)))
    _warn_of_rounding(reference)
    checks = {"fused": reference.compare("the fused network", fused)}
    checks |= _write_files(formats, network, fused, reference, directory.path)
    cost = count_cost(fused, (datamodule.in_chans, datamodule.image_size, datamodule.image_size))
    names = readable(known_names(trained, datamodule.num_classes))
    if names:
        write_json(directory.path / "classes.json", names)
    if "safetensors" in formats:
        write_timm_config(config, mean_std, names, directory.path / "config.json")
    files = {name: FILES[name] for name in formats}
    rounding = reference.rounding
    card = Card(config, trained, cost, mean_std, files, checks, rounding, has_names=bool(names))
    write_atomically(directory.path / "README.md", card.text())
    _show(checks, directory)
    fused_cost = {"params_fused": cost.params, "macs_fused": cost.macs}
    return trained.record() | fused_cost | {"files": list(files.values()), "checks": checks, "rounding": rounding}


def check_formats(formats: object) -> list[str]:
    """Return the requested formats as a list.

    Raises ValueError: an unknown format, or a missing package.
    """
    wanted = [str(name) for name in (formats if isinstance(formats, list) else [formats])]
    for name in wanted:
        if name not in FILES:
            raise ValueError(f"task.formats={name}: must be one or several of {', '.join(FILES)}")
        missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        if missing:
            raise ValueError(f'task.formats={name}: needs {", ".join(missing)}; pip install "ghostexp[export]"')
    if not wanted:
        raise ValueError(f"task.formats=[]: must be one or several of {', '.join(FILES)}")
    return wanted


def check_images(datamodule: ClassificationDataModule | ThirdPartyDataModule, count: int) -> Iterator[Tensor]:
    """Yield batches (N, C, H, W) of `count` test images, and random ones of other batch sizes."""
    shape = (datamodule.in_chans, datamodule.image_size, datamodule.image_size)
    generator = torch.Generator().manual_seed(0)
    if count:
        datamodule.setup("test")
        yield from (images for images, _ in datamodule.test_sample(count))
        datamodule.teardown("test")
    for size in RANDOM_BATCHES:
        yield torch.randn(size, *shape, generator=generator)


def _warn_of_rounding(reference: Reference) -> None:
    if reference.tolerance > TOLERANCE:
        log.warning(
            "rounding to float32 changes the network's logits by %.1e of the largest one, as is usual for barely "
            "trained networks: files may differ by %.0e",
            reference.rounding,
            reference.tolerance,
        )


def _write_files(
    formats: list[str], network: Network, fused: Network, reference: Reference, folder: Path
) -> dict[str, dict[str, float]]:
    """Write the files under temporary names, compare them with the network, then rename them."""
    checks = {}
    program = cache(partial(_program, fused, reference.images[-1][:2]))  # the same for both formats that need it
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        for name in formats:
            loaded = _write(name, network, program, Path(temporary, FILES[name]))
            checks[name] = reference.compare(str(folder / FILES[name]), loaded)
        for name in formats:
            Path(temporary, FILES[name]).replace(folder / FILES[name])
    return checks


def _write(name: str, network: Network, program: Callable[[], ExportedProgram], path: Path) -> Logits:
    """Write one file, and return the function that it computes when loaded."""
    if name == "onnx":
        return _write_onnx(program(), path)
    return _write_torch(program(), path) if name == "torch" else _write_safetensors(network, path)


def _write_onnx(program: ExportedProgram, path: Path) -> Logits:
    import onnxruntime

    torch.onnx.export(
        program,
        (),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=BATCH_AXIS,  # known from the program, but without their names
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_torch(program: ExportedProgram, path: Path) -> Logits:
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _program(network: nn.Module, example: Tensor) -> ExportedProgram:
    """Export the network for batches of any size; an example of one image would specialise it to one."""
    return torch.export.export(network, (example,), dynamic_shapes=BATCH_AXIS)


def _write_safetensors(network: nn.Module, path: Path) -> Logits:
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    loaded = copy.deepcopy(network)
    for tensor in loaded.state_dict().values():
        tensor.zero_()
    load_weights(loaded, path)
    return loaded


def _show(checks: dict[str, dict[str, float]], directory: RunDirectory) -> None:
    for name, check in checks.items():
        agreed = f"{check['same_predictions']} of {check['images']} predictions the same"
        print(f"{FILES.get(name, name):<17}  logits within {check['difference']:.1e} of the largest, {agreed}")
    print(f"{'outputs':<17}  {directory.path}")
