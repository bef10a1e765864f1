"""What can go wrong in shared memory.

`lockstep.shm` is the lowest layer, so its errors are plain exceptions; `lockstep.engine.errors`
shows them to the layers above. A message says where, what was found, what was expected (with
numbers) and what happened to the data.
"""


class RingError(Exception):
    """Base of what can happen at a shared-memory ring."""


class RingFull(RingError):
    """No room now; the reader has to drain first. Nothing was written."""


class RingClosed(RingError):
    """This side closed the ring (or the doorbell)."""


class RingCorrupt(RingError):
    """The peer's cursor or a size makes no sense; this ring only is poisoned, for good."""


class PeerDied(RingError):
    """The process on the other side is gone. Raised by who watches it: a ring cannot know."""


class BoardRefused(Exception):
    """A segment is not a board that this version can read. Nothing of it was used."""


class SegmentFull(Exception):
    """No room for a segment in shared memory. Nothing half made is left behind.

    Attributes:
        name: The segment asked for.
        needed_bytes: Bytes asked for.
        free_bytes: Bytes that were left.
        where: "in /dev/shm", or "of memory": whose those were.
    """

    def __init__(
        self, name: str, needed_bytes: int, free_bytes: int, where: str = "in /dev/shm"
    ) -> None:
        super().__init__(name, needed_bytes, free_bytes, where)  # All: it must survive pickling.
        self.name = name
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.where = where

    def __str__(self) -> str:
        return (
            f"shared memory {self.name}: {self.needed_bytes} bytes needed, {self.free_bytes} bytes "
            f"free {self.where}; nothing was created"
        )
