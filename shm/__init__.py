"""Bytes in shared memory: rings, slots, doorbells, the arena they lie in and the board.

The lowest layer: it knows records by size, and neither tickets nor models. Everything here is
one writer and one reader (the board: one writer, many readers), without locks; a peer that dies
or lies harms its own ring only.
"""

from lockstep.shm.arena import Arena, Words, page_aligned
from lockstep.shm.blocking import Batch, Inlet, Outlet, WatchedBell
from lockstep.shm.board import Board, BoardSlot, board_bytes
from lockstep.shm.claim import Claim
from lockstep.shm.cursor import Cursor, Memory, fence
from lockstep.shm.doorbell import (
    Doorbell,
    EventDoorbell,
    PipeDoorbell,
    SharedDoorbell,
    TrustedDoorbell,
)
from lockstep.shm.errors import (
    BoardRefused,
    PeerDied,
    RingClosed,
    RingCorrupt,
    RingError,
    RingFull,
    SegmentFull,
)
from lockstep.shm.exchange import Exchange
from lockstep.shm.identity import Identity, alive, current, next_name, segment_name, sweep
from lockstep.shm.identity import of as identity_of
from lockstep.shm.observer import (
    AgentStatus,
    BoardReader,
    EngineStatus,
    Snapshot,
    SupervisorStatus,
)
from lockstep.shm.platform import Platform, platform_of
from lockstep.shm.ring import (
    RingReader,
    RingWriter,
    Taken,
    capacity_for,
    ring_bytes,
)
from lockstep.shm.ring import create as create_ring
from lockstep.shm.segment import Loan, Segment, attach, create, create_unlinked
from lockstep.shm.side import RingStatistics
from lockstep.shm.slots import SlotArray, SlotReader, SlotWriter, slots_bytes
from lockstep.shm.slots import create as create_slots
from lockstep.shm.views import RingViews

__all__ = [
    "AgentStatus",
    "Arena",
    "Batch",
    "Board",
    "BoardReader",
    "BoardRefused",
    "BoardSlot",
    "Claim",
    "Cursor",
    "Doorbell",
    "EngineStatus",
    "EventDoorbell",
    "Exchange",
    "Identity",
    "Inlet",
    "Loan",
    "Memory",
    "Outlet",
    "PeerDied",
    "PipeDoorbell",
    "Platform",
    "RingClosed",
    "RingCorrupt",
    "RingError",
    "RingFull",
    "RingReader",
    "RingStatistics",
    "RingViews",
    "RingWriter",
    "Segment",
    "SegmentFull",
    "SharedDoorbell",
    "SlotArray",
    "SlotReader",
    "SlotWriter",
    "Snapshot",
    "SupervisorStatus",
    "Taken",
    "TrustedDoorbell",
    "WatchedBell",
    "Words",
    "alive",
    "attach",
    "board_bytes",
    "capacity_for",
    "create",
    "create_ring",
    "create_slots",
    "create_unlinked",
    "current",
    "fence",
    "identity_of",
    "next_name",
    "page_aligned",
    "platform_of",
    "ring_bytes",
    "segment_name",
    "slots_bytes",
    "sweep",
]
