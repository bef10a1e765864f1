"""What C libraries write to standard error, kept from the terminal and read for its causes.

ONNX Runtime reports a missing CUDA library in coloured log lines of its own, whatever the log
severity of the session, and its Python half prints to standard output. Both are caught here.
"""

import contextlib
import io
import os
import re
import tempfile
from types import TracebackType

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TEXT_BYTES_MAX = 1 << 20
STDERR = 2


class CapturedStderr:
    """Takes descriptor 2 and `print` for the length of a ``with``. Not for more than one thread.

    Attributes:
        text: What was written, without colours; set at the end.
    """

    def __init__(self) -> None:
        self.text = ""
        self._prints = contextlib.redirect_stdout(io.StringIO())

    def __enter__(self) -> "CapturedStderr":
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(STDERR)
        os.dup2(self._file.fileno(), STDERR)
        self._prints.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._prints.__exit__(kind, error, trace)
        os.dup2(self._saved, STDERR)
        os.close(self._saved)
        with self._file:
            self._file.seek(0)
            raw = self._file.read(TEXT_BYTES_MAX)
        self.text = COLOUR.sub("", raw.decode("utf-8", "replace"))
