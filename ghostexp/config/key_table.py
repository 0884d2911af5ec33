"""Write the tables of all keys in conf/README.md, from the same descriptions as the JSON Schema."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ghostexp.config.key import Key, Keys
from ghostexp.config.keys import DISTILL, GROUPS, LAUNCHER, LOSS, ROOT, SWEEPER
from ghostexp.config.search_keys import SEARCH
from ghostexp.config.task_keys import TASKS
from ghostexp.runs.text_files import markdown_table

BEGIN, END = "<!-- keys:begin -->", "<!-- keys:end -->"
FOLDERS = {"task", "search", *GROUPS}  # folders of conf/ whose keys have a table
MOST = 3  # different defaults that are listed


def with_key_tables(readme: str, conf: Path) -> str:
    """Replace the tables between the two marks in the text of conf/README.md."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{key_tables(conf)}{END}{rest.partition(END)[2]}"


def key_tables(conf: Path) -> str:
    """Return a table per group: key, default, description."""
    root = {"": {name: key for name, key in ROOT.items() if name not in FOLDERS | {"loss"}}}
    root |= {"loss.": {name: key for name, key in LOSS.items() if name != "distill"}, "loss.distill.": DISTILL}
    main = [_load(conf / "config.yaml")]
    parts = [
        "### Keys of no group\n\n" + _table(row for prefix, keys in root.items() for row in _rows(prefix, keys, main))
    ]
    for group, keys in GROUPS.items():
        nodes = [_load(path) for path in sorted((conf / group).glob("*.yaml"))] + [main[0].get(group, {})]
        parts.append(
            f"### `{group}`\n\n" + _table(_rows("logger.wandb." if group == "logger" else f"{group}.", keys, nodes))
        )
    parts.append("### `task`\n\n" + _table(_task_rows(conf)))
    nodes = [_load(path) for path in sorted((conf / "search").glob("*.yaml"))]
    parts.append("### `search`\n\n" + _table(_rows("search.", SEARCH, nodes)))
    for name, keys in (("sweeper", SWEEPER), ("launcher", LAUNCHER)):
        nodes = [_load(path) for path in sorted((conf / "hydra" / name).glob("*.yaml"))]
        parts.append(f"### `hydra/{name}`\n\n" + _table(_rows(f"hydra.{name}.", keys, nodes)))
    return "\n".join(parts)


def _load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_bytes()) or {}


def _rows(prefix: str, keys: Keys, nodes: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for name, key in keys.items():
        yield f"{prefix}{name}", _default(name, key, nodes), key.about


def _task_rows(conf: Path) -> Iterator[tuple[str, str, str]]:
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for task, keys in TASKS.items():
        for row in _rows("task.", keys, [_load(conf / "task" / f"{task}.yaml")]):
            tasks.setdefault(row, []).append(f"`{task}`")
    for (name, default, about), names in tasks.items():
        yield name, default, f"{', '.join(names)}: {about}"


def _default(name: str, key: Key, nodes: list[dict[str, Any]]) -> str:
    """Return the default of a key, those of several options, or `varies`."""
    if key.kinds == ("object",):
        return ""
    texts = list(dict.fromkeys(_as_text(value) for node in nodes for value in _find(name, node)))
    return ", ".join(texts) if len(texts) <= MOST else "varies"


def _find(name: str, node: Mapping[str, Any]) -> Iterator[object]:
    """Find the values of a key in a node and in the nodes within it."""
    for key, value in node.items():
        if key == name:
            yield value
        elif isinstance(value, dict) and key != "defaults":
            yield from _find(name, value)


def _as_text(value: object) -> str:
    if value == "???":
        return "required"
    if isinstance(value, list):
        return f"`[{', '.join(str(item) for item in value)}]`"
    text = (
        {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else value
    )
    return f"`{text}`"


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    lines = ((f"`{name}`", default, about) for name, default, about in rows)
    return markdown_table(["key", "default", "description"], lines) + "\n"
