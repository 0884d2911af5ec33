"""End a process without waiting for its threads."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

LIMIT = 3.0  # seconds for exit functions


def end_process(code: int) -> NoReturn:
    """Run the exit functions for at most LIMIT seconds and end this process, without waiting for threads.

    NCCL's exit function waits for the other ranks, and threads of libraries for a server. A process started by
    multiprocessing would skip the exit functions, and with them W&B's, which ends its own process.
    """
    timer = threading.Timer(LIMIT, os._exit, (code,))
    timer.daemon = True
    timer.start()
    try:
        _flush()
        atexit._run_exitfuncs()
        _flush()
    finally:
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed terminal
            stream.flush()
