"""The directory that says everything about one run."""

import json
import shlex
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ghostexp.runs.text_files import write_atomically, write_json

SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # six times as fast, and a report reads many


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and its records: config.yaml first, result.json or failure.json last."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

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
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def resume_command(self) -> str:
        """What continues this run, for a shell to read."""
        return shlex.join(["python", "-m", "ghostexp", f"resume={self.path}"])

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration.

        Raises ValueError: the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise ValueError(f"hydra.run.dir={self.path}: cannot be written ({error.strerror})") from error

    def read_config(self, key: str = "run") -> dict[str, Any]:
        """The configuration this run was started with; `key` names the directory in the error.

        Raises ValueError: there is no run here, or its configuration cannot be read.
        """
        if not self.config.is_file():
            raise ValueError(f"{key}={self.path}: not a run's directory, it has no config.yaml")
        try:
            config = _load(self.config)
        except yaml.YAMLError as error:
            raise ValueError(f"{self.config}: not valid YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(config, dict):
            raise ValueError(f"{self.config}: holds no configuration")
        return config

    def read_result(self) -> dict[str, Any] | None:
        """The result of a finished run; None while there is none."""
        return json.loads(self.result.read_bytes()) if self.result.is_file() else None

    def read_failure(self) -> str:
        """Why a failed run failed, in one line."""
        return json.loads(self.failure.read_bytes())["error"]

    def write_result(self, result: dict[str, Any]) -> None:
        """Say that the run succeeded; only outputs whose failure costs nothing come after it."""
        self.failure.unlink(missing_ok=True)
        write_json(self.result, result)

    def write_failure(self, error: BaseException, message: str) -> None:
        """Say that the run failed, in one line, with the traceback beside it."""
        record = {
            "error": message,
            "type": type(error).__name__,
            "traceback": "".join(traceback.format_exception(error)),
        }
        write_json(self.failure, record)


def _load(path: Path) -> Any:
    content = path.read_bytes()
    try:
        return yaml.load(content, SafeLoader)
    except yaml.YAMLError:  # libyaml refuses paths with bytes that are not UTF-8, which safe_dump escapes
        return yaml.safe_load(content)
