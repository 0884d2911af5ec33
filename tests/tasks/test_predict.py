"""`task=predict`: predictions of image files equal those of the test set."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch

from ghostexp.tasks.common.class_names import class_names, imagenet_names, readable
from ghostexp.tasks.common.input_images import find_images
from ghostexp.tasks.common.load_model import LoadedModel
from tests.cli import command


def predictions_of(run: Path) -> dict[str, Any]:
    """Read predictions.json."""
    return json.loads((run / "predict" / "predictions.json").read_text())


def test_predict_test_images_has_test_accuracy(
    digits_run: Path, digit_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (digits_run / "checkpoints" / "best.ckpt").unlink()  # validate_on=test: the last one is what the run tested
    assert command("task=predict", f"run={digits_run}", f"task.input={digit_files}", "task.top_k=2") == 0
    result = json.loads((digits_run / "predict" / "result.json").read_text())
    tested = json.loads((digits_run / "result.json").read_text())["metrics"]["test"]["test/acc1"]
    assert result["acc1"] == pytest.approx(tested)
    assert result["images"] == result["num_labeled"] == 360
    found = predictions_of(digits_run)["predictions"]
    assert [prediction["path"] for prediction in found] == sorted(str(path) for path in digit_files.rglob("*.png"))
    with (digits_run / "predict" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class_1"] for row in rows] == [prediction["classes"][0] for prediction in found]
    assert all(float(row["probability_1"]) >= float(row["probability_2"]) for row in rows)
    out = capsys.readouterr().out
    assert f"{found[0]['classes'][0]} {100 * found[0]['probabilities'][0]:.1f} %" in out
    assert f"accuracy {tested:.2f} % on 360 images" in out


def test_predict_skips_unreadable_files_and_fails(
    digits_run: Path, digit_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(digit_files / "3", folder)
    names = sorted(path.name for path in folder.iterdir())
    assert command("task=predict", f"run={digits_run}", f"task.input={folder / names[0]}") == 0
    assert (digits_run / "predict" / "result.json").exists()
    (folder / "aaa.png").write_bytes(b"no image")
    (folder / "zzz.jpg").write_bytes(b"")
    assert command("task=predict", f"run={digits_run}", f"task.input={folder}/*", "datamodule.batch_size=10") != 0
    err = capsys.readouterr().err
    assert f"skipped {folder}/aaa.png: not a readable image" in err
    assert f"skipped {folder}/zzz.jpg: not a readable image" in err
    assert f"error: task.input={folder}/*: 2 of {len(names) + 2} images have no prediction" in err
    found = predictions_of(digits_run)
    assert [Path(prediction["path"]).name for prediction in found["predictions"]] == names
    assert [Path(path).name for path in found["unreadable"]] == ["aaa.png", "zzz.jpg"]
    assert not (digits_run / "predict" / "result.json").exists()


def test_predict_loads_chosen_checkpoint(digits_run: Path, digit_files: Path) -> None:
    photo = next(digit_files.rglob("*.png"))
    path = digits_run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["network.fc.bias"][7] += 1000
    path.unlink()  # it may be a link to last.ckpt
    torch.save(checkpoint, path)
    for chosen, is_seven in (("best", True), ("last", False), ("null", False)):
        assert command("task=predict", f"run={digits_run}", f"task.input={photo}", f"task.checkpoint={chosen}") == 0
        (prediction,) = predictions_of(digits_run)["predictions"]
        assert (prediction["probabilities"][0] == 1 and prediction["classes"][0] == "7") == is_seven


def test_class_names_are_read_from_checkpoint(tiny_run: Path, digit_files: Path) -> None:
    photo = next(digit_files.rglob("*.png"))
    moved = "datamodule._target_=ghostexp.data.datasets.image_folder.ImageFolder"  # without data on this machine
    gone = (moved, "~datamodule.num_images", "+datamodule.root=no/such/folder")
    gone += ("datamodule.mean=[0.5,0.5,0.5]", "datamodule.std=[0.25,0.25,0.25]")  # those of the run
    assert command("task=predict", f"run={tiny_run}", f"task.input={photo}", *gone) == 0
    (prediction,) = predictions_of(tiny_run)["predictions"]
    assert set(prediction["classes"]) <= {f"class{number}" for number in range(10)}
    assert prediction["target"] is None


def test_data_are_downloaded_before_their_class_names_are_read() -> None:
    datamodule = Mock(num_classes=2, class_names=("cat", "dog"))
    assert class_names(LoadedModel(Mock(), Mock(), "weights.pth"), datamodule) == ("cat", "dog")
    assert datamodule.method_calls == [call.prepare_data(), call.setup("test")]


def test_find_images_searches_recursively_for_images(digit_files: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b/c/d.JPG", "b/notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(str(tmp_path)).paths == [tmp_path / "a.png", tmp_path / "b/c/d.JPG"]
    assert find_images(f"{tmp_path}/**/*.txt").paths == [tmp_path / "b/notes.txt"]
    assert find_images(str(tmp_path / "b/notes.txt")).paths == [tmp_path / "b/notes.txt"]
    with pytest.raises(ValueError, match="got no images"):
        find_images(str(tmp_path / "nothing*"))


def test_find_images_follows_links_once(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.jfif").touch()
    (tmp_path / "photos" / "notes.txt").touch()
    (tmp_path / "photos" / "cat" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "other").symlink_to(tmp_path / "photos" / "cat")
    (tmp_path / "linked").symlink_to(tmp_path / "photos")
    for where in ("photos", "linked", "photos/*", "**/*.jfif", "photos/**", "photos/c?t/a.*", "**/cat/**/a.jfif"):
        found = find_images(str(tmp_path / where))
        assert [path.name for path in found.paths if path.suffix == ".jfif"] == ["a.jfif"], where
    assert [path.name for path in find_images(str(tmp_path / "photos")).left_out] == ["notes.txt"]


def test_label_is_class_folder_of_training(tmp_path: Path) -> None:
    path = tmp_path / "set" / "cat" / "session" / "dog" / "a.png"
    path.parent.mkdir(parents=True)
    path.touch()
    classes = {"cat", "dog"}
    for where in ("set", "set/cat", "set/*", "set/cat/**/*.png"):
        files = find_images(str(tmp_path / where))
        label = files.label(files.paths[0], classes)
        assert label == ("dog" if where.startswith("set/cat") else "cat"), where
    files = find_images(str(path))
    assert files.label(path, classes) == "dog"
    assert files.label(path, {"set", "session"}) is None
    assert find_images(str(tmp_path / "set/cat")).label(path, {"cat"}) == "cat"


def test_readable_replaces_imagenet_folders_by_words() -> None:
    names = imagenet_names()
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert readable(tuple(f"n{number:08}" for number in range(1000))) == names
    assert readable(("n01440764", "cat")) == ("n01440764", "cat")


def test_predict_run_of_several_devices_in_one_process(
    digits_run: Path, digit_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = digits_run / "config.yaml"
    config.write_text(config.read_text().replace("devices: 1", "devices: 4"))
    photo = next(digit_files.rglob("*.png"))
    arguments = ("task=predict", f"run={digits_run}", f"task.input={photo}")
    assert command(*arguments) == 0
    assert not list((digits_run / "predict").glob("rank-*.log"))
    assert command(*arguments, "trainer.devices=2") != 0
    assert "trainer.devices=2, trainer.num_nodes=1: task=predict runs in one process" in capsys.readouterr().err
