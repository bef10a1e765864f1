"""Place: the folder of a run's tracks, known to all of its processes as soon as there is one.

The inference process is forked before the run has a folder. So the path lies in memory that every
child inherits; the supervisor writes it once.
"""

import mmap
import os
import struct
from pathlib import Path

from lockstep.workers.folder import PROFILE

PLACE_BYTES = 8192
_LENGTH = struct.Struct("<I")  # Written last: 0 says that there is no path yet.


class Place:
    """Where the tracks of one run are. One writer: the supervisor."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PLACE_BYTES)  # Shared with the children.

    def make(self, run: Path) -> None:
        """Make the folder in a run folder, and tell everybody. Raises OSError."""
        path = run / PROFILE
        path.mkdir(mode=0o700)
        data = os.fsencode(path)
        self._memory[_LENGTH.size : _LENGTH.size + len(data)] = data
        _LENGTH.pack_into(self._memory, 0, len(data))

    @property
    def path(self) -> Path | None:
        """The folder; None: there is none yet."""
        (length,) = _LENGTH.unpack_from(self._memory)
        if not length:
            return None
        return Path(os.fsdecode(self._memory[_LENGTH.size : _LENGTH.size + length]))
