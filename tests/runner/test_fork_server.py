"""Test function calls in a new process: result, error, and no process left."""

import multiprocessing
import os
import signal
import time
from types import FrameType

import pytest

from ghostexp.runner.fork_server import call_in_process


def test_call_in_process_returns_result_and_raises_error() -> None:
    assert call_in_process(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        call_in_process(int, "no number")


def test_killed_process_is_one_line_error() -> None:
    with pytest.raises(ValueError, match="was killed"):
        call_in_process(os._exit, 9)


def test_interrupted_call_leaves_no_process() -> None:
    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 5)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            call_in_process(time.sleep, 600)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 60
    assert multiprocessing.active_children() == []
