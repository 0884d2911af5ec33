"""Set up the fork server: it ignores stop signals, and exits without cleanup. Imported by the server only."""

import atexit
import os
import signal

from ghostexp.runs.signals import STOP_SIGNALS

SERVER = os.getpid()


def _exit() -> None:
    if os.getpid() == SERVER:  # not in processes forked from it
        os._exit(0)  # cleanup of the imported modules would take seconds


for (
    _signum
) in STOP_SIGNALS:  # sent to the process group: runs are still saving, and need the server to report their exit codes
    signal.signal(_signum, signal.SIG_IGN)
atexit.register(_exit)
