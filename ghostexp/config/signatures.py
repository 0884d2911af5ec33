"""Read the arguments of a `_target_` from its source; importing it would import torch, which takes seconds."""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SIMPLE = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "None": "null"}
Module = tuple[str, Path]  # its dotted name and its file
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Signature:
    """Arguments of a callable with their types (empty where unknown or not simple), and its docstring."""

    arguments: Mapping[str, tuple[str, ...]]
    doc: str = ""
    is_open: bool = False  # has **kwargs


@dataclass(frozen=True)
class Definition:
    """Where a target is defined, and whether it is a class or a function."""

    module: str
    is_class: bool


@cache
def defined_in(target: str) -> Definition | None:
    """Return where a class or function of a module is defined; None if the source does not show it."""
    parts = target.split(".")
    module = _find(parts[:-1]) if len(parts) > 1 else None
    found = None if module is None else _definition(module, parts[-1])
    return None if found is None else Definition(found[0][0], isinstance(found[1], ast.ClassDef))


@cache
def signature(target: str) -> Signature | None:
    """Return the signature of a function or of a class's `__init__`; None if its source does not show it."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = _find(parts[:length])
        if module is not None:
            return _resolve(module, parts[length]) if length == len(parts) - 1 else None
    return None


def _find(parts: list[str]) -> Module | None:
    """Find the file of a module; only the top-level package is resolved by Python, which imports nothing."""
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if len(parts) == 1:
        return (parts[0], Path(spec.origin)) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *parts[1:])
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return ".".join(parts), path
    return None


@cache
def _statements(path: Path) -> tuple[ast.stmt, ...]:
    """Return a module's statements, including those under `if` and `try`."""

    def walk(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in body:
            yield statement
            if isinstance(statement, ast.If | ast.Try):
                yield from walk([*statement.body, *statement.orelse])

    try:
        return tuple(walk(ast.parse(path.read_text(encoding="utf-8")).body))
    except (OSError, SyntaxError, ValueError):
        return ()


def _definition(module: Module, name: str, depth: int = 0) -> tuple[Module, Function | ast.ClassDef] | None:
    """Find the definition of a name: in the module, or where it is imported from."""
    found = None
    for statement in _statements(module[1]):
        if isinstance(statement, Function | ast.ClassDef) and statement.name == name:
            found = module, statement
        elif isinstance(statement, ast.ImportFrom) and depth < 8:
            for alias in statement.names:
                is_all = alias.name == "*"
                if not is_all and (alias.asname or alias.name) != name:
                    continue
                if (source := _source(module, statement)) is not None:
                    found = _definition(source, name if is_all else alias.name, depth + 1) or (
                        found if is_all else None
                    )
    return found


def _source(module: Module, statement: ast.ImportFrom) -> Module | None:
    """Return the module that a statement imports from."""
    parts = statement.module.split(".") if statement.module else []
    if statement.level:
        package = module[0].split(".")
        up = statement.level - (module[1].name == "__init__.py")
        parts = package[: len(package) - up] + parts
    return _find(parts) if parts else None


def _resolve(module: Module, name: str) -> Signature | None:
    found = _definition(module, name)
    if found is None:
        return None
    origin, node = found
    if not isinstance(node, ast.ClassDef):
        return _of_function(node, skip=0)
    return _of_class(origin, node)


def _of_class(module: Module, node: ast.ClassDef) -> Signature | None:
    """Return the signature of `__init__`, own or inherited, or of the fields of a dataclass."""
    for statement in node.body:
        if isinstance(statement, Function) and statement.name == "__init__":
            return _of_function(statement, skip=1)
    bases = [_base(module, base) for base in node.bases]
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return next((base for base in bases if base is not None), None)
    arguments: dict[str, tuple[str, ...]] = {}
    for base in reversed(bases):
        arguments |= base.arguments if base is not None else {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation, value = ast.unparse(statement.annotation), ast.unparse(statement.value or ast.Constant(0))
            if "ClassVar" in annotation or "init=False" in value:
                arguments.pop(statement.target.id, None)
            else:
                arguments[statement.target.id] = _kinds(annotation)
    return Signature(arguments)


def _base(module: Module, base: ast.expr) -> Signature | None:
    name = base.value if isinstance(base, ast.Subscript) else base  # Generic[T]
    if not isinstance(name, ast.Name) or name.id in ("object", "Protocol", "Generic", "ABC"):
        return None
    found = _definition(module, name.id)
    return _of_class(*found) if found is not None and isinstance(found[1], ast.ClassDef) else None  # pyright: ignore[reportArgumentType]


def _of_function(node: Function, skip: int) -> Signature:
    positional = [*node.args.posonlyargs, *node.args.args]
    arguments = {
        argument.arg: _kinds(ast.unparse(argument.annotation)) if argument.annotation else ()
        for argument in [*positional[skip:], *node.args.kwonlyargs]
    }
    return Signature(arguments, ast.get_docstring(node) or "", node.args.kwarg is not None)


def _kinds(annotation: str) -> tuple[str, ...]:
    """Return the types of an annotation of plain names: `Optional[int]` is integer and null."""
    names = re.findall(r"\w+", annotation)
    if "Optional" in names:
        names.append("None")
    names = [name for name in names if name not in ("Optional", "Union")]
    return tuple(SIMPLE[name] for name in names) if names and all(name in SIMPLE for name in names) else ()


def describe(doc: str, argument: str) -> str:
    """Return the first sentence about an argument in a Google-style docstring."""
    found = re.search(rf"^ *{argument}: *(.+?)(?=^ *\w+: |\Z|\n\n)", doc, re.MULTILINE | re.DOTALL)
    return re.split(r"(?<=\.) ", " ".join(found[1].split()))[0] if found else ""
