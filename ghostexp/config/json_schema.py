"""Write the schema as JSON Schema, for completion in editors: python -m ghostexp.config.json_schema

Each folder of conf/ has its schema.json, referenced in the first lines of each file; recipes use conf/schema.json.
Descriptions, types and ranges come from the same tables as the validation of a composed configuration.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ghostexp.config.config_files import list_options
from ghostexp.config.key import Key, Keys
from ghostexp.config.key_table import with_key_tables
from ghostexp.config.keys import DISTILL, GROUPS, LAUNCHER, LOSS, ROOT, SET_HERE, SWEEPER
from ghostexp.config.schema import OF_HYDRA, OWN
from ghostexp.config.search_keys import SEARCH
from ghostexp.config.signatures import describe, signature
from ghostexp.config.task_keys import NAME, TASKS
from ghostexp.config.training_keys import TRAINER

Json = dict[str, Any]
CONF = Path(__file__).parent.parent.parent / "conf"
RECIPES = ("experiment", "study", "pretrained", "debug")  # folders of files that may set any key
CHOSEN = ("model", "datamodule", "optimizer", "scheduler")  # groups in which a recipe may choose a user's own file
REFERENCE = {"type": "string", "pattern": r"^\?\?\?$|\$\{"}  # to another key, or a missing value
DEFAULTS = {"type": "array", "description": "Files that this one extends; see hydra.cc, The Defaults List."}
OF_NODES: Json = {name: {} for name in OF_HYDRA} | {
    "_target_": {"type": "string", "description": "Class or function that is called with the other keys."},
    "defaults": DEFAULTS,
}


def main() -> None:
    """Write every schema.json, and the tables of keys in conf/README.md."""
    for path, schema in schemas(CONF).items():
        path.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
        print(path)
    readme = CONF / "README.md"
    readme.write_text(with_key_tables(readme.read_text(encoding="utf-8"), CONF), encoding="utf-8")
    print(readme)


def schemas(conf: Path) -> dict[Path, Json]:
    """Return the schema of each folder of conf/, by file."""
    options = {group: list_options(group, conf) for group in CHOSEN}
    found = {
        "": _recipe(options),
        "task": _task(),
        "search": _search(),
        "logger": {"type": "object", "additionalProperties": _reference("logger")},
        "hydra": {"type": "object"},
        "hydra/sweeper": _strict(_properties(SWEEPER)),
        "hydra/launcher": {"type": "object", "properties": _properties(LAUNCHER)},
        **{group: _reference(group) for group in GROUPS if group != "logger"},
    }
    return {conf / folder / "schema.json": _document(folder, schema) for folder, schema in found.items()}


def _document(folder: str, schema: Json) -> Json:
    """Add to a schema the definitions that it refers to."""
    definitions = {name: node for group in GROUPS for name, node in _definitions(group).items()}
    used: Json = {}
    text = json.dumps(schema)
    while more := {
        name: node for name, node in definitions.items() if name not in used and f'definitions/{name}"' in text
    }:
        used |= more
        text = json.dumps(more)
    title = f"ghostexp: conf/{folder}" if folder else "ghostexp: a complete configuration, or a recipe"
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "definitions": used,
        "allOf": [schema],
    }


def _reference(name: str) -> Json:
    return {"$ref": f"#/definitions/{name}"}


def _strict(properties: Json) -> Json:
    """Return the schema of an object with these keys and no others."""
    return {"type": "object", "properties": properties, "propertyNames": {"enum": list(properties)}}


def _properties(keys: Keys) -> Json:
    return {name: _property(key) for name, key in keys.items()}


def _property(key: Key) -> Json:
    """Return the schema of one key: description and allowed values."""
    if not key.kinds:
        return {"description": key.about}
    plain: Json = {"type": [kind for kind in key.kinds if not (key.choices and kind == "string")]}
    bounds = {"minimum": key.least, "exclusiveMinimum": key.above, "maximum": key.most, "exclusiveMaximum": key.below}
    plain |= {name: bound for name, bound in bounds.items() if bound is not None}
    plain |= {"not": {"multipleOf": 2}} if key.odd else {}
    either = ([{"enum": list(key.choices)}] if key.choices else []) + ([plain] if plain["type"] else [])
    return {"description": key.about, "anyOf": [*either, REFERENCE]}


def _definitions(group: str) -> Json:
    """Return two schemas of a group: `GROUP_keys` describes its keys, `GROUP` also rejects others for our targets."""
    properties = OF_NODES | _properties(GROUPS[group])
    if group == "model":
        node = {"anyOf": [_reference("model"), REFERENCE]}
        properties |= {key: properties[key] | node for key in ("network", "backbone")}
    if group == "trainer":
        properties |= _of_lightning()
    own = {"properties": {"_target_": {"pattern": "^(" + "|".join(name.replace(".", r"\.") for name in OWN) + ")"}}}
    names = {"propertyNames": {"enum": list(properties)}}
    return {
        f"{group}_keys": {"type": "object", "properties": properties},
        group: {"allOf": [_reference(f"{group}_keys")], "if": own, "then": names},
    }


def _of_lightning() -> Json:
    """Return the Trainer arguments that are in no file of conf/ and that the program does not set."""
    trainer = signature("lightning.pytorch.Trainer")
    assert trainer is not None
    others = {name: kinds for name, kinds in trainer.arguments.items() if name not in {*TRAINER, *SET_HERE["trainer"]}}
    return {name: _property(Key(describe(trainer.doc, name), kinds)) for name, kinds in others.items()}


def _task() -> Json:
    """Return the schema of the task node, whose keys depend on its name."""
    names = sorted({name for keys in TASKS.values() for name in keys})
    properties = _properties(NAME) | {
        name: _any_of(keys[name] for keys in TASKS.values() if name in keys) for name in names
    }
    of_each = [
        {
            "if": {"required": ["name"], "properties": {"name": {"const": task}}},
            "then": {"propertyNames": {"enum": ["defaults", "name", *keys]}},
        }
        for task, keys in TASKS.items()
    ]
    properties["name"] |= {"anyOf": [{"enum": list(TASKS)}]}
    return _strict({"defaults": DEFAULTS} | properties) | {"allOf": of_each}


def _search() -> Json:
    return _strict({"defaults": DEFAULTS} | _properties(SEARCH))


def _any_of(keys: Iterable[Key]) -> Json:
    different = list(dict.fromkeys(keys))
    return _property(different[0]) if len(different) == 1 else {"anyOf": [_property(key) for key in different]}


def _recipe(options: Mapping[str, list[str]]) -> Json:
    """Return the schema of a recipe: any key; unknown keys of a group only with a user's own file of it."""
    distill = _properties(DISTILL)
    distill["teacher"] |= {"anyOf": [{"type": ["string", "null"]}, _reference("model")]}
    loss = _properties(LOSS) | {"distill": _strict(distill)}
    sweeper = {"type": "object", "properties": {"sweeper": _strict(_properties(SWEEPER))}}
    properties = _properties(ROOT) | {group: _reference(group) for group in GROUPS if group not in CHOSEN}
    properties |= {"logger": {"type": "object", "additionalProperties": _reference("logger")}}
    properties |= {"loss": _strict(loss), "task": _task(), "hydra": sweeper, "defaults": DEFAULTS}
    properties |= {"search": {"anyOf": [{"type": "null"}, _search()]}}
    properties |= {group: _reference(f"{group}_keys") for group in CHOSEN}
    return _strict(properties) | {"allOf": [_unless_own(group, names) for group, names in options.items()]}


def _unless_own(group: str, options: list[str]) -> Json:
    key = f"override /{group}"
    other = {"type": "object", "required": [key], "properties": {key: {"not": {"enum": options}}}}
    is_ours = {"properties": {"defaults": {"not": {"contains": other}}}}
    return {"if": is_ours, "then": {"properties": {group: _reference(group)}}}


if __name__ == "__main__":
    main()
