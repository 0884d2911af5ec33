"""Imported by the fork server alone, which has to outlive the processes that it started, and then to end at once."""

import atexit
import os
import signal

from ghostexp.runs.signals import STOP_SIGNALS

SERVER = os.getpid()


def _exit() -> None:
    if os.getpid() == SERVER:  # and not one of the processes forked from it
        os._exit(0)  # taking apart what it imported would take seconds


for _signum in STOP_SIGNALS:  # to the whole group, while runs are saving: without their server their ends are not seen
    signal.signal(_signum, signal.SIG_IGN)
atexit.register(_exit)
