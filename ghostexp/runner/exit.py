"""The end of a process, whatever still runs in it or waits for it."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

LIMIT = 3.0  # seconds for exit functions


def end_process(code: int) -> NoReturn:
    """Run the exit functions, for LIMIT seconds at most, and end this process with a code; no thread is waited for.

    NCCL's exit function waits for the other ranks, and a library's thread for a server. A process that multiprocessing
    started would leave the exit functions out, and with them W&B's, which ends its own process.
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
        with suppress(OSError, ValueError):  # a terminal that is closed
            stream.flush()
