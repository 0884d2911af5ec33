"""Read the records of an offline W&B run."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK, FULL, FIRST, LAST = 7, 32768, 1, 2, 4


def records(run: Path) -> Iterator[Any]:
    """Yield every record of a run's offline files, in order."""
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
            record.ParseFromString(data)
            yield record


def chunks(log: bytes) -> Iterator[bytes]:
    """Yield the entries of a log in LevelDB's format: chunks with checksum, length and kind, in 32 KiB blocks."""
    entry, position = b"", HEADER
    while position + HEADER <= len(log):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block holds no chunk
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", log, position)
        position += HEADER
        entry = (
            log[position : position + length] if kind in (FULL, FIRST) else entry + log[position : position + length]
        )
        position += length
        if kind in (FULL, LAST):
            yield entry


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the history, one dictionary a row; nested keys become nested dictionaries."""
    return [_row(record.history.item) for record in records(run) if record.HasField("history")]


def _row(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        level = row
        for key in outer:
            level = level.setdefault(key, {})
        level[last] = json.loads(item.value_json)
    return row


def config_of(run: Path) -> dict[str, Any]:
    """Return the configuration of a run, which has a second record if it ended with other tags."""
    began, *_ = (record.run for record in records(run) if record.HasField("run"))
    return {item.key: json.loads(item.value_json) for item in began.config.update}


def summary_of(run: Path) -> dict[str, Any]:
    """Return the last value of every summary key."""
    found = (record.summary for record in records(run) if record.HasField("summary"))
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for row in found for item in row.update}
