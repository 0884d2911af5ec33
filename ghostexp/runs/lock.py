"""Lock a directory, so that one process at a time uses it."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"  # lock file in the directory
INTERVAL = 0.1  # seconds between two attempts
ENDING = 2.0  # seconds for which a process that was just killed may still hold a lock


@contextmanager
def locked(directory: Path, seconds: float) -> Iterator[None]:
    """Hold a directory's lock; the system releases it when this process ends.

    Raises BlockingIOError: another process holds it for longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    with (directory / LOCK).open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(INTERVAL)
        yield


def wait_until_free(directory: Path, seconds: float) -> None:
    """Wait while another process holds a directory's lock.

    Raises BlockingIOError: it holds it for longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while is_locked(directory):
        if time.monotonic() >= deadline:
            raise BlockingIOError
        time.sleep(INTERVAL)


def is_locked(directory: Path) -> bool:
    """Return whether a process holds a directory's lock."""
    try:
        with (directory / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
