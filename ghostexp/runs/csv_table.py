"""Write CSV files by rows and columns; a resumed file is truncated to a step."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghostexp.runs.text_files import ESCAPE, write_atomically


class CSVTable:
    """Rows keyed by `step`: values of the last row's step are merged into it, and a new column rewrites the file.

    With `resumed_step`, an existing file is kept up to that step. Without it, an existing file is replaced.
    """

    def __init__(self, path: Path, resumed_step: int | None = None) -> None:
        self.path = path
        self.columns: list[str] = []
        self.row: dict[str, Any] = {}
        self.row_start = 0  # offset of the last row in the file
        self.started = False
        self.resumed_step = resumed_step

    def add(self, values: dict[str, Any]) -> None:
        """Write values, including `step`, to disk."""
        if not self.started:
            self._start()
        new_columns = [name for name in values if name not in self.columns]
        if new_columns:
            rows = read_rows(self.path)
            self.columns += new_columns
            self._rewrite(rows)
        same_row = bool(self.row) and int(self.row["step"]) == int(values["step"])
        self.row = self.row | values if same_row else dict(values)
        with self.path.open("r+", newline="", encoding="utf-8", errors=ESCAPE) as file:
            if same_row:
                file.seek(self.row_start)
                file.truncate()
            else:
                self.row_start = file.seek(0, os.SEEK_END)
            file.write(self._line(self.row))

    def sync(self) -> None:
        """Flush the file to the disk."""
        if self.path.exists():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def _start(self) -> None:
        self.started = True
        rows = read_rows(self.path) if self.resumed_step is not None else []
        self.columns = list(rows[0]) if rows else []
        self._rewrite([row for row in rows if int(row["step"]) <= (self.resumed_step or 0)])

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        """Rewrite header and rows atomically."""
        *earlier, last = [self._line(row) for row in rows] or [""]
        head = self._line({name: name for name in self.columns}) + "".join(earlier)
        partial = self.path.with_name(f"{self.path.name}.partial")
        partial.write_text(head + last, newline="", encoding="utf-8", errors=ESCAPE)
        partial.replace(self.path)
        self.row_start = len(head.encode("utf-8", ESCAPE))
        self.row = dict(rows[-1]) if rows else {}

    def _line(self, row: dict[str, Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(name, "") for name in self.columns])
        return text.getvalue()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a table, without an incomplete last line that a killed process left."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    rows = list(csv.DictReader(complete))
    return [row for row in rows if None not in row and None not in row.values()]


def number(text: str) -> float:
    """Convert the text of a metric: `12` is an int, `0.5`, `1e-05` and `nan` are floats."""
    return int(text) if text.isdecimal() else float(text)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table atomically; its columns are those of all rows, in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
