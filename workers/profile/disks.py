"""The ledger's disk, profiled: writes of the journal, and syncs in the process that does them."""

import os
import socket
from functools import partial
from pathlib import Path

from lockstep.workers import sync
from lockstep.workers.folder import JOURNALS
from lockstep.workers.ledger import Backend
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import Kind, Role, Spans, now
from lockstep.workers.storage import Bytes, Disk, Storage
from lockstep.workers.sync import InlineSyncer, Syncer, SyncProcess

SYNC_BYTES_MAX = 16 << 20
_JOURNAL = int(Kind.JOURNAL)  # A member is looked up slowly, and packed slowly.


class TimedDisk(Disk):
    """A folder whose writes are noted."""

    def __init__(self, path: Path, spans: Spans) -> None:
        super().__init__(path)
        self._add = spans.add

    def write(self, handle: int, data: Bytes, offset: int) -> int:
        """As `Storage`."""
        begun = now()
        written = os.pwrite(handle, data, offset)
        self._add(_JOURNAL, begun, now(), written)
        return written

    def sync(self, handle: int) -> None:
        """As `Storage`: where no process does it."""
        begun = now()
        super().sync(handle)
        self._add(Kind.SYNC, begun, now())


def timed_backend(place: Place, spans: Spans) -> Backend:
    """What the ledger of a profiled run stands on; making it says where the tracks are.

    Args:
        place: Of the tracks; not known yet.
        spans: Of the supervisor.
    """

    def storage(path: Path) -> Storage:
        if path.name != JOURNALS:
            return Disk(path)
        place.make(path.parent)  # The first file of the run: from now on it has a folder.
        spans.open()
        return TimedDisk(path, spans)

    def syncer(level: str, storage: Storage) -> Syncer:
        if level == "memory":
            return InlineSyncer(storage)
        return SyncProcess(storage, partial(_serve, place))

    return Backend(storage, syncer)


def _serve(place: Place, line: socket.socket, folder: int) -> int:
    """The sync process."""
    spans = Spans(place, Role.SYNC, 0, "sync", SYNC_BYTES_MAX)
    spans.open()

    def timed(descriptor: int, data_only: bool) -> int:
        begun = now()
        code = sync.sync_one(descriptor, data_only)
        spans.add(Kind.SYNC, begun, now(), 0, 0, not data_only)
        return code

    return sync.serve(line, folder, timed)
