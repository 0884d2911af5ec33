"""Access the files of a run directory."""

import json
import shlex
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.provenance import git_revision, machine, versions
from ghostexp.runs.text_files import write_atomically, write_json
from ghostexp.runs.third_party import arguments_for

SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # six times as fast; a report reads many files


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run; config.yaml is written first, result.json or failure.json last."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    def rank_log(self, rank: int) -> Path:
        """Return the log of a rank, which other ranks than 0 have for their warnings and errors."""
        return self.path / f"rank-{rank}.log" if rank else self.log

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def latency(self) -> Path:
        return self.path / "latency.json"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def resume_command(self) -> str:
        """Shell command that continues this run."""
        return self.command(f"resume={self.path}")

    def command(self, *arguments: str) -> str:
        """Return a shell command on this run, with what it needs to find code of other packages."""
        config = self.read_config() if self.config.is_file() else {}
        return shlex.join(["python", "-m", "ghostexp", *arguments, *arguments_for(config)])

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration.

        Raises ValueError: the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def read_config(self, key: str = "run") -> dict[str, Any]:
        """Read the configuration of this run; `key` is the config key in the error message.

        Raises ValueError: no run in this directory, or an invalid configuration.
        """
        if not self.config.is_file():
            raise ValueError(f"{key}={self.path}: not a run directory, no config.yaml found")
        try:
            config = _load(self.config)
        except yaml.YAMLError as error:
            raise ValueError(f"{self.config}: not valid YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(config, dict):
            raise ValueError(f"{self.config}: contains no configuration")
        return config

    def read_result(self) -> dict[str, Any] | None:
        """Read the result of a finished run; None if there is none.

        Raises ValueError that names the file: it is not valid JSON.
        """
        try:
            return json.loads(self.result.read_bytes()) if self.result.is_file() else None
        except ValueError as error:
            raise ValueError(f"{self.result}: not valid JSON ({error})") from error

    def read_latency(self) -> dict[str, Any] | None:
        """Read the latency that a search has measured of this run's network; None if there is none."""
        return json.loads(self.latency.read_bytes()) if self.latency.is_file() else None

    def read_failure(self) -> str:
        """Read the error message of a failed run."""
        return json.loads(self.failure.read_bytes())["error"]

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the result of a successful run; only optional outputs are written after it."""
        self.failure.unlink(missing_ok=True)
        write_json(self.result, result)

    def write_failure(self, error: BaseException, message: str, source: Mapping[str, Any] | None = None) -> None:
        """Write the error message and traceback of a failed run, versions and machine.

        source: versions and git revision; None: those of now.
        """
        record = {
            "error": message,
            "type": type(error).__name__,
            "traceback": "".join(traceback.format_exception(error)),
        }
        write_json(self.failure, {**record, **machine(), **(source or {"versions": versions(), "git": git_revision()})})


def cannot_write(path: Path, error: OSError) -> ValueError:
    """Return the error for a run directory that cannot be written."""
    return ValueError(f"hydra.run.dir={path}: cannot be written ({error.strerror})")


def _load(path: Path) -> Any:
    content = path.read_bytes()
    try:
        return yaml.load(content, SafeLoader)
    except yaml.YAMLError:  # libyaml rejects paths with non-UTF-8 bytes, which safe_dump escapes
        return yaml.safe_load(content)
