"""The ledger: everything a run leaves on disk while it lives, in the order that was promised.

Entries go to the journal and the digests; what becomes visible (output lines, tools that start,
answers to clients) waits until the entries before it are as durable as the level says. Nobody here
waits for a disk while the run lives: what is promised later is called later.
"""

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.compare import ended
from lockstep.engine.compiled import mypyc_attr
from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.effects import LOG_LEVELS
from lockstep.engine.errors import Diverged, JournalCorrupt, JournalFull, UsageError
from lockstep.engine.fleet import Recovery
from lockstep.engine.history import Entry
from lockstep.engine.journal import End, JournalReader, JournalWriter, Scan
from lockstep.engine.journal import format as journal_format
from lockstep.engine.past import Past
from lockstep.engine.record import Kind, encode
from lockstep.engine.strict_json import dumps
from lockstep.engine.version import LOGIC_FLAGS
from lockstep.shm import platform_of
from lockstep.workers.folder import JOURNALS, LOGS, SUMMARY, RunFolder
from lockstep.workers.journal_file import DELAY_S, JournalFile, release, reserve, segment_name
from lockstep.workers.journal_reading import segments
from lockstep.workers.loop import Loop
from lockstep.workers.output_file import OutputFile
from lockstep.workers.reading_back import Enough, ReadingBack
from lockstep.workers.storage import Disk, Storage, failure, write_over
from lockstep.workers.sync import InlineSyncer, Syncer, SyncProcess

SEGMENT_BYTES_MAX = Recovery().segment_bytes_max


class Backend(NamedTuple):
    """What a ledger stands on.

    Attributes:
        storage: Makes the storage of a folder.
        syncer: Makes whoever syncs; given the durability level and the journal's storage.
    """

    storage: Callable[[Path], Storage]
    syncer: Callable[[str, Storage], Syncer]


def syncer_of(level: str, storage: Storage) -> Syncer:
    """A process of its own, where a level promises anything while the run lives."""
    return InlineSyncer(storage) if level == "memory" else SyncProcess(storage)


REAL = Backend(Disk, syncer_of)
INLINE = Backend(Disk, lambda _level, storage: InlineSyncer(storage))


def backend_of(platform: str) -> Backend:
    """What a run stands on: where processes are not forked, the supervisor syncs itself.

    Args:
        platform: As in `Job`.
    """
    return REAL if platform_of(platform).forks else INLINE


