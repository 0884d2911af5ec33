"""Export a trained network, and check that each file computes the same logits and has the same accuracy."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostexp.analysis.cost import count_cost
from ghostexp.analysis.runtimes import Converter, Logits
from ghostexp.data.classification_datamodule import ClassificationDataModule
from ghostexp.data.third_party_datamodule import ThirdPartyDataModule
from ghostexp.models.base import Network
from ghostexp.models.fuse import fuse
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_atomically, write_json
from ghostexp.tasks.common import instantiate
from ghostexp.tasks.common.class_names import check_class_names, known_names, readable
from ghostexp.tasks.common.export_checks import TOLERANCE, Reference, build_reference, test_accuracies
from ghostexp.tasks.common.export_files import FILES, INEXACT, ExportFiles, check_formats, record_origin
from ghostexp.tasks.common.load_model import LoadedModel, build_classification_data, load_trained_model, set_up_test
from ghostexp.tasks.common.model_card import Card
from ghostexp.tasks.common.timm_config import write_timm_config

Data = ClassificationDataModule | ThirdPartyDataModule
Checks = dict[str, dict[str, float]]
RANDOM_BATCHES = (1, 3)

log = logging.getLogger(__name__)


def run(config: instantiate.Config, directory: RunDirectory) -> dict[str, Any]:
    """Write the files of `task.formats` and README.md, the model card.

    Files are renamed into place when all of them have been compared with the network and tested; older ones stay until
    then.
    Raises ValueError: an unknown format, a missing package, unreadable data, or a file that differs from the network
    by more than rounding explains.
    """
    formats, count_checked = check_formats(config["task"]["formats"]), config["task"]["num_check_images"]
    trained = load_trained_model(config | {"compile": False})
    datamodule = build_classification_data(config)
    mean_std = datamodule.mean_std()
    network = trained.network.to(memory_format=torch.contiguous_format).eval()
    assert isinstance(network, Network)
    shape = (datamodule.in_chans, datamodule.image_size, datamodule.image_size)
    fused = fuse(network, shape)
    reference = build_reference(network, fused, list(check_images(datamodule, count_checked)), shape)
    _warn_of_rounding(reference)
    files = ExportFiles(
        network, Converter(fused, shape, lambda: _calibration(datamodule, config), _concat_free(config))
    )
    tested = _test_images(datamodule, config, trained)
    checks = _write_files(formats, files, reference, directory.path, tested, trained.file)
    cost = count_cost(fused, shape)
    names = readable(known_names(trained, datamodule.num_classes))
    if names:
        write_json(directory.path / "classes.json", names)
    if "safetensors" in formats:
        write_timm_config(config, mean_std, names, directory.path / "config.json")
    named = {name: FILES[name] for name in formats}
    rounding = reference.rounding
    card = Card(config, trained, cost, mean_std, named, checks, rounding, has_names=bool(names))
    write_atomically(directory.path / "README.md", card.text())
    _show(checks, directory, files.converter.speedups)
    fused_cost = {"params_fused": cost.params, "macs_fused": cost.macs}
    written = [path.name for path in files.files]
    if any(name.startswith("openvino") for name in formats):
        fused_cost |= {"concat_free": config["task"]["concat_free"], "concat_free_speedup": files.converter.speedups}
    return trained.record() | fused_cost | {"files": written, "checks": checks, "rounding": rounding}


def check_images(datamodule: Data, count: int) -> Iterator[Tensor]:
    """Yield batches (N, C, H, W) of `count` test images, and random ones of other batch sizes."""
    shape = (datamodule.in_chans, datamodule.image_size, datamodule.image_size)
    generator = torch.Generator().manual_seed(0)
    if count:
        set_up_test(datamodule)
        yield from (images for images, _ in datamodule.test_sample(count))
        datamodule.teardown("test")
    for size in RANDOM_BATCHES:
        yield torch.randn(size, *shape, generator=generator)


def _test_images(datamodule: Data, config: instantiate.Config, trained: LoadedModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of images and classes on which accuracies are measured."""
    task = config["task"]
    if task["num_test_images"] == 0 or (task["num_test_images"] is None and task["num_check_images"] == 0):
        return
    set_up_test(datamodule)
    check_class_names(trained, datamodule)
    yield from datamodule.test_sample(task["num_test_images"] or datamodule.test_images)
    datamodule.teardown("test")


def _calibration(datamodule: Data, config: instantiate.Config) -> Iterator[Tensor]:
    """Yield batches of training images, prepared like test images."""
    set_up_test(datamodule)
    yield from (images for images, _ in datamodule.train_sample(config["task"]["num_calibration_images"]))
    datamodule.teardown("test")


def _concat_free(config: instantiate.Config) -> bool | None:
    """Return `task.concat_free`, None for `auto`."""
    chosen = config["task"]["concat_free"]
    return None if chosen == "auto" else bool(chosen)


def _warn_of_rounding(reference: Reference) -> None:
    if reference.tolerance > TOLERANCE:
        log.warning(
            "rounding to float32 changes the network's logits by %.1e of the largest one, as is usual for barely "
            "trained networks: files may differ by %.0e",
            reference.rounding,
            reference.tolerance,
        )


def _write_files(
    formats: list[str],
    files: ExportFiles,
    reference: Reference,
    folder: Path,
    test_images: Iterator[tuple[Tensor, Tensor]],
    checkpoint: Path | None,
) -> Checks:
    """Write the files under temporary names, compare them with the network, test them, then rename them."""
    functions: dict[str, Logits] = {"network": files.network, "fused": files.converter.network}
    checks: Checks = {"network": {}, "fused": reference.compare("the fused network", files.converter.network)}
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        for name in formats:
            for form, function in files.write(name, Path(temporary)).items():
                where = str(folder / FILES[name])
                checks[form] = reference.compare(where, function, is_exact=form not in INEXACT)
                functions[form] = function
        for form, tested in test_accuracies(functions, test_images).items():
            checks[form] |= tested
        names = [path.name for path in files.files]
        record_origin(folder, names, None)  # until all are in place
        for path in sorted(files.files, key=lambda path: path.suffix != ".bin"):  # weights before what refers to them
            path.replace(folder / path.name)
        record_origin(folder, names, checkpoint)
    return checks


def _show(checks: Checks, directory: RunDirectory, speedups: Mapping[str, float]) -> None:
    for name, check in checks.items():
        parts = []
        if "difference" in check:
            same = f"{check['same_predictions']} of {check['images']} predictions the same"
            parts += [f"logits within {check['difference']:.1e} of the largest", same]
        if "acc1" in check:
            parts.append(f"accuracy {check['acc1']:.2f} % on {check['test_images']} test images")
        if parts:
            print(f"{FILES.get(name, name):<17}  {', '.join(parts)}")
    for runtime, speedup in speedups.items():
        chosen = "chosen" if speedup > 1 else "not chosen"
        print(f"without concatenations, {runtime} takes {1 / speedup:.2f} of its time: {chosen}")
    print(f"{'outputs':<17}  {directory.path}")
