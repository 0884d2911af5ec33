"""Set up the fork server: it blocks stop signals, and exits without cleanup. Imported by the server only.

Stop signals are sent to the process group, while runs are still saving and need the server to report their exit codes.
Processes forked from it inherit the mask, so that a signal which comes before they handle signals is not lost: it waits
until `ghostexp.runner.execute` unblocks them.
"""

import atexit
import os
import signal

from ghostexp.runs.signals import STOP_SIGNALS

SERVER = os.getpid()


def _exit() -> None:
    if os.getpid() == SERVER:  # not in processes forked from it
        os._exit(0)  # cleanup of the imported modules would take seconds


signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
atexit.register(_exit)
