"""Find, download and load the initial weights of a network, `model.weights=SOURCE`."""

import fcntl
import hashlib
import json
import logging
import re
import sys
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.hub
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from ghostexp.models.weights import read_weights
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.text_files import write_json

log = logging.getLogger(__name__)

SOURCES = "must be a file, a run's directory, https://...#sha256=HEX or timm/NAME"
HUB = re.compile(r"timm/[\w.-]+")
HUB_FILE = "model.safetensors"


@dataclass(frozen=True)
class WeightsRecord:
    """The initial weights of a network.

    dropped: parameters that `model.reset_head` left out. layout: recognised layout of the file.
    """

    source: str
    sha256: str
    dropped: tuple[str, ...] = ()
    layout: tuple[str, ...] = ()


def load_weights_source(
    network: nn.Module, source: str, folder: Path, reset_head: bool = False, key: str = "model.weights"
) -> WeightsRecord:
    """Load weights into a network, strictly; downloads are kept in `folder`.

    source: a file of any layout that `read_weights` supports; a run's directory, for the checkpoint that the run
    tested; a URL with the file's SHA-256 after `#sha256=`; `timm/NAME`, from the Hugging Face hub and its cache.
    Raises ValueError of one line that begins with `key`: no such source, or its weights do not match the network.
    """
    try:
        file = find_weights_file(source, folder)
        found = read_weights(network, file, reset_head)
    except ValueError as error:
        raise ValueError(str(error).replace("model.weights", key, 1)) from error
    network.load_state_dict(found.state)
    loaded = WeightsRecord(source, file_sha256(file), found.dropped, found.recognised)
    _log_loaded(loaded, key)
    return loaded


@rank_zero_only
def _log_loaded(loaded: WeightsRecord, key: str) -> None:
    layout = "".join(f", {part}" for part in loaded.layout)
    log.info("%s=%s: loaded (sha256 %s)%s", key, loaded.source, loaded.sha256, layout)
    if loaded.dropped and key == "model.weights":  # else: a detector never has the classifier's last layer
        text = (
            f"model.reset_head=true: {', '.join(loaded.dropped)} not loaded from {loaded.source}, randomly initialised"
        )
        log.warning(text)
        print(text, file=sys.stderr)


def weights_record(loaded: WeightsRecord | None, run: RunDirectory) -> dict[str, Any] | None:
    """Return the weights' entry of result.json; a resumed run, which loads none, reads it from weights.json."""
    record = run.path / "weights.json"
    if loaded is None:
        return json.loads(record.read_bytes()) if record.is_file() else None
    if rank_zero_only.rank == 0:
        write_json(record, asdict(loaded))
    return asdict(loaded)


def find_weights_file(source: str, folder: Path) -> Path:
    """Return the weights file of a source, downloaded to `folder` if it is a URL.

    Raises ValueError that names the source: it is unknown, or cannot be downloaded.
    """
    path = Path(source)
    if path.is_dir():
        return find_tested_checkpoint(RunDirectory(path), "model.weights")
    if path.exists():
        return path
    if source.startswith(("https://", "http://")):
        return _download(source, folder)
    if HUB.fullmatch(source):
        return _from_hub(source)
    raise ValueError(f"model.weights={source}: no such file; {SOURCES}")


def find_tested_checkpoint(run: RunDirectory, key: str) -> Path:
    """Return the checkpoint that a run tested; errors name the directory by `key`."""
    validate_on = run.read_config(key)["datamodule"].get("validate_on")
    recorded = (run.read_result() or {}).get("test_checkpoint")  # last also where no validation had a metric
    return run.best if (recorded or {"holdout": "best"}.get(validate_on)) == "best" else run.last


def _download(source: str, folder: Path) -> Path:
    """Download a URL to `folder`, unless it is there; the file is renamed into place once its hash is verified."""
    url, _, expected = source.partition("#sha256=")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise ValueError(f"model.weights={source}: must end with the file's SHA-256, #sha256=64 digits")
    name = Path(urllib.parse.urlsplit(url).path).name
    file = folder / f"{expected[:12].lower()}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("wb") as lock:  # one of several processes downloads, the others wait
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                show = sys.stderr.isatty()
                torch.hub.download_url_to_file(url, str(file), hash_prefix=expected.lower(), progress=show)
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong hash
        raise ValueError(f"model.weights={source}: not downloaded ({error})") from error
    if file_sha256(file) != expected.lower():
        raise ValueError(f"model.weights={source}: {file} has another SHA-256; delete it to download it again")
    return file


def _from_hub(source: str) -> Path:
    """Download a file from the Hugging Face hub; a cached one needs no network."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise ValueError(f'model.weights={source}: needs huggingface_hub; pip install "ghostexp[hub]"') from None
    try:
        try:
            return Path(hf_hub_download(source, HUB_FILE, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(hf_hub_download(source, HUB_FILE))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"model.weights={source}: not in the hub's cache, and not downloaded ({reason}); "
            f"with a network: hf download {source} {HUB_FILE}"
        ) from error


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
