"""Syncs: done by a small process of their own, so that no disk stalls the sequencer.

The process is handed the descriptor of the segment that is written (over a socket pair), so that
it opens nothing by name and both see the same open file, whose errors the kernel reports once. It
is asked, syncs, answers; what is asked while it syncs waits in the socket. It ends with its
parent.

A sync that failed is never asked for again, by nobody: the kernel may have dropped the pages and
say "good" the next time. So a process that died with a request open stops the run, too: it may
have taken the error with it. One that died idle owes nothing, and another takes its place.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from lockstep.engine.errors import JournalError
from lockstep.workers import spawn
from lockstep.workers.deaths import how
from lockstep.workers.loop import Loop
from lockstep.workers.storage import Storage, failure

ANSWER_S_MAX = 60.0  # While the run is closed. A person who does not want to wait asks twice.
REQUEST = struct.Struct("<IxxxxQ")  # Ask, position.
ANSWER = struct.Struct("<IIQ")  # Ask, errno or 0, position.


class Ask(IntEnum):
    """What the process is asked for."""

    TAKE = 1  # The descriptor that comes with it is the segment from now on. No answer.
    SYNC = 2  # Make the segment durable, up to a position at least.
    NAMES = 3  # Make the names in the journal's folder durable.


Answer = tuple[Ask, int]  # What was asked, and the position it was asked with.
Body = Callable[[socket.socket, int], int]  # As `serve`.
Sync = Callable[[int, bool], int]  # As `sync_one`.


class Syncer(Protocol):
    """Whoever syncs the journal. Answers come in the order of the requests."""

    def take(self, handle: int) -> None:
        """The file to sync from now on; it may be closed here once later requests are answered."""

    def ask(self, what: Ask, position: int) -> None:
        """SYNC or NAMES."""

    def answers(self, wait: bool) -> list[Answer]:
        """What was answered since.

        Args:
            wait: For all that is open.

        Raises:
            JournalError: a sync failed, or whoever did it died in it.
        """

    def attach(self, loop: Loop, handler: Callable[[], None]) -> None:
        """Call ``handler`` whenever there are `answers`."""

    def close(self) -> None:
        """It is needed no more."""


class InlineSyncer:
    """Syncs at once, here: for runs that promise nothing, and for tests."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._handle = -1
        self._answers: list[Answer] = []

    def take(self, handle: int) -> None:
        """As `Syncer`."""
        self._handle = handle

    def ask(self, what: Ask, position: int) -> None:
        """As `Syncer`."""
        try:
            if what is Ask.SYNC:
                self._storage.sync(self._handle)
            else:
                self._storage.sync_names()
        except OSError as error:
            raise failure(self._storage.path, "sync", error, position) from None
        self._answers.append((what, position))

    def answers(self, wait: bool) -> list[Answer]:
        """As `Syncer`."""
        answers, self._answers = self._answers, []
        return answers

    def attach(self, loop: Loop, handler: Callable[[], None]) -> None:
        """As `Syncer`: there is nothing to wait for."""

    def close(self) -> None:
        """As `Syncer`."""