@mypyc_attr(allow_interpreted_subclasses=True)  # The benchmark that keeps no history.
class Ledger:
    """Journal, digests, output and logs of one run. One writer: the supervisor.

    Made by `create` or `resume`.

    Attributes:
        entries: How many there are, recorded ones among them.
        run_id: 16 random bytes: tells two journals apart, decides nothing.
        shared: Of a fork: what lies in the journals of the runs that it was forked from.
        cut: What was cut from the journal that is gone on with, for people; empty: nothing.
    """

    def __init__(
        self, folder: RunFolder, identity: bytes, file: JournalFile, storage: Storage
    ) -> None:
        """Not for use."""
        self._folder, self._file, self._storage = folder, file, storage
        self._journal: JournalWriter
        self._output: OutputFile
        self._digest = Digest(identity)
        self._booked: deque[tuple[int, Entry]] = deque()  # Position, entry: not in the digest yet.
        self._lines: list[bytes] = []
        self._kept: list[bytes] = []
        self._last = b""
        self._closing = False
        self._live = True
        self.run_id = b""
        self.shared = Past([])
        self.entries = 0
        self.cut = ""

    @classmethod
    def create(
        cls,
        folder: RunFolder,
        durability: str,
        identity: dict[str, Any],
        environment: dict[str, Any],
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        backend: Backend = REAL,
    ) -> "Ledger":
        """Begin the journal with what the run is and what it runs on. May fork.

        Raises:
            OSError, JournalError: the folder cannot be written.
            JournalFull: there is no room for the reserve; nothing was made.
        """
        storage = backend.storage(folder.path / JOURNALS)
        file = _file(backend, storage, durability, segment_bytes_max)
        record = identity_record(identity)
        made = cls(folder, record, file, storage)
        made.run_id = os.urandom(16)
        made._journal = JournalWriter(file, made.run_id, identity.get("logic_flags", LOGIC_FLAGS))
        made._journal.append(journal_format.IDENTITY, record)
        body = encode(Kind.ENVIRONMENT, dumps(environment))
        made._journal.append(journal_format.ENVIRONMENT, body)
        file.settle()  # At every level: from now on there is a run that can be gone on with.
        made._output = OutputFile(backend.storage(folder.path))
        return made

    @classmethod
    def resume(
        cls,
        folder: RunFolder,
        durability: str,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        backend: Backend = REAL,
        journal: JournalReader | None = None,
    ) -> "Ledger":
        """Go on with the journal of a run that nobody runs. May fork.

        A torn tail is cut (`cut` says so). Then the caller gives everything again that the record
        has: `recorded` for its entries, `output` and `log` as they come; what of it is in the
        folder already is compared and not written twice. With the first of `append`, `attach` and
        `reveal` the run is live: its summary is removed, its logs are written anew.

        Args:
            folder: Held by us.
            durability: May be another level than before.
            segment_bytes_max: Likewise.
            backend: For tests.
            journal: What was read of the folder just now, if it was.

        Raises:
            UsageError: no journal, or no room for the reserve; nothing was changed.
            JournalCorrupt, JournalVersion: damage; nothing was changed.
            OSError, JournalError: the folder cannot be written.
        """
        storage = backend.storage(folder.path / JOURNALS)
        if journal is None:
            journal = JournalReader.of(Scan(segments(storage)))
        if not journal.frames or journal.frames[0].kind != journal_format.IDENTITY:
            raise JournalCorrupt(f"{folder.path}: the journal does not begin with an identity")
        try:
            reserve(storage)
        except JournalFull as error:
            raise UsageError(f"{error}; nothing was changed") from None
        end = journal.end
        _mend(storage, end)
        file = _file(backend, storage, durability, segment_bytes_max, end.segment, end.offset)
        made = cls(folder, journal.frames[0].body, file, storage)
        made.run_id = journal.header.run_id
        made._journal = JournalWriter.resumed(file, journal)
        made._output = OutputFile(backend.storage(folder.path), resumed=True)
        if end.torn_bytes:
            made.cut = f"{end.torn_bytes} bytes of a torn tail were cut ({end.why})"
        made._live = False
        return made

    @property
    def digest(self) -> Digest:
        """Of every entry that is written; at the end, of what the journal holds."""
        self._book()
        return self._digest

    # -- what happened --------------------------------------------------------------------------

    def recorded(self, entry: Entry) -> None:
        """The next entry of the record that is gone on with."""
        self.entries += 1
        self._last = entry.body
        self._digest.add(entry)

    def keep(self, record: bytes) -> None:
        """A record that is no history; it lies before whatever is appended after it."""
        self._kept.append(record)

    def append(self, entry: Entry) -> None:
        """The next entry of history."""
        self._go_live()
        self._write_kept()
        self.entries += 1
        self._last = entry.body
        self._put(journal_format.HISTORY, entry.body)
        self._booked.append((self._file.appended, entry))

    def output(self, line: bytes) -> None:
        """A line that becomes visible when what was appended before it is promised.

        Raises:
            Diverged: an earlier part of the run wrote another one in its place.
        """
        line += b"\n"
        if not self._output.again(line):
            self._lines.append(line)

    def cut_output(self) -> int:
        """Remove the lines that the record does not lead to, once it was told; how many.

        For runs that do not follow from their identity alone: lines that were shown and are not
        recorded (``memory``, or ``async`` and the machine died) will never come again.

        Raises:
            OSError: the file cannot be cut.
        """
        return self._output.cut()

    def log(self, agent: str, log: actions.Log) -> None:
        """An agent's log line."""
        stream = ("log", "stdout", "stderr")[log.stream]
        text = log.text.decode("utf-8", "replace")
        # Control characters would run in the terminal of whoever reads the file.
        safe = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
        self._folder.log(agent, f"{tags.text(log.tag)} {LOG_LEVELS[log.level]} {stream}: {safe}\n")

    # -- what is promised -----------------------------------------------------------------------

    def attach(self, loop: Loop) -> None:
        """Let the loop of the run tell us of syncs that are done. May be called once."""
        self._go_live()
        self._file.attach(loop)

    def timeout_s(self) -> float:
        """How long the loop may block before the next `reveal`; for ever: -1."""
        return DELAY_S if self._file.behind else -1.0

    def reveal(self, visible: bool = False) -> None:
        """Write what the level wants written, and show the lines that this allows.

        Args:
            visible: Somebody outside the run waits for it.

        Raises:
            OSError, JournalError: nothing more may be shown; what was acknowledged stands.
        """
        self._go_live()
        self._write_kept()
        if self._lines:
            lines, self._lines = self._lines, []
            self._file.when_promised(partial(self._show, b"".join(lines)))
        else:
            self._file.reveal(visible)
        self._book()
        self._flush_logs()

    def when_promised(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that was appended so far is as durable as the level says.

        That may be at once. Calls come in the order of asking, and never after `close`. Errors as
        `reveal`.
        """
        self._write_kept()
        self._file.when_promised(partial(self._call, then))

    def read_back(self, enough: Enough | None = None) -> Past:
        """The run so far, as its journal has it, a fork's past included; or the newest part of it.

        Args:
            enough: Says whether a part will do (`ReadingBack.newest`). None: the whole is needed.

        Raises:
            OSError, JournalError: as `reveal`.
            JournalCorrupt, JournalVersion: the journal is not what was written.
        """
        self._write_kept()
        self._file.flush()
        journal = ReadingBack(self._folder.path, self._storage, self._file.gathered, self._journal)
        return journal.newest(enough, self.shared)

    def close(self) -> None:
        """Write and sync what is left.

        Raises:
            OSError, JournalError: some of it cannot be.
            Diverged: the run has ended and the output file has lines that it did not say.
        """
        self._closing = True
        try:
            try:
                if self._live:
                    self.reveal()
            finally:
                self._file.close()
            self._book()
            self._output.sync()
            if self._output.left and ended([self._last]):
                raise Diverged(
                    f"{self._folder.path}: the output file has {self._output.left} lines more "
                    "than the run said; they were left there"
                )
        finally:
            self._output.close()

    # -- how ------------------------------------------------------------------------------------

    def _go_live(self) -> None:
        """What the run said of its end does not hold any more; it will tell its logs again."""
        if self._live:
            return
        self._live = True
        for path in sorted((self._folder.path / LOGS).glob("*.log")):
            path.unlink()
        (self._folder.path / SUMMARY).unlink(missing_ok=True)

    def _put(self, kind: int, body: bytes) -> None:
        if self._file.full:
            self._file.next_segment()
            self._journal.next_segment()
        self._journal.append(kind, body)

    def _write_kept(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, []
            self._put(journal_format.KEPT, b"".join(kept))

    def _book(self) -> None:
        """Take what is written into the digests."""
        # Not earlier: a run that stops on a full disk is closed with the digest of its journal.
        while self._booked and self._booked[0][0] <= self._file.bytes_written:
            self._digest.add(self._booked.popleft()[1])

    def _show(self, lines: bytes) -> None:
        try:
            self._output.append(lines)
        except JournalFull:
            release(self._storage)
            raise

    def _call(self, then: Callable[[], None]) -> None:
        if not self._closing:
            then()

    def _flush_logs(self) -> None:
        try:
            self._folder.flush_logs()
        except OSError as error:
            release(self._storage)
            logs = self._folder.path / LOGS
            raise failure(logs, "write", error, self._file.bytes_written) from None


def _file(backend: Backend, storage: Storage, durability: str, *where: int) -> JournalFile:
    """As `JournalFile`; nothing is left of the syncer when it cannot be made."""
    syncer = backend.syncer(durability, storage)
    try:
        return JournalFile(storage, syncer, durability, *where)
    except BaseException:
        syncer.close()
        raise


def _mend(storage: Storage, end: End) -> None:
    """Cut the torn tail, and make sure that the disk has what we have read.

    Raises:
        OSError, JournalError: it cannot be done.
    """
    name = segment_name(end.segment)
    data = memoryview(storage.read(name))[: end.offset]
    if end.drop:
        storage.remove(segment_name(end.segment + 1))
    handle = storage.open(name)
    try:
        storage.truncate(handle, end.offset)
        write_over(storage, handle, data)
        storage.sync(handle)
        storage.sync_names()
    except OSError as error:
        raise failure(storage.path / name, "write", error, end.offset) from None
    finally:
        storage.close(handle)
