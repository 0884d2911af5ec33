"""The command line: compose a configuration, check it, hand it to one process or to several."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ghostexp.runner.claim import claim, removed_unless_used
from ghostexp.runner.command import Command, take_apart
from ghostexp.runner.command_errors import explain
from ghostexp.runner.configuration import plain
from ghostexp.runner.errors import report
from ghostexp.runner.job import execute
from ghostexp.runner.launch import launch
from ghostexp.runner.ranks import check_place, processes, started_by_slurm
from ghostexp.runs import naming
from ghostexp.runs.directory import RunDirectory

PACKAGE = Path(__file__).parent
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes
# In a wheel conf/ is inside the package, in the source tree beside it. An absolute path works from any directory.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code. Whatever is wrong with it is answered in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's errors reach us, who make one line of them
    with_traceback = any(
        argument.lower() == "traceback=true" or (argument.startswith("debug=") and argument != "debug=null")
        for argument in arguments
    )
    codes = [0]
    before = sys.argv
    try:
        command = take_apart(arguments)

        def entry(composed: DictConfig) -> None:
            try:
                codes.append(run(composed, command))
            except Exception as error:  # the other jobs of a sweep go on
                report(error, with_traceback)
                codes.append(1)
            if codes[-1] in STOPPED:  # they do not when a person stops one
                raise SystemExit(codes[-1])

        sys.argv = [before[0], *command.for_hydra]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(entry)()
    except Exception as error:
        report(explain(error, arguments, CONF), with_traceback)
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return max(codes)


def register_resolvers() -> None:
    """Let the configuration ask for names: `${run_name:...}`."""
    for name in ("run_dir", "run_name", "record_subdir", "sweep_name"):
        OmegaConf.register_new_resolver(name, getattr(naming, name), replace=True)


def run(composed: DictConfig, command: Command) -> int:
    """Run one composed configuration, here or in processes of its own; returns its exit code."""
    context = HydraConfig.get()
    is_sweep = context.mode == RunMode.MULTIRUN
    directory = RunDirectory(Path(context.runtime.output_dir))
    with removed_unless_used(directory):
        config = plain(composed, command)
        config["name"] = naming.run_name(config["name"], context.runtime.choices)
        count, nodes = processes(config["trainer"]), config["trainer"]["num_nodes"]
        check_place(count, nodes, is_sweep, is_named="hydra.run.dir=" in " ".join(sys.argv) or bool(command.key))
        if not claim(directory, config, is_sweep):
            return 0
    if started_by_slurm() or (count == nodes == 1 and not is_sweep):
        return execute(config, directory)
    return launch(config, directory, count, nodes)


if __name__ == "__main__":
    sys.exit(main())
