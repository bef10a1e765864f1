"""Floods: a turn of nothing but plain messages, routed as columns instead of one by one.

The outcome is that of the slow way (engine/post.py) to the last byte; here only the work is less.
A turn that is no flood, or meets a mailbox without room, goes the slow way.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lockstep.engine.batch import Batch
from lockstep.engine.effects import Limits
from lockstep.engine.errors import ProtocolError
from lockstep.engine.history import TEXT_MESSAGE, TEXT_PART
from lockstep.engine.record import HEADER_BYTES, Kind

BYTES_MIN = 2048  # Below, numpy costs more than it saves.


class Share(NamedTuple):
    """What one receiver gets of a flood: MESSAGE records, one behind the other."""

    receiver: int
    count: int  # type: ignore[assignment]
    records: bytes


class Flood:
    """The messages of one turn. `of` says whether a turn is one."""

    def __init__(self, sender: int, batch: Batch) -> None:
        self.batch = batch
        self._sender = sender
        self._receivers, counts = np.unique(batch.heads["peer"], return_counts=True)
        self.counts = list(zip(self._receivers.tolist(), counts.tolist(), strict=True))

    @classmethod
    def of(cls, sender: int, records: bytes, limits: Limits) -> "Flood | None":
        """The flood that a turn's records are, or None."""
        if len(records) < BYTES_MIN:
            return None
        try:
            batch = Batch(records)
        except ProtocolError:
            return None  # The slow way says what is wrong.
        heads = batch.heads
        plain = (
            (heads["kind"] == Kind.SEND).all()
            and not heads["flags"].any()
            and heads["peer"].max() < limits.agents
            and heads["item"].max() <= limits.items
        )
        return cls(sender, batch) if plain else None

    def shares(self) -> Iterator[Share]:
        """Who gets what, receivers by index, each one's messages in the order written."""
        batch = self.batch
        order = np.argsort(batch.heads["peer"], kind="stable")
        sorted_records = Batch(batch.rewrite(kind=int(Kind.MESSAGE), peer=self._sender)).gather(
            order
        )
        ends = np.cumsum(batch.steps[order])
        first = start = 0
        for receiver, count in self.counts:
            first += count
            stop = int(ends[first - 1])
            yield Share(receiver, count, sorted_records[start:stop])
            start = stop

    def text(self) -> bytes:
        """What the text digest takes of it (engine/history.py), message by message."""
        batch = self.batch
        sizes = batch.heads["size"]
        length = int(sizes[0]) - HEADER_BYTES
        if not batch.stride or (sizes != sizes[0]).any():
            data, peers, starts = batch.data, batch.heads["peer"].tolist(), batch.starts.tolist()
            parts = []
            for peer, at, size in zip(peers, starts, sizes.tolist(), strict=True):
                payload = data[at + HEADER_BYTES : at + size]
                parts.append(TEXT_PART.pack(TEXT_MESSAGE, self._sender, peer, len(payload)))
                parts.append(payload)
            return b"".join(parts)
        rows = np.zeros((len(batch), TEXT_PART.size + length), np.uint8)
        rows[:, : TEXT_PART.size] = np.frombuffer(
            TEXT_PART.pack(TEXT_MESSAGE, self._sender, 0, length), np.uint8
        )
        # The receiver is the third field: u64 at byte 8 (TEXT_PART).
        rows[:, 8:12] = batch.heads["peer"].astype("<u4").view(np.uint8).reshape(-1, 4)
        table = np.frombuffer(batch.data, np.uint8).reshape(len(batch), batch.stride)
        rows[:, TEXT_PART.size :] = table[:, HEADER_BYTES : HEADER_BYTES + length]
        return rows.tobytes()
