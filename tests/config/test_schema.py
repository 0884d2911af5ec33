"""Test the schema of the configuration and the JSON schemas of conf/."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from jsonschema import Draft7Validator
from omegaconf import OmegaConf

from ghostexp.config.json_schema import RECIPES, schemas
from ghostexp.config.key import Key
from ghostexp.config.keys import GROUPS, LOSS, ROOT, SET_HERE
from ghostexp.config.schema import key_of
from ghostexp.config.signatures import signature
from ghostexp.config.task_keys import TASKS
from ghostexp.models.validation import RULES
from ghostexp.runs import config_keys
from tests.cli import command

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))


def content(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path))


def schema_of(path: Path) -> Path:
    """Return the schema that is referenced in the first lines of a file."""
    head = path.read_text().splitlines()[:2]
    (name,) = [found[1] for line in head if (found := re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", line))]
    return (path.parent / name).resolve()


def errors(content: Any, schema: Path) -> list[str]:
    return [error.message for error in Draft7Validator(json.loads(schema.read_text())).iter_errors(content)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_schema_accepts_each_file_and_rejects_misspelt_keys(path: Path) -> None:
    found, schema = content(path), schema_of(path)
    assert not errors(found, schema)
    if path.parent != CONF / "hydra" and path.parent != CONF / "hydra" / "launcher":  # Hydra's, submitit's own keys
        assert errors({**found, "sed": 3}, schema)


@pytest.mark.parametrize("folder", RECIPES)
def test_recipes_reference_the_root_schema(folder: str) -> None:
    assert {schema_of(path) for path in (CONF / folder).rglob("*.yaml")} == {(CONF / "schema.json").resolve()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"modle": {"ratio": 5}},
        {"model": {"ratoi": 5}},
        {"model": {"network": {"shrtcut": "A"}}},
        {"model": {"dw_size": 4}},
        {"trainer": {"max_epoch": 5}},
        {"trainer": {"callbacks": []}},
        {"trainer": {"precision": "bf61-mixed"}},
        {"optimizer": {"lr": 0}},
        {"optimizer": {"lr": "fast"}},
        {"loss": {"distil": {}}},
        {"logger": {"wandb": {"projct": "x"}}},
        {"task": {"nme": "fit"}},
        {"task": {"name": "fit", "top": 3}},
        {"hydra": {"sweeper": {"parms": {}}}},
        {"name": 11},
        {"compile": "of"},
    ],
    ids=str,
)
def test_schema_rejects_wrong_recipes(wrong: dict[str, Any]) -> None:
    assert errors(wrong, CONF / "schema.json")


@pytest.mark.parametrize(
    "right",
    [
        {"optimizer": {"lr": "${loss.label_smoothing}"}},
        {"trainer": {"profiler": "simple", "precision": 16}},
        {"defaults": [{"override /model": "mine"}], "model": {"depth": 4}},
        {"model": {"_target_": "mine.Network", "depth": 4}},
        {"loss": {"distill": {"teacher": {"name": "resnet18", "weights": "a.pth"}}}},
    ],
    ids=str,
)
def test_schema_accepts_references_and_third_party_targets(right: dict[str, Any]) -> None:
    assert not errors(right, CONF / "schema.json")


def test_committed_schemas_are_up_to_date() -> None:
    """Update them with: python -m ghostexp.config.json_schema."""
    made = schemas(CONF)
    assert {path: json.loads(path.read_text()) for path in CONF.rglob("schema.json")} == made


def test_config_keys_list_every_top_level_key() -> None:
    assert {*config_keys.KEYS, *config_keys.SWEEP_ONLY_KEYS} == set(ROOT)
    groups = {group for entry in content(CONF / "config.yaml")["defaults"] if entry != "_self_" for group in entry}
    assert groups - set(ROOT) == set(config_keys.GROUPS)


def test_every_key_has_a_description() -> None:
    tables = [ROOT, LOSS, *GROUPS.values(), *TASKS.values()]
    assert all(re.fullmatch(r"\S.*\.", key.about) for keys in tables for key in keys.values())


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in GROUPS], ids=lambda path: path.stem)
def test_signature_matches_inspect(path: Path) -> None:
    found = content(path)
    for node in [found, *[value for value in found.values() if isinstance(value, dict)]]:
        if "_target_" in node:
            found_signature = signature(node["_target_"])
            assert found_signature is not None
            assert list(found_signature.arguments) == list(inspect.signature(get_object(node["_target_"])).parameters)


@pytest.mark.parametrize(
    ("target", "known"), [("torch.optim.SGD", "lr"), ("timm.create_model", "pretrained"), ("torch.nothing.Here", None)]
)
def test_signature_of_third_party_targets(target: str, known: str | None) -> None:
    found = signature(target)
    assert (found is None) == (known is None)
    assert found is None or known in found.arguments


@pytest.mark.parametrize("name", sorted(RULES))
def test_model_key_ranges_match_validation_rules(name: str) -> None:
    key, (_, allowed) = GROUPS["model"][name], RULES[name]
    values = [True, "two", -1, 0, 0.5, 1, 2, 3, 1.5, [], [1], [0.5, 2.0]]
    if "array" in key.kinds:  # elements of a list are checked by the network
        values = [value for value in values if value != [] and not isinstance(value, list)]
    assert [key.allows(value) for value in values] == [bool(allowed(value)) for value in values]


def test_arguments_set_by_the_program_are_rejected_keys() -> None:
    """Check that every argument that tasks/common passes to a target is refused in the configuration."""
    modules = [importlib.import_module(f"ghostexp.tasks.common.{name}") for name in ("instantiate", "build_network")]
    trees = [ast.parse(inspect.getsource(module)) for module in modules]
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "instantiate_node"
    ]
    passed = {
        (re.split(r"\W", ast.unparse(call.args[1]).lstrip("f'"))[0], str(argument.arg))
        for call in calls
        for argument in call.keywords
        if argument.arg is not None  # trainer.strategy=ddp, with our class for it
    }
    assert {group for group, _ in passed} == {"trainer", "callbacks", "model"}
    refused = {(group, name) for group, names in SET_HERE.items() for name in names}
    assert passed - refused == {("model", "backbone")}  # built from model.backbone of the configuration


@pytest.mark.parametrize(
    ("path", "task", "is_text"),
    [
        ("name", "fit", True),
        ("datamodule.root", "fit", True),
        ("model.backbone.weights", "fit", True),
        ("loss.distill.teacher", "fit", True),
        ("loss.distill.teacher.weights", "fit", True),
        ("task.input", "predict", True),
        ("task.num_images", "visualize", False),
        ("logger.wandb.notes", "fit", True),
        ("hydra.run.dir", "fit", True),
        ("model.ratio", "fit", False),
    ],
)
def test_key_of_finds_text_keys(path: str, task: str, is_text: bool) -> None:
    key = key_of(path, task)
    assert isinstance(key, Key)
    assert key.is_text == is_text


RECIPE = "# @package _global_\n"
WRONG = [
    ("sed: 3\nmodle: {ratio: 5}", "experiment/mine.yaml: sed: the configuration has no sed", "did you mean seed?"),
    ("trainer: {max_epoch: 1}", "experiment/mine.yaml: trainer.max_epoch: trainer has no max_epoch", "max_epochs?"),
    ("model: {ratoi: 5}", "experiment/mine.yaml: model.ratoi: model has no ratoi", "did you mean model.ratio?"),
    ("optimizer: {lr: fast}", "experiment/mine.yaml: optimizer.lr=fast: must be a number > 0", ""),
    ("optimizer: 3", "experiment/mine.yaml: optimizer=3: must be a mapping, {KEY:VALUE}", ""),
    ("model.ratio: 3", "experiment/mine.yaml: model.ratio: nested keys are written as model: {ratio: 2}", ""),
    ("name: 1_1", "experiment/mine.yaml: name=11: must be text (in YAML: in quotes) or null", ""),
    ("logger: {csv: {path: x}}", "experiment/mine.yaml: logger.csv.path: logger.csv has no path", ""),
    ("trainer: {plugins: []}", "experiment/mine.yaml: trainer.plugins: is set by the program; use trainer.pre", ""),
    ("optimizer: {lr: '${my_lr}'}", "optimizer.lr: Interpolation key 'my_lr' not found", ""),
]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return a user's config directory."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "study").mkdir()
    return tmp_path / "mine"


@pytest.mark.parametrize(("text", "wanted", "hint"), WRONG, ids=lambda value: str(value)[:30])
def test_error_names_wrong_recipe(
    text: str, wanted: str, hint: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "experiment" / "mine.yaml").write_text(RECIPE + text)
    assert command("experiment=mine", "--config-dir", str(mine)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {wanted}")
    assert line.endswith(hint)


@pytest.mark.parametrize("head", ["", "# what it is for\n# @package _global_\n"])
def test_error_names_recipe_without_package_line(head: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "experiment" / "mine.yaml").write_text(f"{head}trainer: {{max_epochs: 1}}")
    assert command("--config-dir", str(mine), "experiment=mine") == 1
    wanted = "error: experiment/mine.yaml: its first line must be `# @package _global_`; without it nothing is set\n"
    assert capsys.readouterr().err == wanted


def test_error_names_misspelt_grid(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "hydra: {mode: MULTIRUN, sweeper: {parms: {seed: '0,1'}}}"
    (mine / "study" / "mine.yaml").write_text(RECIPE + text)
    assert command("--config-dir", str(mine), "study=mine") == 1
    wanted = "error: study/mine.yaml: hydra.sweeper.parms: hydra.sweeper has no parms; "
    wanted += "there is params, baseline_grid, report_baseline"
    assert capsys.readouterr().err.startswith(wanted)


def test_error_names_dotted_key_of_a_grid(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "study" / "mine.yaml").write_text(RECIPE + "hydra: {mode: MULTIRUN, sweeper: {params.seed: '0,1'}}")
    assert command("--config-dir", str(mine), "study=mine") == 1
    wanted = "error: study/mine.yaml: hydra.sweeper.params.seed: nested keys are written as model: {ratio: 2}"
    assert capsys.readouterr().err.startswith(wanted)


def test_report_on_a_study_rejects_unknown_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("task=report", "study=width", "+task.tilte=x") == 1
    wanted = "error: +task.tilte=x: task has no tilte; there is name, runs, output_dir, title, baseline; "
    wanted += "did you mean task.title?"
    assert capsys.readouterr().err.strip() == wanted


def test_recipe_may_have_variables_and_other_arguments(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["my_epochs: 0", "trainer: {max_epochs: '${my_epochs}', profiler: simple, detect_anomaly: true}"]
    (mine / "experiment" / "mine.yaml").write_text(RECIPE + "\n".join(lines))
    assert command("--config-dir", str(mine), "experiment=mine") == 1
    assert (
        "experiment/mine.yaml: trainer.max_epochs=0: must be an integer >= 1" in capsys.readouterr().err
    )  # and that only


def test_third_party_network_has_its_own_keys(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_package.py").write_text("def network(num_classes: int, depth: int = 3, *, width='wide'): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = "model: {_target_: my_package.network, num_classes: 10, width: narrow, "
    for rest, wanted in (
        (
            "detph: 4}",
            "experiment/mine.yaml: model.detph: model has no detph; there is weights, reset_head, plan, num_classes",
        ),
        ("depth: deep}", "experiment/mine.yaml: model.depth=deep: must be an integer"),
    ):
        (mine / "model").mkdir(exist_ok=True)
        (mine / "model" / "mine.yaml").write_text("_target_: my_package.network\nnum_classes: 10\n")
        (mine / "experiment" / "mine.yaml").write_text(
            f"{RECIPE}defaults: [_self_, {{override /model: mine}}]\n{node}{rest}"
        )
        assert command("--config-dir", str(mine), "experiment=mine") == 1
        assert capsys.readouterr().err.startswith(f"error: {wanted}")
