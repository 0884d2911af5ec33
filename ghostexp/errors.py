"""Errors as one line that names the key or the file; a traceback only where it was asked for."""

import sys
import traceback as traceback_module


def format_error(error: BaseException) -> str:
    """What went wrong, without line breaks; the kind of error only where its text alone would say little."""
    text = " ".join(str(error).split())
    is_explained = isinstance(error, ValueError | OSError | FloatingPointError)
    explains_itself = is_explained or type(error).__name__ == "MisconfigurationException"
    return text if text and explains_itself else f"{type(error).__name__}: {text}".rstrip(": ")


def print_error(error: BaseException, traceback: bool) -> None:
    """Say on standard error what went wrong."""
    if traceback:
        traceback_module.print_exception(error)
    print(f"error: {format_error(error)}", file=sys.stderr, flush=True)
