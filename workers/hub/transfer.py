"""One file on its way: a part that only grows, hashed as it grows, proven at its end.

A part is nothing but the first bytes of its file, so whoever comes next, after a broken
connection or a killed process, asks for the rest. Its commit never changes, and the digest at the
end is the proof that parts of several transfers fit.
"""

import hashlib
import os
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from lockstep.workers.hub.listing import GIT, SHA256, Interruption, PullStopped, RemoteFile

TRIES_MAX = 5  # In a row, without a byte more.
PAUSE_S_MAX = 8.0
BLOCK_BYTES = 1 << 20

Reader = Callable[[int], Generator[tuple[int, bytes], None, None]]
Told = Callable[[int], None]


class Part:
    """The first bytes of a file, on disk. Use in a ``with``.

    Args:
        path: Where it lies; made if it is not there. Its folder exists.
        file: What it becomes.

    Attributes:
        size: Bytes that are there.
    """

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self.path = path
        self.file = file
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Unbuffered: a kill loses no byte that came.
        self._handle = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        self._reset()

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def _reset(self) -> None:
        self.size = 0
        self._digests = _Digests(self.file)

    def recall(self, told: Told) -> None:
        """Hash what is there. More than the file can have is thrown away."""
        self.clear(os.fstat(self._handle.fileno()).st_size > self.file.size)
        while block := self._handle.read(BLOCK_BYTES):
            self._hash(block)
            told(self.size)

    def clear(self, really: bool = True) -> None:
        """Begin anew."""
        self._handle.seek(0)
        if really:
            self._handle.truncate()
        self._reset()

    def write(self, at: int, chunk: bytes) -> None:
        """Add a chunk.

        Args:
            at: Its place: the end of what is there, or 0 to begin anew.
            chunk: Its bytes.

        Raises:
            PullStopped: it belongs elsewhere, or is more than the file has.
        """
        if at == 0 and self.size:
            self.clear()
        if at != self.size or at + len(chunk) > self.file.size:
            raise PullStopped(
                f"{self.file.path}: the server sent bytes {at} to {at + len(chunk)}, expected "
                f"{self.size} to at most {self.file.size}"
            )
        left = memoryview(chunk)
        while left:
            left = left[self._handle.write(left) :]
        self._hash(chunk)

    def _hash(self, chunk: bytes) -> None:
        self._digests.update(chunk)
        self.size += len(chunk)

    def prove(self) -> str:
        """Compare the whole file with the hub's digest, and make it durable.

        Returns:
            Its sha256, in hex.

        Raises:
            PullStopped: it has other bytes; they are thrown away.
        """
        digests = self._digests
        if digests.found != self.file.digest:
            self.clear()
            raise PullStopped(
                f"{self.file.path}: its {self.file.size} bytes have {digests.found}, expected "
                f"{self.file.digest} as the hub says; they were thrown away"
            )
        os.fsync(self._handle.fileno())
        return digests.sha256


class _Digests:
    """Of a file that passes by: its sha256, and what the hub calls it."""

    def __init__(self, file: RemoteFile) -> None:
        self._sha256 = hashlib.sha256()
        self._blob = None
        if file.digest.startswith(GIT):
            self._blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._sha256.update(chunk)
        if self._blob:
            self._blob.update(chunk)

    @property
    def sha256(self) -> str:
        """Of what passed, in hex."""
        return self._sha256.hexdigest()

    @property
    def found(self) -> str:
        """The digest to compare with the hub's."""
        return f"{GIT}{self._blob.hexdigest()}" if self._blob else f"{SHA256}{self.sha256}"


def fetch(
    part: Part, read: Reader, told: Told, pause: Callable[[float], None] = time.sleep
) -> None:
    """Bring the rest of a file, over as many connections as it takes.

    Args:
        part: What there is of it, hashed.
        read: From a place on: chunks with their places.
        told: Called with the bytes there are.
        pause: Waits before a try that follows one that brought nothing.

    Raises:
        PullStopped: `TRIES_MAX` tries in a row brought nothing, or the hub refuses.
    """
    tries = 0
    while part.size < part.file.size:
        before = part.size
        try:
            _once(part, read, told)
        except Interruption as problem:
            tries = 0 if part.size > before else tries + 1
            if tries == TRIES_MAX:
                raise PullStopped(f"{part.file.path}: {problem} ({tries} tries)") from None
            if tries:
                pause(min(2.0 ** (tries - 1), PAUSE_S_MAX))


def _once(part: Part, read: Reader, told: Told) -> None:
    with closing(read(part.size)) as chunks:
        for at, chunk in chunks:
            part.write(at, chunk)
            told(part.size)
    if part.size < part.file.size:
        raise Interruption(f"the connection ended at byte {part.size} of {part.file.size}")


def proven(path: Path, file: RemoteFile, told: Told) -> str | None:
    """The sha256 of a file that has the bytes the hub says, else None. Nothing is changed."""
    digests, size = _Digests(file), 0
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            digests.update(block)
            size += len(block)
            told(size)
    return digests.sha256 if digests.found == file.digest else None
