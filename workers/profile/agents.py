"""Agents, profiled: when a turn had its events, and when it gave its records.

What lies between is the guest, and the way into it and out of it. A turn of an agent that has slept
pays for every page that it touches, and more in a virtual machine: so the track itself is what
stands between the channel and the rings, and writes its record in one piece, when the supervisor
has been rung already.
"""

import time
from collections.abc import Callable
from typing import Any

from lockstep.engine import record
from lockstep.workers.agent.channel import RingChannel
from lockstep.workers.links import AgentEnd
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import RECORD, RECORD_BYTES, Kind, Role, Spans, now
from lockstep.workers.tasks import AgentTask

_KIND = 4  # Place of a record's kind: the low byte, which tells all kinds of an agent apart.
_WITHIN = (record.Kind.PROGRESS, record.Kind.ACCIDENT)  # They end no turn.
_TURN = int(Kind.TURN)


class TurnSpans(Spans):
    """The track of an agent; to its channel, its end of the rings."""

    __slots__ = (
        *("_drain", "_ended", "_number", "_push_many", "_receive", "_send", "_since"),
        *("ring", "wait"),
    )

    def channel(self, end: AgentEnd, first: int) -> RingChannel:
        """The agent's channel, whose turns are noted from now on.

        Args:
            end: Of its rings.
            first: Turn that it begins with.
        """
        self._send, self._receive = end.exchange.send, end.exchange.receive
        self._push_many, self._drain = end.push_many, end.drain
        self.ring, self.wait = end.ring, end.wait
        self._since, self._ended, self._number = 0, 0, first
        return RingChannel(self, self, self, self, self)

    # Names that are parameters lie in the frame, and not in the pages of a module.
    def send(
        self, records: bytes, now: Callable[[], int] = now, pack: Any = RECORD.pack_into
    ) -> bool:
        """As `channel.Straight.send`: the common turn's way."""
        ended = now()
        if not self._send(records):
            return False
        at = self._at
        if at == self._end:
            self.add(_TURN, self._since, ended, self._number, now() - ended)
        else:
            pack(self._memory, at, self._since, ended, self._number, now() - ended, 0, 2)
            self._at = at + 40
        self._number += 1
        return True

    def receive(self, now: Callable[[], int] = now) -> bytes:
        """As `channel.Straight.receive`."""
        data = self._receive()
        self._since = now()
        return data

    def push_many(self, records: bytes, start: int) -> int:
        """As `channel.Writer.push_many`: every other turn's way."""
        if not start:
            self._ended = now()
        reached = self._push_many(records, start)
        if reached == len(records) and records[_KIND] not in _WITHIN:
            self._sent(records[_KIND] == record.Kind.READY)
        return reached

    def drain(self) -> bytes:
        """As `channel.Reader.drain`."""
        data = self._drain()
        if data:
            self._since = now()
        return data

    def _sent(self, ready: bool) -> None:
        """A turn is over, or the agent is ready: turn 0 is one that no event begins."""
        sent = now()
        if ready:
            self.add(Kind.START, self.began_ns, sent)
        else:
            self.add(_TURN, self._since, self._ended, self._number, sent - self._ended)
            self._number += 1
        self._since = sent


assert (_TURN, RECORD_BYTES) == (2, 40)  # As `TurnSpans.send` has them.


class ProfiledAgent:
    """The life of an agent's process, with a track.

    Args:
        task: What it does.
        place: Of the tracks.
        bytes_max: Of this one.
        first: Turn that it begins with.
    """

    def __init__(self, task: AgentTask, place: Place, bytes_max: int, first: int) -> None:
        self._task, self._first = task, first
        self._place, self._bytes_max = place, bytes_max

    def __call__(self) -> int:
        spec = self._task.spec
        spans = TurnSpans(self._place, Role.AGENT, spec.index, spec.name, self._bytes_max)
        spans.open()
        self._task.channel = spans.channel(AgentEnd(self._task.pair), self._first)
        code = self._task()
        left = now()
        spans.add(Kind.LEFT, left, left, 0, time.process_time_ns())
        return code
