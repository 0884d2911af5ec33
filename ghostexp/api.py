"""Compose, train, load and compare from Python, with the overrides of the command line.

Nothing of the calling process is changed: a training runs in a process of its own, and Hydra, the random state and
sys.argv are restored after a composition.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra

from ghostexp.config.arguments import hydra_args, quoted
from ghostexp.config.compose import CONF, register_resolvers, resolve_config
from ghostexp.config.hydra_errors import to_user_error
from ghostexp.config.plugins import FLAGS, importable, register_packages
from ghostexp.config.run_overlay import parse_command_line
from ghostexp.errors import ConfigError, RunError, format_error
from ghostexp.report.load_runs import find_runs
from ghostexp.runs import naming
from ghostexp.runs.csv_table import number, read_rows

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import nn

OF_WEIGHTS = ("weights", "reset_head")
COSTS = ("params", "macs", "images_per_second", "train_seconds", "epochs", "steps")


@dataclass(frozen=True)
class Result:
    """A finished training: its directory, and what it wrote there."""

    directory: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of result.json."""
        return json.loads((self.directory / "result.json").read_bytes())

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics by name, such as `test/acc1` in percent."""
        return self.record["metrics"]["test"]

    @cached_property
    def history(self) -> "DataFrame":
        """Metrics by step, a row for each row of metrics.csv; needs pandas."""
        return _pandas().DataFrame(_numbers(row) for row in read_rows(self.directory / "metrics.csv"))


def compose(*overrides: str) -> dict[str, Any]:
    """Compose the configuration of one run, as `python -m ghostexp OVERRIDES` does; nothing is run or written.

    Raises ConfigError with the command line's message.
    """
    return _compose(overrides)[0]


def fit(*overrides: str) -> Result:
    """Train and test in a new process, whose lines of progress are printed, and return the result.

    An interrupt saves a checkpoint, from which `fit("resume=DIR")` continues.
    Raises ConfigError before anything runs; RunError with the directory if the run fails.
    """
    config, directory = _compose(overrides)
    if config["task"]["name"] != "fit":
        raise ConfigError(f"task={config['task']['name']}: fit trains; use the command line for other tasks")
    is_new = config["resume"] is None
    where = [f"hydra.run.dir={quoted(str(directory))}"] if is_new and not _has(overrides, "hydra.run.dir") else []
    command = [sys.executable, "-m", "ghostexp", *overrides, *where]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        last = ""
        while True:
            try:
                for last in run.stdout:
                    print(last, end="", flush=True)
                break
            except KeyboardInterrupt:
                with suppress(ProcessLookupError):  # a terminal has sent it to the process too
                    run.send_signal(signal.SIGINT)
    if run.returncode == 128 + signal.SIGINT:
        raise KeyboardInterrupt(last.strip())
    if run.returncode:
        raise RunError(last.removeprefix("error: ").strip(), directory)
    return Result(directory)


def load(run: str | os.PathLike[str], *overrides: str) -> "nn.Module":
    """Load the trained network of a run, in evaluation mode, on the CPU.

    Its attribute `class_names` has the classes in the order of the logits; `preprocess` maps a PIL image to a tensor
    (C, H, W). overrides: such as `task.checkpoint=last` or `allow=[my_package]`.
    Raises ConfigError: there is no such run, or it calls code that is not allowed.
    """
    config, _ = _compose(("task=test", f"run={quoted(os.fspath(run))}", "compile=false", *overrides))
    import torch

    from ghostexp.tasks.common import instantiate
    from ghostexp.tasks.common.class_names import known_names, readable
    from ghostexp.tasks.common.load_model import load_trained_model

    folder = Path(config["config_dir"]) if config.get("config_dir") else None
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    with _one_error(), importable(folder), torch.random.fork_rng(devices=devices), _same_tf32():
        trained = load_trained_model(config)
        datamodule: Any = instantiate.build_datamodule(config)
        names = readable(known_names(trained, config["datamodule"]["num_classes"])) or datamodule.class_names
        preprocess = datamodule.eval_transform()
    network: Any = trained.network.eval()
    network.class_names, network.preprocess = names, preprocess
    return network


def results(*paths: str | os.PathLike[str]) -> "DataFrame":
    """Return a row for each run of a study, in folders of runs, or matched by globs.

    Columns: name, state and directory, test metrics, costs, and the configuration by path; needs pandas.
    Raises ConfigError: there are no training runs.
    """
    with _one_error():
        runs = find_runs([os.fspath(path) for path in paths]).runs
    rows = []
    for run in runs:
        metrics = run.result.get("metrics", {}).get("test", {})
        costs = {key: run.result.get(key) for key in COSTS}
        about = {"name": run.name, "state": run.state.value, "directory": str(run.directory.path)}
        rows.append(
            about | metrics | costs | {key: _scalar(value) for key, value in run.values.items() if key != "name"}
        )
    return _pandas().DataFrame(rows)


def create_model(name: str, /, num_classes: int = 1000, in_chans: int = 3, **keys: Any) -> "nn.Module":
    """Build a network of conf/model by its name, randomly initialised: `create_model("ghostnet", width=0.5)`.

    keys: those of its file, such as `create_model("torchvision", name="resnet34", ratio=2)`; a mapping sets keys below,
    `create_model("ghost_resnet20", network={"width": 0.5})`. Weights: `ghostexp.models.weights.load_weights`.
    Raises ConfigError: there is no such network or key, or a key of weights.
    """
    if refused := [key for key in OF_WEIGHTS if key in keys]:
        instead = "load them by ghostexp.models.weights.load_weights(network, FILE), which has reset_head too"
        raise ConfigError(f"create_model({name!r}, {refused[0]}=...): builds a network without weights; {instead}")
    typed = {"num_classes": num_classes, "in_chans": in_chans, **keys}
    of_data = [f"++datamodule.{key}={typed.get(key, 224)}" for key in ("num_classes", "in_chans", "image_size")]
    own = [_override(f"model.{key}", value) for key, value in keys.items() if key != "image_size"]
    config, _ = _compose((f"model={name}", "datamodule=fake", *of_data, *own))
    from ghostexp.tasks.common.build_network import build_classifier, is_detector

    node = {key: value for key, value in config["model"].items() if key not in OF_WEIGHTS}
    with _one_error():
        if is_detector(node):
            raise ConfigError(f"model={name}: a detector; build it with ghostexp.models.detection")
        return build_classifier(node, config)


def _compose(overrides: tuple[str, ...]) -> tuple[dict[str, Any], Path]:
    """Return the configuration of a run, and its directory."""
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigError(f"{override!r}: must be an override of its own, as in fit('model=ghostnet', 'seed=1')")
    argv, state = sys.argv, GlobalHydra.get_state()
    with _one_error(overrides):
        if any(override in ("-m", "--multirun") for override in overrides) or _has(overrides, "study"):
            raise ConfigError("study= and -m: a sweep has several runs; start it on the command line")
        try:
            register_resolvers()
            register_packages()
            command = parse_command_line(hydra_args(overrides))
            sys.argv = ["ghostexp", *command.hydra_args]
            GlobalHydra.instance().clear()
            typed = [argument for argument in command.hydra_args if not argument.startswith("-")]
            if command.config_dir is not None:
                typed = [text for text in typed if text not in (str(command.config_dir), *_folders(overrides))]
                typed.append(f"hydra.searchpath=[{quoted(str(command.config_dir))}]")
            with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
                composed = hydra.compose("config", typed, return_hydra_config=True)
            choices = composed.hydra.runtime.choices
            path = Path(str(composed.hydra.run.dir)).absolute()
            config = resolve_config(composed, choices, command)
            config["name"] = naming.run_name(config["name"], choices)
        finally:
            sys.argv = argv
            GlobalHydra.set_state(state)
    return config, path


def _override(key: str, value: Any) -> str:
    """Return the override that sets a key; a mapping may add keys, which are checked later."""
    return f"{'++' if isinstance(value, Mapping) else ''}{key}={_text(value)}"


def _text(value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return "null" if value is None else str(value)


def _folders(overrides: tuple[str, ...]) -> list[str]:
    return [value for flag, value in pairwise(overrides) if flag in FLAGS]


def _has(overrides: tuple[str, ...], key: str) -> bool:
    return any(override.lstrip("+").startswith(f"{key}=") for override in overrides)


@contextmanager
def _same_tf32() -> Iterator[None]:
    """Restore whether TensorFloat-32 is allowed, which building a network sets."""
    import torch

    backends: Any = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@contextmanager
def _one_error(overrides: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn the errors of users into a ConfigError of one line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        known = to_user_error(error, overrides, CONF)
        if not isinstance(known, ValueError | OSError):
            raise
        raise ConfigError(format_error(known)) from error


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError('needs pandas; pip install "ghostexp[notebook]"') from None
    return pandas


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value == "" else number(value) for name, value in row.items()}


def _scalar(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)
