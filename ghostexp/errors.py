"""Print errors in one line that names the key or the file; with a traceback only on request."""

import sys
import traceback as traceback_module
from pathlib import Path


class ConfigError(ValueError):
    """A wrong key, value or path, found before anything runs."""


class TargetNotFoundError(ValueError):
    """A `_target_` that does not exist, or not any more."""

    def of_run(self, run: str) -> ValueError:
        """Return the error for the configuration of an earlier run."""
        return ValueError(f"{self}; if it was renamed, write its new name into {run}/config.yaml")


class RunError(RuntimeError):
    """A run that failed; `directory` has its log and failure.json."""

    def __init__(self, message: str, directory: Path) -> None:
        super().__init__(f"{message} ({directory})")
        self.directory = directory


def format_error(error: BaseException) -> str:
    """Format an error in one line, with its type where the text alone would be unclear."""
    text = " ".join(str(error).split())
    is_explained = isinstance(error, ValueError | OSError | FloatingPointError)
    explains_itself = is_explained or type(error).__name__ == "MisconfigurationException"
    return text if text and explains_itself else f"{type(error).__name__}: {text}".rstrip(": ")


def print_error(error: BaseException, traceback: bool) -> None:
    """Print an error to standard error."""
    if traceback:
        traceback_module.print_exception(error)
    print(f"error: {format_error(error)}", file=sys.stderr, flush=True)
