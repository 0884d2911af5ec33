"""ghostify.csv and the message about replaced convolutions."""

import csv
from pathlib import Path

import pytest

from tests.cli import TINY, command, in_directory
from tests.training.test_fit import result_of

SHORT = (*TINY, "trainer.max_epochs=1", "model=torchvision", "model.name=resnet18")


def test_ghostify_report_lists_replaced_convolutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*SHORT, "model.ratio=2", in_directory(run)) == 0
    rows = list(csv.DictReader((run / "ghostify.csv").open()))
    assert len(rows) == 19  # all but the first
    assert rows[0]["layer"] == "layer1.0.conv1"
    result, (line,) = result_of(run), [line for line in capsys.readouterr().out.splitlines() if "ghostify.csv" in line]
    before = result["params"] + sum(int(row["params_before"]) - int(row["params_after"]) for row in rows)
    assert before == 11_181_642  # torchvision's resnet18 with 10 classes
    assert f"19 convolutions replaced by ghost modules (ghostify.csv): parameters {before:,} -> " in line
    assert line in (run / "run.log").read_text()


def test_ghostify_report_of_baseline_is_absent(tmp_path: Path) -> None:
    assert command(*SHORT, in_directory(tmp_path / "run")) == 0
    assert not (tmp_path / "run" / "ghostify.csv").exists()
