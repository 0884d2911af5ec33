"""Test the conversion of shell arguments to Hydra's: flags at any position, text and special characters."""

import shlex
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from ghostexp.config.arguments import form_to_type, hydra_args
from ghostexp.runs.directory import RunDirectory
from tests.cli import TINY, command, finish

ODD = "数据 (1)/o=1,b/[x]{y}#é '\"$5_$"  # special in Hydra's grammar or in a shell


def value_of(argument: str) -> object:
    """Parse an override with Hydra."""
    (override,) = OverridesParser.create().parse_overrides([argument])
    return override.value()


TEXTS = [
    "plain",
    "1_1",
    "2026_01_15",
    "1e3",
    "007",
    "true",
    "on",
    "None",
    "a b",
    "lr=0.1",
    "a,b",
    "[a]",
    "{a:1}",
    "a#b",
]
TEXTS += [
    "#a",
    "it's",
    'say "x"',
    "~/a",
    "a(1)",
    "数据/T",
    "café",
    "x\\y",
    "\\",
    "$5_$",
    "a:b",
    "range(1,3)",
    "'",
    "'a'b",
]


@pytest.mark.parametrize("text", [*TEXTS, ODD])
@pytest.mark.parametrize("key", ["name", "datamodule.root", "model.weights", "run", "+logger.wandb.notes"])
def test_text_is_passed_as_typed(key: str, text: str) -> None:
    (argument,) = hydra_args([f"{key}={text}"])
    assert value_of(argument) == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("'a b'", "a b"), ('"1_1"', "1_1"), ("a\\=1\\,2", "a=1,2"), ("null", None), ("${data_dir}/x", "${data_dir}/x")],
)
def test_hydra_syntax_in_text_is_kept(typed: str, meant: str | None) -> None:
    (argument,) = hydra_args([f"datamodule.root={typed}"])
    assert value_of(argument) == meant


def test_quotes_in_a_path_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("'a'").mkdir()
    (argument,) = hydra_args(["datamodule.root='a'"])
    assert value_of(argument) == "'a'"


@pytest.mark.parametrize(
    ("typed", "meant"), [("on", True), ("off", False), ("Yes", True), ("no", False), ("true", True), ("of", "of")]
)
def test_booleans_are_those_of_yaml(typed: str, meant: object) -> None:
    for key in ("compile", "logger.wandb.offline", "task.show_flops"):
        *_, argument = hydra_args(["task=profile", f"{key}={typed}"])
        assert value_of(argument) == meant


def test_numbers_lists_and_unknown_keys_are_unchanged() -> None:
    typed = [
        "model.ratio=1_0",
        "model.exclude=[first,1x1]",
        "task.runs=[a/*,b]",
        "+mine.key=1_1",
        "model=ghostnet",
        "~loss",
    ]
    assert hydra_args(["task=report", *typed]) == ["task=report", *typed]


@pytest.mark.parametrize(
    ("typed", "for_sweep"),
    [
        ("name=1_1", "name='1_1'"),
        ("name=a,b", "name='a,b'"),
        ("output_dir=a,b", "output_dir='a,b'"),
        ("compile=on,off", "compile=true,false"),
        ("model.weights=a,数据/b", "model.weights=a,'数据/b'"),
        ("model.weights='a,b',c", "model.weights='a,b',c"),
        ("model.weights=glob(*)", "model.weights=glob(*)"),
        ("seed=range(0,3)", "seed=range(0,3)"),
    ],
)
def test_values_of_a_sweep_are_quoted_one_by_one(typed: str, for_sweep: str) -> None:
    for sweep in ("-m", "--multirun", "study=width", "hydra.mode=MULTIRUN"):
        assert for_sweep in hydra_args([typed, sweep])


def test_existing_path_with_comma_is_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    assert hydra_args(["-m", "datamodule.root=a,b", "seed=0,1"]) == ["datamodule.root='a,b'", "seed=0,1", "-m"]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["model=ghostnet", "-m", "seed=0,1"], ["model=ghostnet", "seed=0,1", "-m"]),
        (["--config-dir", "mine", "model=net"], ["model=net", "--config-dir", "mine"]),
        (
            ["a=1", "--config-dir=mine", "b=2", "--cfg", "job", "c=3"],
            ["a=1", "b=2", "c=3", "--config-dir=mine", "--cfg", "job"],
        ),
        (["--config-dir", "model=net", "model=net"], ["model=net", "--config-dir", "model=net"]),
        (["seed=1\r", "name=x\r", "\r"], ["seed=1", "name=x"]),
        (["-sc", "query=bash"], ["query=bash", "-sc"]),
    ],
)
def test_flags_are_moved_back_and_carriage_returns_stripped(typed: list[str], wanted: list[str]) -> None:
    assert hydra_args(typed) == wanted


def test_cfg_flag_between_overrides_prints_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("model=ghostnet", "--cfg", "job", "name=1_1", "compile=off\r") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["name"], shown["compile"]) == ("1_1", False)
    assert shown["model"]["_target_"] == "ghostexp.models.ghostnet.ghostnet"


def test_form_to_type_is_parsed_to_the_value() -> None:
    (argument,) = shlex.split(form_to_type("optimizer.lr=it's 数"))
    assert value_of(argument) == "it's 数"
    (argument,) = shlex.split(form_to_type("task.runs=[数据/a, b c]"))
    assert value_of(argument) == ["数据/a", "b c"]


def test_run_works_in_a_path_with_special_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ODD).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ODD)
    variable = ("+my_epochs=1", "trainer.max_epochs=${my_epochs}")
    assert command(*TINY, *variable, "output_dir=out (é)", "name=1_1,2") == 0
    (run,) = Path("out (é)/1_1,2").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == "1_1,2"
    for path in (str(run), f"'{run.parent}/{run.name}'", str(run.absolute())):
        assert command("task=test", f"run={path}") == 0
    (typed,) = shlex.split(RunDirectory(run.absolute()).resume_command)[3:]
    capsys.readouterr()
    assert command(typed) == 0
    assert "finished already" in capsys.readouterr().err
    assert command("task=test", *TINY, f"model.weights={run}/checkpoints/last.ckpt", "output_dir=again") == 0
    assert command("task=test", f"run={run}", "datamodule.image_size=数") == 1
    assert "type 'datamodule.image_size=\"数\"'" in capsys.readouterr().err


def test_data_paths_with_special_characters_are_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("datamodule=image_folder", f"datamodule.root={tmp_path}/{ODD}") == 1
    assert f"datamodule.root={tmp_path}/{ODD}: no such folder" in capsys.readouterr().err
    assert command("task=report", f"task.runs={ODD}") == 1
    assert f"task.runs={ODD}: must match directories of training runs" in capsys.readouterr().err


def test_sweep_works_in_a_path_with_special_characters(tmp_path: Path) -> None:
    sweep = ("-m", *TINY, "trainer.max_epochs=1", "seed=0,1", "name=lr=0.1 é", f"output_dir={tmp_path}/{ODD}")
    code, _, err = finish(*sweep)
    assert code == 0, err
    jobs = tmp_path / ODD / "lr=0.1 é"
    assert {path.parent.name for path in jobs.glob("*/result.json")} == {"seed-0", "seed-1"}
    assert command("task=test", f"run={jobs}/seed-0") == 0
    assert command("task=report", f"task.runs={jobs}") == 0
