"""Write caches beside a data set, which may be on a disk without space or rights."""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

CACHE_FOLDER = ".ghostexp"  # beside the cached folder


def write_cache(cache: Path, save: Callable[[BinaryIO], object], consequence: str) -> bool:
    """Write a cache atomically; where it cannot be written, warn with the consequence and return False."""
    temporary = cache.with_name(f"{cache.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            save(file)
        temporary.replace(cache)
    except OSError as error:
        log.warning("%s: cannot be written (%s); %s", cache, error.strerror, consequence)
        with suppress(OSError):
            temporary.unlink()
        return False
    return True
