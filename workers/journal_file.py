"""Where the journal's bytes go, and what a durability level promises.

``memory``  written when a mebibyte has gathered and at the end: a crash of the process loses it.
``async``   written before anything is revealed, synced about once a second and at the end: a crash
            of the machine loses what is younger than that.
``sync``    nothing is revealed before it is synced; whatever waits for that, the run goes on.

While nothing is revealed there is nothing to keep a promise to: then ``async`` and ``sync`` write
what has gathered every `DELAY_S`, which is what a crash of the process loses at most.

A segment is synced, and the name of the next one, before anything is written into that: so only
the last one can have a torn tail. What comes meanwhile gathers.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from lockstep.engine.errors import JournalError, JournalFull
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.storage import NO_ROOM, File, Storage, failure
from lockstep.workers.sync import Ask, Syncer

LEVELS = ("memory", "async", "sync")
DELAY_S = 0.02
BACKGROUND_S = 1.0  # Between a write and the sync that ``async`` asks for.
RESERVE = "reserve"
RESERVE_BYTES = 1 << 18  # For the summary and the logs of a run that stops on a full disk.
_GATHERED_BYTES = 1 << 20

Promised = Callable[[], None]


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"{number:08d}.journal"


class JournalFile:
    """Segments behind `engine.journal.JournalWriter`.

    Positions count the bytes of the run that were written since this was made, over all segments.
    """

    def __init__(
        self,
        storage: Storage,
        syncer: Syncer,
        level: str,
        segment_bytes_max: int,
        segment: int = 0,
        size: int = 0,
    ) -> None:
        """Begin a segment, or go on in one.

        Args:
            storage: The journal's folder.
            syncer: Whoever syncs.
            level: One of `LEVELS`.
            segment_bytes_max: A segment that has so many is followed by another.
            segment: Number of the segment.
            size: Bytes that it has; 0: it is made.

        Raises:
            OSError: it cannot be made.
            JournalFull: there is no room for the reserve; nothing was made.
        """
        self._storage, self._syncer, self._level = storage, syncer, level
        self._segment_bytes_max = segment_bytes_max
        self._number = segment
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._written_s = 0.0
        self._broken = False  # A write or sync failed: nothing more is written.
        self._waiting: deque[tuple[int, Promised]] = deque()
        self._sealing = False  # The segment is synced, and nothing written, for the next one.
        self._next: File | None = None  # That one, once it is made.
        self._synced = 0
        self._syncs = 0  # That were asked for and not answered.
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self.bytes_written = 0
        reserve(storage)
        name = segment_name(segment)
        handle = storage.open(name) if size else storage.make(name)
        self._file = File(storage, name, handle, size)
        syncer.take(handle)
        if not size:
            self._ask(Ask.NAMES)
            self._hear()

    def attach(self, loop: Loop) -> None:
        """From now on the loop tells us of answers of the sync process, and of time."""
        self._loop = loop
        self._syncer.attach(loop, self._hear)
        self._later()

    # -- writing ------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Take bytes; they are promised by `reveal`."""
        self._gathered.append(data)
        self._gathered_bytes += len(data)

    @property
    def appended(self) -> int:
        """Bytes taken so far."""
        return self.bytes_written + self._gathered_bytes

    @property
    def gathered(self) -> bytes:
        """What was taken and is not written."""
        return b"".join(self._gathered)

    @property
    def behind(self) -> bool:
        """Whether something has gathered that the level does not let lie for long."""
        return self._gathered_bytes > 0 and self._level != "memory"

    @property
    def full(self) -> bool:
        """Whether the next frame belongs into the next segment (`next_segment`)."""
        size = self._file.size + self._gathered_bytes
        return not self._sealing and size >= self._segment_bytes_max

    def reveal(self, visible: bool = True) -> None:
        """Write what the level wants written now.

        Args:
            visible: Somebody waits for it. Without it this is about not falling behind too far.

        Raises:
            JournalError: no space, or an error of the disk; what was acknowledged stands.
        """
        if self._gathered_bytes < _GATHERED_BYTES:
            if self._level == "memory":
                return
            if not visible and time.monotonic() - self._written_s < DELAY_S:
                return
        if self._gathered:
            self.flush()

    def when_promised(self, then: Promised) -> None:
        """Call ``then`` as soon as everything taken so far is as durable as the level says.

        Calls come in the order of asking; maybe at once, never after `close`. Errors as `reveal`.
        """
        self._waiting.append((self.appended, then))
        self.reveal()
        self._fire()

    def flush(self) -> None:
        """Write what has gathered, unless the segment it belongs to is still to come."""
        if self._broken or self._sealing:
            return
        data = b"".join(self._gathered)
        self._written_s = time.monotonic()
        try:
            self._file.append(data)
        except JournalError as error:
            raise self._fail(error) from None
        self._gathered, self._gathered_bytes = [], 0
        self.bytes_written += len(data)
        if self._level == "sync":
            self._sync()
        else:
            self._later()
        self._fire()

    def next_segment(self) -> None:
        """What is taken from now on belongs to the next segment. Errors as `reveal`."""
        self.flush()
        self._sealing = True
        self._ask(Ask.SYNC)
        self._hear()

    def _make_next(self) -> None:
        """This segment is whole on the disk: make the next one."""
        self._number += 1
        name = segment_name(self._number)
        try:
            self._next = File(self._storage, name, self._storage.make(name))
        except OSError as error:
            path = self._storage.path / name
            raise self._fail(failure(path, "make", error, self.bytes_written)) from None
        self._syncer.take(self._next.handle)
        self._ask(Ask.NAMES)

    def _go_over(self) -> None:
        """The next segment has its name: write there."""
        assert self._next is not None
        self._file.close()
        self._file, self._next, self._sealing = self._next, None, False
        self.flush()

    def _fail(self, error: JournalError) -> JournalError:
        """Nothing is written after this."""
        self._broken = True
        if isinstance(error, JournalFull):
            release(self._storage)
        return error

    # -- durability ---------------------------------------------------------------------------

    def _ask(self, what: Ask) -> None:
        self._syncs += what is Ask.SYNC
        try:
            self._syncer.ask(what, self.bytes_written)
        except JournalError as error:
            raise self._fail(error) from None

    def _sync(self) -> None:
        """Ask for a sync of what is written, if nobody did and none is under way.

        One at a time: what is written meanwhile is synced by the next one as a group.
        """
        if not self._syncs and self._synced < self.bytes_written:
            self._ask(Ask.SYNC)
            self._hear()

    def _later(self) -> None:
        """Sync in the background, in a while."""
        if self._loop is None or self._level == "memory" or self._timer is not None:
            return
        if self._synced < self.bytes_written:
            self._timer = self._loop.after(BACKGROUND_S, self._background)

    def _background(self) -> None:
        self._timer = None
        self._sync()

    def _hear(self, wait: bool = False) -> None:
        """Take in what was answered, and go on with what waited for it."""
        try:
            answers = self._syncer.answers(wait)
        except JournalError as error:
            raise self._fail(error) from None
        for what, position in answers:
            if what is Ask.SYNC:
                self._synced = position
                self._syncs -= 1
                # Nothing is written while a segment is sealed: all of it is synced now.
                if self._sealing and self._next is None and position == self.bytes_written:
                    self._make_next()
            elif self._next is not None:
                self._go_over()
        if self._sealing and answers:
            self._hear(wait)  # For the next answer, which may be there.
        elif answers:
            self._fire()
            if self._level == "sync":
                self._sync()
            else:
                self._later()

    @property
    def _promised(self) -> int:
        if self._level == "memory":
            return self.appended
        return self.bytes_written if self._level == "async" else self._synced

    def _fire(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._promised and not self._broken:
            _, then = self._waiting.popleft()
            then()

    # -- the end ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Write and sync everything; whatever waited for that is called. Errors as `reveal`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._broken:
            return
        self._hear(wait=True)
        self.flush()
        self._hear(wait=True)
        if self._synced < self.bytes_written:
            self._ask(Ask.SYNC)
            self._hear(wait=True)

    def close(self) -> None:
        """`settle`, unless something failed before, and let go of everything."""
        try:
            self.settle()
        finally:
            self._waiting.clear()
            release(self._storage)
            self._syncer.close()
            self._file.close()
            if self._next is not None:
                self._next.close()


def reserve(storage: Storage) -> None:
    """Take room on the disk, anew.

    Raises:
        JournalFull: there is not enough.
    """
    storage.remove(RESERVE)
    try:
        storage.allocate(RESERVE, RESERVE_BYTES)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise JournalFull(
            f"{storage.path}: no room for a journal: its reserve needs {RESERVE_BYTES} bytes, "
            f"{storage.free()} are free"
        ) from None


def release(storage: Storage) -> None:
    """Give the room back: the disk is full, or the run is over."""
    with suppress(OSError):
        storage.remove(RESERVE)
