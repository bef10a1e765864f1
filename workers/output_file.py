"""The output file: lines in item order, each written once, whatever happened in between.

A run that goes on gives all its lines again. Those that are there already must be the same; what
is missing is written behind them.
"""

from lockstep.engine.errors import Diverged
from lockstep.workers.folder import OUTPUT
from lockstep.workers.storage import File, Storage


class OutputFile:
    """One writer: the ledger."""

    def __init__(self, storage: Storage, resumed: bool = False) -> None:
        """Make the file of a new run, or go on with that of an old one: a torn last line is cut.

        Raises:
            OSError: it cannot be made or read.
        """
        self._path = storage.path / OUTPUT
        there = resumed and OUTPUT in storage.names()
        data = storage.read(OUTPUT) if there else b""
        self._there = data[: data.rfind(b"\n") + 1]  # Whole lines of an earlier part of the run,
        self._at = 0  # how many bytes of them came again,
        self._lines = 0  # and how many lines there were in all.
        handle = storage.open(OUTPUT) if there else storage.make(OUTPUT)
        self._file = File(storage, OUTPUT, handle, len(self._there))
        if len(self._there) < len(data):
            storage.truncate(handle, len(self._there))

    def again(self, line: bytes) -> bool:
        """The run's next line: whether it is there already.

        Raises:
            Diverged: another one is.
        """
        self._lines += 1
        if self._at == len(self._there):
            return False
        if not self._there.startswith(line, self._at):
            end = self._there.index(b"\n", self._at)
            raise Diverged(
                f"{self._path}: line {self._lines} is {_short(self._there[self._at : end])}, "
                f"the run says {_short(line[:-1])}; nothing was changed"
            )
        self._at += len(line)
        return True

    def cut(self) -> int:
        """Remove the lines that have not come again; how many they were. Raises OSError."""
        count = self.left
        if count:
            self._there = self._there[: self._at]
            self._file.cut(self._at)
        return count

    @property
    def left(self) -> int:
        """Lines that are there and have not come again."""
        return self._there.count(b"\n", self._at)

    def append(self, data: bytes) -> None:
        """Write whole lines, behind those that are there. Errors as `File.append`."""
        self._file.append(data)

    def sync(self) -> None:
        """Make it durable. Errors as `File.sync`."""
        self._file.sync(self._there)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _short(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 120 else f"{text[:117]}...")
