"""Define the signals that stop a run after it has saved a checkpoint."""

import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def stop_signals() -> list[signal.Signals]:
    """List the signals to handle: all, but SIGHUP where it is ignored, as under nohup."""
    return [s for s in STOP_SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
