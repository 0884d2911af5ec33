"""The command line: compose a configuration, check it, hand it to one process or to several."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ghostexp.runner.arguments import for_hydra
from ghostexp.runner.claim import claim, removed_unless_used
from ghostexp.runner.command import Command, take_apart
from ghostexp.runner.command_errors import explain
from ghostexp.runner.config_files import naming_files
from ghostexp.runner.configuration import CONF, plain
from ghostexp.runner.deferred import defer
from ghostexp.runner.errors import report
from ghostexp.runner.exit import end_process
from ghostexp.runner.job import execute
from ghostexp.runner.launch import launch
from ghostexp.runner.ranks import check_place, check_strategy, check_task, processes, started_by_slurm
from ghostexp.runs import naming
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import escape_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code. Whatever is wrong with it is answered in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    register_resolvers()
    escape_streams()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's errors reach us, who make one line of them
    with_traceback = any(
        argument.lower() in ("traceback=true", "traceback=on", "traceback=yes")
        or (argument.startswith("debug=") and argument != "debug=null")
        for argument in arguments
    )
    before = sys.argv
    try:
        arguments = for_hydra(arguments)
        command = take_apart(arguments)

        def entry(composed: DictConfig) -> None:
            try:
                code = run(composed, command)
            except Exception as error:
                report(error, with_traceback)
                code = 1
            raise SystemExit(code)

        sys.argv = [before[0], *defer(command.for_hydra)]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(entry)()
    except Exception as error:
        report(explain(error, arguments, CONF), with_traceback)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return 0


def register_resolvers() -> None:
    """Let the configuration ask for names: `${run_name:...}`."""
    for name in ("run_dir", "run_name", "record_subdir", "sweep_dir"):
        OmegaConf.register_new_resolver(name, getattr(naming, name), replace=True)


def run(composed: DictConfig, command: Command) -> int:
    """Run one composed configuration, here or in processes of its own; returns its exit code."""
    context = HydraConfig.get()
    directory = RunDirectory(Path(context.runtime.output_dir))
    with removed_unless_used(directory):
        _check_single(composed, context.runtime.choices)
        with naming_files(context.overrides.hydra, context.overrides.task):
            config = plain(composed, context.runtime.choices, command)
        config["name"] = naming.run_name(config["name"], context.runtime.choices)
        check_strategy(config["trainer"].get("strategy", "auto"))
        count, nodes = processes(config["trainer"]), config["trainer"]["num_nodes"]
        check_task(config["task"]["name"], count, nodes)
        check_place(count, nodes, is_named="hydra.run.dir=" in " ".join(sys.argv) or bool(command.key))
        if not claim(directory, config):
            return 0
    if started_by_slurm() or count == nodes == 1:
        return execute(config, directory)
    return launch(config, directory, count)


def _check_single(composed: DictConfig, choices: Mapping[str, str | None]) -> None:
    """Raise ValueError for what is said of a sweep, where there is none."""
    if choices.get("study"):
        raise ValueError(f"hydra.mode=RUN: study={choices['study']} is a sweep; leave hydra.mode to it")
    if composed.plan:
        raise ValueError("plan=true: shows the jobs of a sweep, -m or study=NAME; --cfg job shows a single run")


def cli() -> NoReturn:
    """Run this process's own command line, and end the process."""
    end_process(main())


if __name__ == "__main__":
    cli()
