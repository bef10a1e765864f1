"""Standard error of a run's processes: kept in a file, told in one line, never on the terminal.

The supervisor and its children inherit our standard error, and a library that complains there (or
a traceback) would tear the progress line and could carry control sequences. So while they live,
descriptor 2 is a file, and what we have to say ourselves goes to the terminal by another way.
"""

import os
import sys
import tempfile
from types import TracebackType

from lockstep.cli import kept, screen

KEPT_BYTES_MAX = 1 << 20


class ChildrenQuiet:
    """Takes descriptor 2 for the length of a ``with``; the processes started in it inherit that.

    For one thread only. `sys.stderr` goes on to the terminal.
    """

    def __enter__(self) -> "ChildrenQuiet":
        self._file = tempfile.TemporaryFile()
        sys.stderr.flush()
        self._saved = os.dup(2)
        self._before = sys.stderr
        os.dup2(self._file.fileno(), 2)
        sys.stderr = screen.text_stream(self._saved, self._before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stderr.flush()
        sys.stderr = self._before
        os.dup2(self._saved, 2)
        os.close(self._saved)
        with self._file:
            size = self._file.seek(0, os.SEEK_END)
            self._file.seek(max(size - KEPT_BYTES_MAX, 0))
            said = self._file.read(KEPT_BYTES_MAX)
        if said.strip():
            self._tell(said)

    def _tell(self, said: bytes) -> None:
        last = said.decode("utf-8", "replace").strip().splitlines()[-1]
        path = kept.keep("stderr", said)
        where = f"(all of it: {path})" if path else "(and there was no room to keep the rest)"
        screen.tell("note", f"the run's processes wrote to standard error: {last} {where}")
