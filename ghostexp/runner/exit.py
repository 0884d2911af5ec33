"""End a process without waiting for its threads."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

LIMIT = 60.0  # seconds for exit functions, in which loggers may send what is left
LIMIT_OF_FAILED = 3.0  # other ranks wait for this one to end


def end_process(code: int) -> NoReturn:
    """Run the exit functions for a limited time and end this process, without waiting for threads.

    NCCL's exit function waits for the other ranks, and threads of libraries for a server. A process started by
    multiprocessing would skip the exit functions, and with them W&B's, which ends its own process, and Comet's, which
    writes what it recorded.
    """
    timer = threading.Timer(LIMIT_OF_FAILED if code else LIMIT, os._exit, (code,))
    timer.daemon = True
    timer.start()
    try:
        _flush()
        for function in reversed(getattr(threading, "_threading_atexits", [])):  # those that end threads, as in Python
            with suppress(Exception):
                function()
        atexit._run_exitfuncs()
        _flush()
    finally:
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed terminal
            stream.flush()
