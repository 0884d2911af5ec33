"""The command line: compose a configuration, check it, hand it to one process or to several."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ghostexp.runner.claim import claim, removed_unless_used
from ghostexp.runner.command_errors import explain
from ghostexp.runner.configuration import plain
from ghostexp.runner.errors import report
from ghostexp.runner.job import execute
from ghostexp.runner.launch import launch
from ghostexp.runner.ranks import exist_already, processes, rank
from ghostexp.runs import naming
from ghostexp.runs.directory import RunDirectory

PACKAGE = Path(__file__).parent
# In a wheel conf/ is inside the package, in the source tree beside it. An absolute path works from any directory.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code. Whatever is wrong with it is answered in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("run_dir", "run_name", "record_subdir", "sweep_name"):
        OmegaConf.register_new_resolver(name, getattr(naming, name), replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's errors reach us, who make one line of them
    with_traceback = any(argument.startswith("debug=") or argument == "traceback=true" for argument in arguments)
    codes = [0]

    def entry(composed: DictConfig) -> None:
        try:
            codes.append(run(composed))
        except Exception as error:  # the other jobs of a sweep go on
            report(error, with_traceback)
            codes.append(1)

    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(entry)()
    except Exception as error:
        report(explain(error, arguments, CONF), with_traceback)
        return 1
    finally:
        sys.argv = before
    return max(codes)


def run(composed: DictConfig) -> int:
    """Run one composed configuration, here or in processes of its own; returns its exit code."""
    context = HydraConfig.get()
    is_sweep = context.mode == RunMode.MULTIRUN
    directory = RunDirectory(Path(context.runtime.output_dir))
    with removed_unless_used(directory):
        config = plain(composed, list(context.overrides.task))
        config["name"] = naming.run_name(config["name"], context.runtime.choices)
        count = processes(config["trainer"])
        if rank() == 0 and not claim(directory, config, is_sweep):
            return 0
    if exist_already() or (count == 1 and config["trainer"]["num_nodes"] == 1 and not is_sweep):
        return execute(config, directory)
    return launch(directory, count, config["trainer"]["num_nodes"])


if __name__ == "__main__":
    sys.exit(main())
