"""Standard streams whose reader may go away: a closed terminal or pipe costs no training."""

import errno
import io
import sys
from typing import Any


class _TolerantFile(io.FileIO):
    """A file that takes what nobody can read any more."""

    def write(self, data: Any, /) -> int:
        """Write bytes; where the reader is gone, they count as written."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            return len(data)


def outlive_terminal() -> None:
    """Let this process print on when its terminal or pipe is closed, where each print would raise OSError."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() == number:
            stream.flush()
            raw = io.BufferedWriter(_TolerantFile(number, "w", closefd=False))
            how = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": stream.line_buffering}
            setattr(sys, name, io.TextIOWrapper(raw, **how, write_through=stream.write_through))
