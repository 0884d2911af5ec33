"""Find the configuration and the code of users: folders of `--config-dir`, and installed packages.

A package that declares an entry point of the group `ghostexp.conf`, such as `my_ghosts = "my_ghosts.conf"`, adds the
YAML files in that folder of it: `model=my_net`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

GROUP = "ghostexp.conf"
FLAGS = ("--config-dir", "-cd")


class InstalledPackages(SearchPathPlugin):
    """Hydra's search path, with the folders of installed packages."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder of each entry point."""
        for entry in metadata.entry_points(group=GROUP):
            search_path.append(provider=entry.name, path=f"pkg://{entry.value}")


def register_packages() -> None:
    """Let Hydra find the files of installed packages."""
    Plugins.instance().register(InstalledPackages)


def installed_packages() -> set[str]:
    """Return the packages that declare an entry point."""
    return {entry.value.partition(".")[0] for entry in metadata.entry_points(group=GROUP)}


def typed_config_dir(arguments: Sequence[str]) -> Path | None:
    """Return the folder of `--config-dir DIR`, or `--config-dir=DIR`, absolute; None if there is none."""
    pairs = [*pairwise(arguments), *(argument.split("=", 1) for argument in arguments if "=" in argument)]
    typed = [value for flag, value in pairs if flag in FLAGS]
    return Path(typed[-1]).absolute() if typed else None


def modules_in(folder: Path) -> set[str]:
    """Return the names of the Python modules and packages in a folder."""
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    return packages | {path.stem for path in folder.glob("*.py")}


@contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Let this process, and those that it starts, import the modules in a folder."""
    if folder is None or not folder.is_dir() or str(folder) in sys.path:
        yield
        return
    before = os.environ.get("PYTHONPATH")
    sys.path.append(str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (before, str(folder))))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
