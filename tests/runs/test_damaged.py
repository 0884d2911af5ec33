"""Damaged files of a run: the error names the file."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.sweep_record import read_sweep


@pytest.mark.parametrize(
    ("name", "content", "read", "problem"),
    [
        ("result.json", b"{", lambda folder: RunDirectory(folder).read_result(), "not valid JSON"),
        ("result.json", b"\xff{}", lambda folder: RunDirectory(folder).read_result(), "not valid JSON"),
        ("sweep.yaml", b"", read_sweep, "not the record of a sweep"),
        ("sweep.yaml", b"jobs: [", read_sweep, "not the record of a sweep"),
        ("sweep.yaml", b"{of: another version}", read_sweep, "not the record of a sweep"),
    ],
)
def test_damaged_file_is_named(
    name: str, content: bytes, read: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path / name))}: {problem} \(\S"):
        read(tmp_path)


def test_row_with_a_damaged_byte_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"step,epoch\n1,1\n\xff,2\n")
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.csv")] == ["1", "2"]