class SyncProcess:
    """Syncs in a process of its own."""

    def __init__(self, storage: Storage, body: Body | None = None) -> None:
        """Start it.

        Args:
            storage: The journal's folder.
            body: What the process does with its end of the socket and the descriptor of the
                folder; None: `serve`.
        """
        self._storage, self._body = storage, body or serve
        self._handle = -1
        self._open: list[Answer] = []  # Asked for and not answered.
        self._child: spawn.Child | None = None
        self._loop: Loop | None = None
        self._handler: Callable[[], None] | None = None
        self._start()

    def take(self, handle: int) -> None:
        """As `Syncer`."""
        self._handle = handle
        self._send(Ask.TAKE, 0)

    def ask(self, what: Ask, position: int) -> None:
        """As `Syncer`."""
        self._send(what, position)
        self._open.append((what, position))

    def answers(self, wait: bool) -> list[Answer]:
        """As `Syncer`."""
        found: list[Answer] = []
        while self._child is not None and (self._open or not wait):
            if wait and not self._answered_in(ANSWER_S_MAX):
                raise self._silent()
            try:
                data = self._socket.recv(ANSWER.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self._died()
                break
            what, code, position = ANSWER.unpack(data)
            self._open.pop(0)
            if code:
                raise self._failure(OSError(code, os.strerror(code)), position)
            found.append((Ask(what), position))
        return found

    def _answered_in(self, seconds: float) -> bool:
        # A poll: `select.select` refuses numbers of descriptors from 1,024 on.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def attach(self, loop: Loop, handler: Callable[[], None]) -> None:
        """As `Syncer`."""
        self._loop, self._handler = loop, handler
        if self._child is not None:
            loop.watch(self._socket.fileno(), handler)

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """As `Syncer`."""
        if self._child is not None:
            child = self._leave()
            child.kill()  # Whatever state it is in: it owes nothing, or nobody waits for it.
            child.reap()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        folder = os.open(self._storage.path, flags)
        try:
            self._child = spawn.fork(
                "the sync process",
                lambda: self._body(theirs, folder),
                [theirs.fileno(), folder],
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
            os.close(folder)
        if self._loop is not None and self._handler is not None:
            self._loop.watch(self._socket.fileno(), self._handler)

    def _send(self, what: Ask, position: int) -> None:
        data = REQUEST.pack(what, position)
        if self._child is None:
            self._start()
            if what is not Ask.TAKE:
                self._send(Ask.TAKE, 0)
        try:
            if what is Ask.TAKE:
                socket.send_fds(self._socket, [data], [self._handle])
            else:
                self._socket.send(data)
        except (BrokenPipeError, ConnectionResetError):
            self._died()
            self._send(what, position)

    def _died(self) -> None:
        """It is gone: another is started when there is something to ask.

        Raises:
            JournalError: something was open.
        """
        child = self._leave()
        text = f"the sync process (process {child.pid}) {how(child.reap())}"
        if self._open:
            raise JournalError(
                f"{self._storage.path}: {text} while it synced; whether that failed cannot be "
                "found out any more, so the run stops"
            )

    def _silent(self) -> JournalError:
        """The disk hangs: the run is closed without its promise."""
        self._leave().kill()  # It may be beyond the reach of any signal: it is not waited for.
        return JournalError(
            f"{self._storage.path}: the disk has not answered for {ANSWER_S_MAX:g} s; what was "
            "acknowledged stands"
        )

    def _leave(self) -> spawn.Child:
        assert self._child is not None
        child, self._child = self._child, None
        if self._loop is not None:
            self._loop.forget(self._socket.fileno())
        self._socket.close()
        return child

    def _failure(self, error: OSError, position: int) -> JournalError:
        return failure(self._storage.path, "sync", error, position)


def serve(line: socket.socket, folder: int, sync: Sync | None = None) -> int:
    """The process: until its parent is gone, or a sync failed.

    Args:
        line: To the parent.
        folder: Descriptor of the journal's folder.
        sync: In place of `sync_one`.
    """
    try:
        _serve(line, folder, sync or sync_one)
    except (BrokenPipeError, ConnectionResetError):
        pass  # It left without hearing us out.
    return 0


def _serve(line: socket.socket, folder: int, sync: Sync) -> None:
    segment = -1
    while True:
        data, handed, _, _ = socket.recv_fds(line, REQUEST.size, 1)
        if not data:
            return
        what, position = REQUEST.unpack(data)
        if what == Ask.TAKE:
            if segment >= 0:
                os.close(segment)
            (segment,) = handed
            continue
        code = sync(segment if what == Ask.SYNC else folder, what == Ask.SYNC)
        line.send(ANSWER.pack(what, code, position))
        if code:
            return  # Nothing may be asked for after this.


def sync_one(descriptor: int, data_only: bool) -> int:
    """Sync a file (its data) or a folder; errno of what went wrong, or 0."""
    try:
        os.fdatasync(descriptor) if data_only else os.fsync(descriptor)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
