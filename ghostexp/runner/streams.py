"""Make standard streams tolerate a closed terminal or pipe, so that it does not end a training."""

import errno
import io
import sys
from typing import Any


class _TolerantFile(io.FileIO):
    """File that ignores writes to a closed terminal or pipe."""

    def write(self, data: Any, /) -> int:
        """Write bytes; to a closed terminal or pipe, count them as written."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            return len(data)


def outlive_terminal() -> None:
    """Let print succeed after the terminal or pipe is closed, instead of raising OSError."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() == number:
            stream.flush()
            raw = io.BufferedWriter(_TolerantFile(number, "w", closefd=False))
            how = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": stream.line_buffering}
            setattr(sys, name, io.TextIOWrapper(raw, **how, write_through=stream.write_through))
