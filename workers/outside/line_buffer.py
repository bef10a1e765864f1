"""Bytes cut into lines of bounded length, as they come."""

TOO_LONG = object()


class LineBuffer:
    """Cuts bytes into lines of bounded length."""

    def __init__(self, line_bytes_max: int) -> None:
        self.line_bytes_max = line_bytes_max
        self._data = bytearray()
        self._at = 0  # Where the next line begins.
        self._searched = 0  # No line ends before here.
        self._skipping = False  # The rest of a line that was too long.

    def feed(self, data: bytes) -> None:
        """More bytes. Take every line with `next` before the next time."""
        del self._data[: self._at]
        self._searched -= self._at
        self._at = 0
        self._data += data

    def next(self) -> bytes | object | None:
        """The next line without its end; `TOO_LONG` in place of one; None: not whole yet."""
        end = self._data.find(b"\n", max(self._at, self._searched))
        if end < 0:
            self._searched = len(self._data)
            if len(self._data) - self._at > self.line_bytes_max:
                self._data.clear()
                self._at, self._searched, self._skipping = 0, 0, True
            return None
        line = bytes(self._data[self._at : end])
        self._at = self._searched = end + 1
        if self._skipping or len(line) > self.line_bytes_max:
            self._skipping = False
            return TOO_LONG
        return line

    @property
    def holds_line(self) -> bool:
        """Whether `next` has one."""
        return self._data.find(b"\n", max(self._at, self._searched)) >= 0

    def rest(self) -> bytes | object | None:
        """At the end: a last line without an end; None when there is none."""
        if self._at == len(self._data) and not self._skipping:
            return None
        self._data += b"\n"
        return self.next()
