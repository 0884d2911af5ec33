"""Write text as UTF-8 in every locale, escape what cannot be encoded, such as odd file names; Markdown tables."""

import codecs
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ESCAPE = "ghostexp.escape"  # a value of `errors=`
SURROGATES = re.compile("[\ud800-\udfff]+")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], right: bool = False) -> str:
    """Format a Markdown table; right: align all columns but the first to the right, as numbers."""
    rule = ["---", *["---:" if right else "---"] * (len(head) - 1)]
    lines = [[str(cell).replace("|", r"\|") for cell in line] for line in (head, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    r"""Return text that can be encoded: bytes of file names that Python could not decode as UTF-8, or as `\xe9`."""
    return SURROGATES.sub(lambda found: _decoded(found[0]), text)


def _decoded(surrogates: str) -> str:
    try:
        return surrogates.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character of UTF-16, as JavaScript leaves them
        return surrogates.encode("ascii", "backslashreplace").decode()


def _replace(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = escape(error.object[error.start : error.end])
    return text.encode(error.encoding, "backslashreplace"), error.end


codecs.register_error(ESCAPE, _replace)


def escape_streams() -> None:
    """Make standard output and error escape characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def write_atomically(path: Path, text: str) -> None:
    """Write a file atomically."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors=ESCAPE) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write strict JSON atomically: non-finite numbers become null, strings are escaped."""
    text = json.dumps(_with_nulls(content), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, SURROGATES.sub(lambda found: json.dumps(_decoded(found[0]), ensure_ascii=False)[1:-1], text))


def _with_nulls(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _with_nulls(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_nulls(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
