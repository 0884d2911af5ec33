"""List the options of config groups, and find the YAML file that sets a config key."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import ListConfig, OmegaConf

from ghostexp.config.schema import SchemaError

GLOBAL = ("experiment", "study", "pretrained", "debug")  # groups whose files begin with `# @package _global_`


def list_options(group: str, *folders: Path) -> list[str]:
    """Return the options of a group in folders such as conf/, without the files that only others extend (`_base`).

    Options in subfolders have their path: `cifar10/vgg16`.
    """
    paths = [path.relative_to(folder / group) for folder in folders for path in (folder / group).rglob("*.yaml")]
    return sorted({path.with_suffix("").as_posix() for path in paths if not path.name.startswith("_")})


def describe_groups() -> str:
    """Return a line for each group with its options, those of `--config-dir` too; for `--help`."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    folders = [Path(source.path) for source in sources if source.scheme() == "file"]
    groups = sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()} - {"hydra"})
    options = {group: list_options(group, *folders) for group in (*groups, "hydra/launcher")}
    return "\n".join(f"{group}: {', '.join(names)}" for group, names in options.items() if names)


@contextmanager
def naming_files(*overrides: Sequence[str] | ListConfig) -> Iterator[None]:
    """Add the file, or the override, that sets the key to the message of a schema error.

    overrides: those that the configuration was composed from.
    """
    try:
        yield
    except SchemaError as error:
        raise ValueError(_with_place(error, [text for some in overrides for text in _as_typed(some)])) from error


def _as_typed(overrides: Sequence[str] | ListConfig) -> list[str]:
    """Return overrides with their `${...}`, which lists of OmegaConf would resolve."""
    texts = OmegaConf.to_container(overrides, resolve=False) if isinstance(overrides, ListConfig) else overrides
    return [str(text) for text in texts or ()]


def _with_place(error: SchemaError, overrides: Sequence[str]) -> str:
    path, text = error.fault.path, str(error)
    if path in GLOBAL:
        return f"{_file_of(path, overrides)}: its first line must be `# @package _global_`; without it nothing is set"
    typed = [override for override in overrides if override.lstrip("+~").partition("=")[0] == path]
    if typed:
        return text if error.fault.is_value else f"{typed[-1].removeprefix('++')}: {error.fault.text}"
    where = _file_of(path, overrides)
    return text if where is None else f"{where}: {text}"


def _file_of(path: str, overrides: Sequence[str]) -> str | None:
    """Return the last file of the defaults list that sets a key, relative to conf/; None if there is none."""
    loader = GlobalHydra.instance().config_loader()
    defaults = loader.compute_defaults_list("config", list(overrides), RunMode.RUN)
    found = None
    for default in defaults.defaults:
        loaded = default.config_path and _load(default.config_path)
        if loaded and _holds(loaded, default.package or "", path):
            found = f"{default.config_path}.yaml"
    return found


def _load(config_path: str) -> Any:
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.is_config(config_path):
            return OmegaConf.to_container(source.load_config(config_path).config)
    return None


def _holds(node: object, package: str, path: str) -> bool:
    """Return whether a file's content, merged at a package, sets a key."""
    if package and path != package and not path.startswith(f"{package}."):
        return False
    return _has_key(node, path.removeprefix(package).lstrip("."))


def _has_key(node: object, path: str) -> bool:
    """Return whether a node has a key, also one with dots in its name."""
    head, _, rest = path.partition(".")
    return not path or (isinstance(node, dict) and (path in node or (head in node and _has_key(node[head], rest))))
