"""`task=visualize`: figures, tables and README."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ghostexp.models.ghostnetv3 import ghostnetv3
from tests.cli import TINY, command, in_directory
from tests.training.test_wandb import records


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_visualize_readme_figures_and_tables_agree(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = ("task.layers=[conv1,layer3.0.*1]", "task.num_images=40", "task.num_shown=2", "logger=wandb")
    assert command("task=visualize", f"run={digits_run}", *layers) == 0
    folder = digits_run / "visualize"
    names = ["conv1", "layer3.0.conv1"]
    drawn = {f"{kind}_{name}.png" for kind in ("maps", "kernels", "pairs") for name in names}
    drawn |= {"correlations.png", "fits.png", "kinds.png"}
    assert {path.name for path in folder.glob("*.png")} == drawn
    for path in folder.glob("*.png"):
        assert len(set(Image.open(path).convert("L").tobytes())) > 10, path
    ghosts, pairs = rows_of(folder / "ghosts.csv"), rows_of(folder / "pairs.csv")
    assert len(ghosts) == 10 + 42  # of 16 and 64 maps at ratio 3
    assert len(pairs) == 6 + 22
    assert all(abs(float(row["r"])) <= 1 for row in ghosts)
    text = (folder / "README.md").read_text()
    result = json.loads((folder / "result.json").read_text())
    assert [row["layer"] for row in result["layers"]] == names
    assert f"| {result['layers'][0]['rank']:.1f} |" in text
    mixed = sum(row["kind"] == "mixed" for row in ghosts if row["layer"] == "conv1") / 10
    assert result["kinds"]["conv1"]["mixed"] == pytest.approx(mixed)
    assert "40 test images" in text
    assert text in capsys.readouterr().out
    logged = [path.name for path in folder.glob("wandb/offline-run-*/files/media/images/*.png")]
    assert len(logged) == len(drawn)
    assert [record.exit.exit_code for record in records(folder) if record.HasField("exit")] == [0]


def test_visualize_baseline_has_no_ghosts(tmp_path: Path) -> None:
    assert command(*TINY, in_directory(tmp_path / "run"), "trainer.max_epochs=1") == 0
    assert command("task=visualize", f"run={tmp_path / 'run'}", "task.layers=[layer1.0]", "task.num_images=8") == 0
    folder = tmp_path / "run" / "visualize"
    assert {path.name for path in folder.glob("*.png")} == {"pairs_layer1.0.png", "fits.png"}
    assert not (folder / "ghosts.csv").exists()
    assert "None of these layers has ghosts" in (folder / "README.md").read_text()
    assert float(rows_of(folder / "pairs.csv")[0]["unexplained_7"]) < 1


def test_visualize_classifies_known_filters(digits_run: Path) -> None:
    path = digits_run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    weight = checkpoint["state_dict"]["network.conv1.cheap_operation.0.weight"]  # (12, 1, 3, 3)
    weight.zero_()
    weight[:, 0, 1, 1] = torch.where(torch.arange(12) % 2 == 0, 2.0, 0.0)
    weight[:, 0, 1, 2] = torch.where(torch.arange(12) % 2 == 1, -2.0, 0.0)
    torch.save(checkpoint, path)
    assert command("task=visualize", f"run={digits_run}", "task.layers=[conv1]", "task.num_images=20") == 0
    rows = rows_of(digits_run / "visualize" / "ghosts.csv")
    assert [row["kind"] for row in rows] == ["identity", "shift"] * 5
    assert [float(row["r"]) for row in rows[::2]] == pytest.approx([1.0] * 5)
    assert {(row["down"], row["right"]) for row in rows[1::2]} == {("0", "-1")}
    assert [int(row["ghost"]) for row in rows] == list(range(6, 16))  # after six intrinsic maps
    assert [int(row["intrinsic"]) for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_visualize_fuses_training_branches(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(ghostnetv3(num_classes=10, width=0.25, image_size=16).state_dict(), file)
    data = ("datamodule=fake", "datamodule.num_images=16", "datamodule.image_size=16", "datamodule.batch_size=4")
    arguments = ("task=visualize", "model=ghostnetv3", "model.width=0.25", f"model.weights={file}", *data)
    layers = ("task.layers=blocks.1.*.ghost1", "task.num_images=3", "task.num_shown=1", in_directory(tmp_path / "run"))
    assert command(*arguments, *layers) == 0
    assert {row["layer"] for row in rows_of(tmp_path / "run" / "ghosts.csv")} == {"blocks.1.0.ghost1"}
