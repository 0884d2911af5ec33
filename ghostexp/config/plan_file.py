"""Read the plan of `model.plan=FILE` into the configuration, so that the run does not need the file any more."""

from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.config_keys import PLANS


def read_plans(config: dict[str, Any]) -> None:
    """Replace each path of a plan in a configuration by the file's content, in place; its name is the file's.

    Raises ValueError: no such file, or one without a mapping.
    """
    for key in PLANS:
        *parents, leaf = key.split(".")
        node: Any = config
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get(leaf), str):
            node[leaf] = _read(Path(node[leaf]).expanduser(), f"{key}={node[leaf]}")


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: must be a plan, a mapping with layers, as task=plan writes")
    return {"name": path.stem, **content}
