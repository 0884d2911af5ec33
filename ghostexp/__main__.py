"""Command line: compose a configuration, check it, and run it in one process or several."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ghostexp.config.arguments import hydra_args
from ghostexp.config.compose import CONF, register_resolvers, resolve_config
from ghostexp.config.config_files import naming_files
from ghostexp.config.hydra_errors import to_user_error
from ghostexp.config.plugins import importable, register_packages
from ghostexp.config.run_overlay import ParsedCommand, claim_run_dir, cleanup_unused_run_dir, parse_command_line
from ghostexp.errors import print_error
from ghostexp.runner.execute import execute
from ghostexp.runner.exit import end_process
from ghostexp.runner.fork_server import end_server
from ghostexp.runner.processes import launch
from ghostexp.runner.ranks import (
    check_launch_environment,
    check_strategy,
    check_task,
    is_started_by_slurm,
    num_processes,
    without_ranks,
)
from ghostexp.runner.streams import outlive_terminal
from ghostexp.runs import naming
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import escape_streams
from ghostexp.sweeps.deferred import defer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Errors are printed in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    register_resolvers()
    escape_streams()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors, which are then printed in one line
    with_traceback = any(
        argument.lower() in ("traceback=true", "traceback=on", "traceback=yes")
        or (argument.startswith("debug=") and argument != "debug=null")
        for argument in arguments
    )
    before = sys.argv
    try:
        arguments = hydra_args(arguments)
        command = parse_command_line(arguments)
        register_packages()

        def entry(composed: DictConfig) -> None:
            try:
                code = run(composed, command)
            except Exception as error:
                print_error(error, with_traceback)
                code = 1
            raise SystemExit(code)

        sys.argv = [before[0], *defer(command.hydra_args)]
        with importable(command.config_dir):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(entry)()
    except Exception as error:
        explained = to_user_error(error, arguments, CONF)
        print_error(explained, with_traceback and explained is error)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return 0


def run(composed: DictConfig, command: ParsedCommand) -> int:
    """Run one composed configuration, here or in new processes, and return its exit code."""
    context = HydraConfig.get()
    directory = RunDirectory(Path(context.runtime.output_dir))
    with cleanup_unused_run_dir(directory):
        _check_single(composed, context.runtime.choices, context.launcher)
        with naming_files(context.overrides.hydra, context.overrides.task):
            config = resolve_config(composed, context.runtime.choices, command)
        config["name"] = naming.run_name(config["name"], context.runtime.choices)
        check_strategy(config["trainer"].get("strategy", "auto"))
        count, nodes = num_processes(config["trainer"]), config["trainer"]["num_nodes"]
        if config["trainer"]["devices"] in ("auto", -1, "-1"):
            config["trainer"]["devices"] = count  # recorded: it decides how many images share a BatchNorm statistic
        check_task(config["task"]["name"], count, nodes)
        if not is_started_by_slurm():  # this process is no rank: it starts them, or is the only one
            for name in os.environ.keys() - without_ranks(os.environ, nodes > 1).keys():
                del os.environ[name]
        check_launch_environment(count, nodes, is_named="hydra.run.dir=" in " ".join(sys.argv) or bool(command.key))
        if not claim_run_dir(directory, config):
            return 0
    if is_started_by_slurm() or count == nodes == 1:
        return execute(config, directory)
    return launch(config, directory, count)


def _check_single(composed: DictConfig, choices: Mapping[str, str | None], launcher: DictConfig) -> None:
    """Raise ValueError for keys of a sweep in a single run."""
    if choices.get("study"):
        raise ValueError(f"hydra.mode=RUN: study={choices['study']} is a sweep; leave out hydra.mode")
    if composed.search is not None:
        raise ValueError(f"search={choices.get('search')}: is a sweep; add -m and what to search, KEY=interval(A,B)")
    if composed.dry_run:
        raise ValueError("dry_run=true: lists the jobs of a sweep (-m or study=NAME); --cfg job shows a single run")
    if launcher.get("backend", "local") != "local":
        raise ValueError(f"hydra/launcher={choices.get('hydra/launcher')}: submits the jobs of a sweep; add -m")
    for key in ("n_jobs", "fail_fast"):
        if composed[key]:
            raise ValueError(f"{key}={composed[key]}: is a key of sweeps; add -m, or leave it out")


def cli() -> NoReturn:
    """Run the command line of this process and exit."""
    outlive_terminal()
    code = main()
    end_server()
    end_process(code)


if __name__ == "__main__":
    cli()
