"""READMEs: their commands compose, examples run, and every link, path and option that they name exists.

Bash reads the code blocks, with `python` and `ghostexp` replaced by functions that print their arguments, in restricted
mode and with a PATH that does not exist: nothing else can run. A block whose first line is `# PATH.py` or `# PATH.yaml`
is a file, which the commands find in their working directory.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from ghostexp.config.arguments import hydra_args
from ghostexp.config.compose import CONF, register_resolvers, resolve_config
from ghostexp.config.config_files import list_options
from ghostexp.config.key_table import with_key_tables
from ghostexp.config.run_overlay import parse_command_line
from ghostexp.sweeps.grid import Grid
from tests.cli import command, in_directory

ROOT = Path(__file__).parent.parent
READMES = [ROOT / folder / "README.md" for folder in (".", "conf", "ghostexp", "experiments", "tests")]
PAGES = sorted((ROOT / "experiments").glob("*/README.md"))
STUBS = """
python() { if [ "$1 $2" = "-m ghostexp" ]; then shift 2; ghostexp "$@"; fi; }
ghostexp() { printf 'COMMAND'; printf '\\037%s' "$@"; printf '\\036'; }
"""
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")
SHORT += ("trainer.limit_test_batches=1", "callbacks.progress=false", "threads=1")
RUN = {  # commands that are run, with what shortens them
    "--config-dir my_conf model=three_layers": SHORT,
    "--config-dir my_conf datamodule=stripes": SHORT,
    "task=test run=outputs/...": ("threads=1",),
    "--help": (),
    "model=ghost_vgg16 --cfg job": (),
}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of every code block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_with_stubs(script: str) -> str:
    """Run a script in which only `python`, `ghostexp` and what bash itself has can run; returns its output."""
    # the PATH comes from outside: restricted mode refuses to change it in the script
    bash = shutil.which("bash")
    assert bash
    command_line = [bash, "--restricted", "-c", STUBS + script]
    environment = {"PATH": "/does-not-exist"}
    return subprocess.run(command_line, env=environment, capture_output=True, text=True, cwd="/", timeout=60).stdout


def ghostexp_arguments(script: str) -> list[list[str]]:
    """The arguments of every ghostexp command in a script."""
    printed = run_with_stubs(script)
    return [record.split("\x1f")[1:] for record in re.findall(r"COMMAND([^\x1e]*)\x1e", printed)]


def extract_commands(readme: Path) -> list[list[str]]:
    """The arguments of every ghostexp command in a README, from code blocks and from inline code."""
    text = readme.read_text()
    found = ghostexp_arguments("\n".join(content for language, content in blocks(text) if language == "bash"))
    inline = re.findall(r"`python -m ghostexp(?![\w.]) *([^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return found + [shlex.split(arguments) for arguments in inline]


COMMANDS = {shlex.join(arguments) for readme in READMES + PAGES for arguments in extract_commands(readme)}
COMMENTS = "\n".join(config.read_text() for config in CONF.rglob("*.yaml"))
IN_COMMENTS = re.findall(r"^ *# +(python -m ghostexp .*?)(?:  .*)?$", re.sub(r"\\\n *# *", "", COMMENTS), re.MULTILINE)
COMMANDS_IN_COMMENTS = {shlex.join(arguments) for arguments in ghostexp_arguments("\n".join(IN_COMMENTS))}


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the command without arguments, shortened; `outputs/...` stands for its run."""
    assert "" in COMMANDS
    run = tmp_path_factory.mktemp("readme") / "run"
    assert command(*SHORT, in_directory(run)) == 0
    (run / "plan.yaml").write_text("layers: {layer1.*: {ratio: 2}}")
    return run


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the READMEs show, in the working directory."""
    for readme in READMES:
        for _, content in blocks(readme.read_text()):
            name = re.match(r"# ([\w/.-]+\.(?:py|yaml))\n", content)
            if name:
                path = tmp_path / name[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content.partition("\n")[2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def fill_placeholders(arguments: list[str], run: Path) -> list[str]:
    """Arguments with paths instead of `outputs/...`, `DIR` and the like."""
    filled = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "model.plan":
            value = str(run / "plan.yaml")
        elif key in ("run", "resume") or value in ("outputs/...", "DIR", "RUN", "RUNS", "FILE"):
            value = str(run)
        filled.append(f"{key}{equals}{value}")
    return filled


def first_values(overrides: list[str]) -> list[str]:
    """Overrides of the first job of a sweep."""
    parsed = zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True)
    return [
        f"{override.get_key_element()}={_first_value(override)}" if override.is_sweep_override() else text
        for text, override in parsed
    ]


def _first_value(override: Override) -> str:
    interval = override.value()
    return str(interval.start) if isinstance(interval, IntervalSweep) else next(override.sweep_string_iterator())


def check_composes(arguments: list[str]) -> None:
    """Compose a command as the entry point does, of a sweep its first job, and build nothing.

    Of a study that a README shows, all jobs: `test_study_configs.py` checks those of `conf/study`.
    """
    parsed = parse_command_line(hydra_args(arguments))
    flags = get_args_parser().parse_intermixed_args(parsed.hydra_args)
    search = [f"hydra.searchpath=[{Path(flags.config_dir).absolute()}]"] if flags.config_dir else []
    is_study = any(text.startswith("study=") for text in flags.overrides)
    mode = RunMode.MULTIRUN if is_study or flags.multirun else RunMode.RUN
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = first_values(flags.overrides) if mode is RunMode.MULTIRUN else flags.overrides
        config = GlobalHydra.instance().config_loader().load_configuration("config", [*search, *overrides], mode)
        if is_study and search:
            _, errors, _ = Grid(config).jobs()
            assert errors == []
        choices = config.hydra.runtime.choices
        resolve_config(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), choices, parsed)


def test_readme_scripts_run_nothing_else() -> None:
    assert run_with_stubs("uname; ls; /bin/ls; pytest --version; python -m ghostexp a=1") == "COMMAND\x1fa=1\x1e"


@pytest.mark.parametrize("text", sorted((COMMANDS | COMMANDS_IN_COMMENTS) - {"", *RUN}))
def test_readme_command_composes(text: str, trained_run: Path) -> None:
    check_composes(fill_placeholders(shlex.split(text), trained_run))


@pytest.mark.parametrize("text", RUN)
def test_readme_command_runs(text: str, trained_run: Path, tmp_path: Path) -> None:
    assert text in COMMANDS
    is_training = RUN[text] is SHORT
    output = [in_directory(tmp_path / "run")] if is_training else []
    assert command(*fill_placeholders(shlex.split(text), trained_run), *RUN[text], *output) == 0
    assert not is_training or (tmp_path / "run" / "result.json").is_file()


@pytest.mark.usefixtures("warm_fit")
@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_python_examples_run(readme: Path) -> None:
    for language, content in blocks(readme.read_text()):
        if language == "python":
            exec(compile(content, str(readme), "exec"), {"__name__": "example"})


def test_shell_completion_lists_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'eval "$(ghostexp -sc install=bash)"' in (ROOT / "README.md").read_text()
    assert command("-sc", "install=bash") == 0
    assert "complete" in capsys.readouterr().out
    line = "ghostexp scheduler=one"
    monkeypatch.setattr(os, "environ", os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))})
    assert command("-sc", "query=bash") == 0
    assert "scheduler=onecycle" in capsys.readouterr().out


@pytest.mark.parametrize("readme", READMES + PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_links_and_paths_exist(readme: Path) -> None:
    text = readme.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("https://") or (readme.parent / target).exists(), target
    for path in re.findall(r"(?<![\w./-])(?:conf|ghostexp|experiments|tests|\.ci)/[\w./*-]+", text):
        pattern = re.sub(r"\b(?!README\b)[A-Z]{2,}\b", "*", path).rstrip("/.")  # NAME.yaml is any
        assert any(ROOT.glob(pattern)), path


def test_conf_readme_names_every_option() -> None:
    named = set(re.findall(r"`([\w/]+)`", (ROOT / "conf" / "README.md").read_text()))
    groups = [path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"]
    for group in [*groups, "hydra/launcher", "hydra/sweeper"]:
        assert named >= {group, *list_options(group, CONF)}, group


def test_conf_readme_key_tables_are_current() -> None:
    """If not: python -m ghostexp.config.json_schema."""
    text = (CONF / "README.md").read_text(encoding="utf-8")
    assert text == with_key_tables(text, CONF)


def test_code_readme_names_every_layer() -> None:
    text = (ROOT / "ghostexp" / "README.md").read_text()
    for path in (ROOT / "ghostexp").iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"[{path.name}/]({path.name})" in text
