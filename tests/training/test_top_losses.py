"""Confusion matrix and top losses of a test, against scikit-learn and a plain sort."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_score, recall_score
from torch import Tensor

from ghostexp.report.confusion import Mistake, class_rows, confused_rows, draw_confusion, draw_mistakes
from ghostexp.training.top_losses import NUM_TOP_LOSSES, TestRecorder
from tests import shortcuts
from tests.cli import TINY, command, in_directory

CLASSES = 7
DEVICE = torch.device("cpu")


def make_data(count: int, known: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Build images filled with their number, logits, and targets, of which the last `known` are predicted correctly."""
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, 2, 2)
    logits = 3 * torch.randn(count, CLASSES, generator=generator)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    targets[count - known :] = logits[count - known :].argmax(1)
    return images, logits, targets


def record(parts: list[tuple[Tensor, Tensor, Tensor]], rank: int = 0) -> TestRecorder:
    """Record batches on a device."""
    recorder = TestRecorder(CLASSES, DEVICE, rank)
    for images, logits, targets in parts:
        recorder.update(images, logits, targets)
    return recorder


def batches(data: tuple[Tensor, Tensor, Tensor], size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Split the data into batches."""
    return list(zip(*(values.split(size) for values in data), strict=True))


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("known", [0, 185])
@pytest.mark.parametrize("size", [200, 64, 3])
def test_recorder_matches_sklearn_and_sort_for_any_batch_size(size: int, known: int) -> None:
    _, logits, targets = data = make_data(200, known)
    outputs = record(batches(data, size)).compute(lambda values: values)
    predictions = logits.argmax(1)
    assert np.array_equal(outputs.confusion, confusion_matrix(targets, predictions, labels=range(CLASSES)))
    losses = F.cross_entropy(logits, targets, reduction="none")
    wrong = (predictions != targets).nonzero().flatten()
    order = wrong[losses[wrong].argsort(descending=True)][:NUM_TOP_LOSSES]
    worst = outputs.top_losses
    assert torch.equal(worst.images[:, 0, 0, 0].long(), order)
    assert torch.equal(worst.batches * size + worst.positions, order)
    assert torch.equal(worst.targets, targets[order])
    assert torch.equal(worst.predictions, predictions[order])
    assert torch.allclose(worst.probabilities, logits.softmax(1)[order].amax(1))
    assert torch.allclose(worst.losses, losses[order])


@pytest.mark.parametrize("known", [0, 185])
def test_recorder_of_two_devices_equals_one_device(known: int) -> None:
    images, logits, targets = data = make_data(200, known)
    few = [(images[:3], logits[:3], targets[:3])]
    most = batches((images[3:], logits[3:], targets[3:]), 19)
    assert (logits[:3].argmax(1) != targets[:3]).all()
    alone = record([data]).compute(lambda values: values)
    first, second = record(few), record(most, rank=1)
    theirs: list[Tensor] = []
    second.compute(lambda values: theirs.append(values) or values)  # the order in which a device gathers
    together = first.compute(lambda values: torch.stack([values, theirs.pop(0)]))
    assert torch.equal(together.confusion, alone.confusion)
    assert torch.equal(together.top_losses.images, alone.top_losses.images)
    assert torch.equal(together.top_losses.losses, alone.top_losses.losses)
    assert torch.equal(together.top_losses.ranks, (alone.top_losses.images[:, 0, 0, 0] >= 3).long())


def test_recorder_without_misclassified_images_is_empty() -> None:
    images, _, targets = make_data(30)
    outputs = record([(images, 9 * F.one_hot(targets, CLASSES).float(), targets)]).compute(lambda values: values)
    assert torch.equal(outputs.confusion, outputs.confusion.diag().diag())
    assert len(outputs.top_losses.losses) == len(outputs.top_losses.images) == 0
    assert draw_mistakes(np.zeros((0, 2, 2, 3)), [], "", Path("never")) is None


def test_class_rows_are_recall_and_precision_confused_rows_are_sorted() -> None:
    _, logits, targets = make_data(200)
    predictions, names = logits.argmax(1), [f"c{number}" for number in range(CLASSES)]
    confusion = confusion_matrix(targets, predictions, labels=range(CLASSES))
    found = class_rows(confusion, names)
    recall = recall_score(targets, predictions, average=None)  # pyright: ignore[reportArgumentType]
    precision = precision_score(targets, predictions, average=None)  # pyright: ignore[reportArgumentType]
    assert [row["accuracy"] for row in found] == pytest.approx(100 * np.asarray(recall), abs=1e-4)
    assert [row["precision"] for row in found] == pytest.approx(100 * np.asarray(precision), abs=1e-4)
    pairs = confused_rows(confusion, names)
    wrong = [row["images"] for row in pairs if row["target"] != row["prediction"]]
    assert wrong == sorted(wrong, reverse=True)
    assert sorted(row["target"] for row in pairs[len(wrong) :]) == names
    assert sum(row["images"] for row in pairs) == 200


def test_class_rows_undefined_accuracy_and_precision_are_empty() -> None:
    first, second = class_rows(np.array([[0, 0], [3, 0]]), ["a", "b"])
    assert first == {"class": "a", "images": 0, "accuracy": "", "precision": 0.0, "most_confused_with": ""}
    assert second == {"class": "b", "images": 3, "accuracy": 0.0, "precision": "", "most_confused_with": "a"}


@pytest.mark.parametrize("count", [2, 20, 100])
def test_draw_confusion_up_to_a_hundred_classes(count: int, tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    names = [f"a class with a name {number}" for number in range(count)]
    assert draw_confusion(np.eye(count, dtype=int), names, "title", path) == path
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert (pixels < 40).mean() > 0.2 / count  # the diagonal is there, and dark


def test_draw_confusion_more_than_a_hundred_classes_is_none(tmp_path: Path) -> None:
    assert draw_confusion(np.eye(101, dtype=int), ["x"] * 101, "title", tmp_path / "confusion.png") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (7, 40, 60, 3)])
def test_draw_mistakes_grayscale_and_color(shape: tuple[int, ...], tmp_path: Path) -> None:
    mistakes = [Mistake(number, "target", "prediction", 0.9, 2.0) for number in range(shape[0])]
    pixels = np.zeros(shape)
    pixels[..., 0] = 1.0
    path = draw_mistakes(pixels, mistakes, "title", tmp_path / "misclassified.png")
    assert path is not None
    with Image.open(path) as image:
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    red = (drawn == (255, 0, 0)).all(1).mean()
    assert red > 0.1 if shape[-1] == 3 else red == 0


def test_fit_and_test_write_equal_confusion_and_misclassified_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", shortcuts.savefig)
    run = tmp_path / "run"
    assert command(*TINY, "datamodule.num_images=200", in_directory(run)) == 0
    pairs, classes, mistakes = (rows(run / f"{name}.csv") for name in ("confusion", "per_class", "misclassified"))
    assert sum(int(row["images"]) for row in pairs) == 50
    correct = sum(int(row["images"]) for row in pairs if row["target"] == row["prediction"])
    tested = json.loads((run / "result.json").read_text())["metrics"]["test"]["test/acc1"]
    assert tested == pytest.approx(100 * correct / 50)
    assert [row["class"] for row in classes] == [f"class{number}" for number in range(10)]
    assert len(mistakes) == min(NUM_TOP_LOSSES, 50 - correct)
    assert len({row["image"] for row in mistakes}) == len(mistakes)
    assert all(row["target"] == f"class{int(row['image']) % 10}" != row["prediction"] for row in mistakes)
    for name in ("confusion", "misclassified"):
        with Image.open(run / f"{name}.png") as image:
            assert min(image.size) > 300
    assert command("task=test", f"run={run}") == 0
    for name in ("confusion", "per_class", "misclassified"):
        assert (run / "test" / f"{name}.csv").read_text() == (run / f"{name}.csv").read_text()
