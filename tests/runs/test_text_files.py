"""Test that files are UTF-8 in every locale, and that what cannot be encoded is escaped."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ghostexp.runs.csv_table import CSVTable, read_rows, write_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import escape, markdown_table, write_json
from tests.cli import command, finish_cold, in_directory
from tests.data.fake_image_folders import write_tree

PACKAGE = Path(__file__).parents[2] / "ghostexp"
LATIN = "caf\udce9"  # as Python decodes the bytes of Latin-1
CAT = "\u732b"
CAT_IN_C = CAT.encode().decode("ascii", "surrogateescape")  # as Python decodes UTF-8 in the C locale
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FOLDER = ("datamodule=image_folder", "datamodule.num_classes=2", "datamodule.batch_size=2", "model=resnet20")
FOLDER += ("trainer.max_epochs=1", "callbacks.progress=false", "threads=1", "datamodule.image_size=16")


def test_escape_replaces_what_cannot_be_encoded() -> None:
    assert escape(f"{LATIN} {CAT} {CAT_IN_C} \\ \ud83d") == f"caf\\xe9 {CAT} {CAT} \\ \\ud83d"


def test_json_csv_and_records_are_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {LATIN: [CAT_IN_C, 1]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"caf\\xe9": [CAT, 1]}
    write_rows(tmp_path / "a.csv", [{"name": LATIN, "other": CAT_IN_C}])
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"name": "caf\\xe9", "other": CAT}]
    run = RunDirectory(tmp_path)
    run.write_failure(ValueError(LATIN), LATIN)
    assert run.read_failure() == "caf\\xe9"


def test_non_utf8_path_in_config_is_restored(tmp_path: Path) -> None:
    config: dict[str, Any] = {"datamodule": {"root": f"/data/{LATIN}/{CAT}"}}
    RunDirectory(tmp_path).write_config(config)
    assert RunDirectory(tmp_path).read_config() == config


def test_csv_table_with_non_ascii_header_merges_rows(tmp_path: Path) -> None:
    table = CSVTable(tmp_path / "metrics.csv")
    table.add({"step": 1, CAT: 0.5})
    table.add({"step": 1, "loss": 2})
    table.add({"step": 1, "loss": 3})
    assert read_rows(tmp_path / "metrics.csv") == [{"step": "1", CAT: "0.5", "loss": "3"}]


def test_text_files_are_opened_with_encoding() -> None:
    """Check that text files are opened with an encoding; JSON and YAML are read as bytes."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and opens_text(node):
                assert "encoding" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


def opens_text(call: ast.Call) -> bool:
    """Return whether a call opens a file as text."""
    function = ast.unparse(call.func)
    modes = [str(argument.value) for argument in call.args if isinstance(argument, ast.Constant)]
    is_open = function.split(".")[-1] == "open" and function not in ("os.open", "Image.open")
    is_text = is_open and not any("b" in mode for mode in modes)
    return is_text or function.endswith((".read_text", ".write_text", ".FileHandler"))


SCRIPT = """
import logging, sys
from pathlib import Path
from ghostexp.runner.execute import setup_file_logging
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.csv_table import write_rows
from ghostexp.runs.text_files import escape_streams
(folder,) = Path.cwd().glob("tree/*")
escape_streams()
setup_file_logging(RunDirectory(Path.cwd()))
logging.warning("log %s", folder.name)
write_rows(Path("a.csv"), [{"name": folder.name}])
RunDirectory(Path.cwd()).write_config({"name": "\\u732b"})
print(folder.name, "\\u732b")
"""


def test_c_locale_writes_utf8_files_and_escapes_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "tree" / CAT).mkdir(parents=True)
    source = {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=os.environ | C_LOCALE | source,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == "\\u732b \\u732b"
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == f"name\n{CAT}\n"
    assert f"log {CAT}\n" in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert RunDirectory(tmp_path).read_config() == {"name": CAT}


def rename(tree: Path, before: str, after: bytes) -> None:
    for part in ("train", "test"):
        os.rename(tree / part / before, os.fsencode(tree / part) + b"/" + after)


def test_non_utf8_file_names_are_supported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path, {"train": 2, "test": 2}, classes=("ant", "bee"), size=16)
    rename(tree, "bee", b"caf\xe9")
    os.rename(tree / "test/ant/0000.png", os.fsencode(tree / "test/ant") + b"/\xb0\xa1.png")
    run = tree / "run"
    assert command(*FOLDER, f"datamodule.root={tree}", in_directory(run)) == 0
    assert "caf\\xe9" in (run / "per_class.csv").read_text(encoding="utf-8")
    assert command("task=predict", f"run={run}", f"task.input={tree}/test") == 0
    predictions = json.loads((run / "predict" / "predictions.json").read_text(encoding="utf-8"))["predictions"]
    assert [Path(one["path"]).name for one in predictions] == ["0001.png", "\\xb0\\xa1.png", "0000.png", "0001.png"]
    assert [one["target"] for one in predictions] == ["ant", "ant", "caf\\xe9", "caf\\xe9"]
    assert "\\xb0\\xa1.png" in capsys.readouterr().out


@pytest.mark.slow
def test_run_in_c_locale_has_utf8_names(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"train": 2, "test": 2}, classes=("ant", "bee"), size=16)
    rename(tree, "bee", CAT.encode())
    run = tree / "run"
    code, _, err = finish_cold(*FOLDER, f"datamodule.root={tree}", in_directory(run), timeout=300, **C_LOCALE)
    assert (code, err) == (0, "")
    code, out, _ = finish_cold("task=predict", f"run={run}", f"task.input={tree}/test", timeout=300, **C_LOCALE)
    assert code == 0
    assert "\\u732b" in out
    assert CAT in (run / "per_class.csv").read_text(encoding="utf-8")
    assert command("task=predict", f"run={run}", f"task.input={tree}/test") == 0
    predictions = json.loads((run / "predict" / "predictions.json").read_text(encoding="utf-8"))["predictions"]
    assert [one["target"] for one in predictions] == ["ant", "ant", CAT, CAT]


def test_markdown_table_escapes_cells_and_aligns_numbers() -> None:
    assert markdown_table(["|r|", "n"], [("a|b", 2)]) == "| \\|r\\| | n |\n| --- | --- |\n| a\\|b | 2 |"
    assert markdown_table(["", "n"], [], right=True).splitlines()[1] == "| --- | ---: |"
