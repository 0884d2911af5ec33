"""Say what a trained network sees in image files."""

import glob
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ghostexp.data.folder import open_image
from ghostexp.runs.directory import RunDirectory, write_atomically
from ghostexp.runs.table import write_rows
from ghostexp.tasks import build
from ghostexp.tasks.class_names import class_names, readable
from ghostexp.tasks.trained import check_whole, images_of, inference_device, trained_network

SHOWN = 40  # images on the terminal
READERS = 8  # threads that decode

Decoded = list[tuple[Path, Tensor | ValueError]]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, best first; truth is its folder's name where that is a class."""

    path: str
    truth: str | None
    classes: list[str]
    probabilities: list[float]


def run(config: build.Config, directory: RunDirectory) -> dict[str, Any]:
    """Predict the images of `task.images`, write predictions.json and predictions.csv, and print the first ones.

    Raises ValueError: no images there, no trained network, or, when all others are written, some that are unreadable.
    """
    where, top = config["task"]["images"], check_whole(config, "top", 1)
    paths = find_images(str(where))
    trained = trained_network(config)
    datamodule = images_of(config)
    names = class_names(trained, datamodule)
    device = inference_device(config)
    network = trained.network.to(device).eval()
    done: list[Prediction] = []
    unreadable: dict[str, str] = {}
    for batch in decoded(paths, datamodule.eval_transform(), datamodule.in_chans, datamodule.batch_size):
        unreadable |= {str(path): str(image) for path, image in batch if isinstance(image, ValueError)}
        images = {path: image for path, image in batch if isinstance(image, Tensor)}
        if images:
            with torch.inference_mode():
                probabilities = network(torch.stack(list(images.values())).to(device)).float().softmax(1)
            done += named(list(images), probabilities.cpu(), names, top)
    _write(done, unreadable, directory)
    _show(done, directory)
    if unreadable:
        print(*(f"skipped {reason}" for reason in unreadable.values()), sep="\n", file=sys.stderr)
        counted = f"{len(unreadable)} of {len(paths)} images cannot be read"
        raise ValueError(f"task.images={where}: {counted}; the others are in {directory.path}/predictions.csv")
    return trained.record() | {"images": len(done)} | accuracy(done)


def find_images(where: str) -> list[Path]:
    """The files that a path or a glob means, in alphabetical order; of a folder, the images in it and below.

    Raises ValueError: there are none.
    """
    start = Path(where).expanduser()
    if start.is_dir():
        found = [path for path in start.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS]
    else:
        found = [start] if start.is_file() else [Path(name) for name in glob.glob(str(start), recursive=True)]
    found = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    if not found:
        raise ValueError(f"task.images={where}: no images there; a file, a folder or a quoted glob is needed")
    return found


def decoded(
    paths: Sequence[Path], transform: Callable[[Image], Tensor], in_chans: int, batch_size: int
) -> Iterator[Decoded]:
    """Batches of files as the network reads them, or with the reason why a file cannot be read; a bar on terminals."""

    def read(path: Path) -> Tensor | ValueError:
        try:
            return transform(open_image(path, in_chans))
        except ValueError as error:
            return error

    starts = range(0, len(paths), batch_size)
    with ThreadPoolExecutor(READERS) as threads:
        for start in track(starts, "predicting", transient=True, disable=not Console().is_terminal):
            batch = paths[start : start + batch_size]
            yield list(zip(batch, threads.map(read, batch), strict=True))


def named(paths: Sequence[Path], probabilities: Tensor, names: tuple[str, ...], top: int) -> list[Prediction]:
    """The `top` classes of each image, from probabilities (N, num_classes)."""
    shown = readable(names)
    of_folder = dict(zip(names, shown, strict=True))
    best = probabilities.topk(min(top, len(names)))
    return [
        Prediction(str(path), of_folder.get(path.absolute().parent.name), [shown[i] for i in chosen], values)
        for path, chosen, values in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def accuracy(done: Sequence[Prediction]) -> dict[str, float]:
    """Percent right, of the images whose folder says what they are; nothing if there are none."""
    right = [prediction.classes[0] == prediction.truth for prediction in done if prediction.truth is not None]
    return {"with_truth": len(right), "acc1": 100 * sum(right) / len(right)} if right else {}


def _write(done: Sequence[Prediction], unreadable: dict[str, str], directory: RunDirectory) -> None:
    content = {"predictions": [asdict(prediction) for prediction in done], "unreadable": unreadable}
    write_atomically(directory.path / "predictions.json", json.dumps(content, indent=2) + "\n")
    rows = []
    for prediction in done:
        row: dict[str, Any] = {"path": prediction.path, "truth": prediction.truth}
        for place, (name, value) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True), 1):
            row |= {f"class_{place}": name, f"probability_{place}": value}
        rows.append(row)
    write_rows(directory.path / "predictions.csv", rows)


def _show(done: Sequence[Prediction], directory: RunDirectory) -> None:
    right = accuracy(done)
    rows = [["image", "folder" if right else "", "classes"]]
    for prediction in done[:SHOWN]:
        guesses = zip(prediction.classes, prediction.probabilities, strict=True)
        guessed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in guesses)
        rows.append([prediction.path, prediction.truth or "", guessed])
    if len(done) > SHOWN:
        rows.append([f"... and {len(done) - SHOWN} more", "", ""])
    paths, folders = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{path:<{paths}}  {folder:<{folders}}  {guessed}".rstrip() for path, folder, guessed in rows]
    if right:
        lines.append(f"{right['acc1']:.2f} % of {right['with_truth']} images are of the class that their folder names")
    print(*lines, f"everything is in {directory.path}", sep="\n")
