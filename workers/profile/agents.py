"""Agents, profiled: when a turn had its events, and when it gave its records.

What lies between is the guest, and the way into it and out of it. A turn of an agent that has slept
pays for every page that it touches, and more in a virtual machine: so the track itself is the
agent's channel, calls nothing more than that would, and writes its record in one piece, when the
supervisor has been rung already.
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
    """The track of an agent, and its channel: what `RingChannel` is, with looks at the clock."""

    __slots__ = ("_inner", "_number", "_receive", "_send", "_since")

    def attach(self, end: AgentEnd, first: int) -> None:
        """Be the channel from now on.

        Args:
            end: Of the agent's rings.
            first: Turn that it begins with.
        """
        self._inner = RingChannel(end, end, end, end)
        self._send, self._receive = end.exchange.send, end.exchange.receive
        self._since, self._number = 0, first

    # Names that are parameters lie in the frame, and not in the pages of a module.
    def exchange(
        self, records: bytes, now: Callable[[], int] = now, pack: Any = RECORD.pack_into
    ) -> bytes:
        """As `Channel.exchange`: the common turn's way."""
        ended = now()
        if not self._send(records):
            self.send(records)
            return self.receive()
        took = now() - ended
        at, number = self._at, self._number
        if at == self._end:
            self.add(_TURN, self._since, ended, number, took)
        else:
            pack(self._memory, at, self._since, ended, number, took, 0, 2)
            self._at = at + 40
        self._number = number + 1
        self._inner.made_room = False
        data = self._receive()
        if not data:
            return self.receive()
        self._inner.made_room = True
        self._since = now()
        return data

    def send(self, records: bytes) -> None:
        """As `Channel.send`: every other turn's way, and that of what ends none."""
        ended = now()
        self._inner.send(records)
        kind = records[_KIND]
        if kind in _WITHIN:
            return
        sent = now()
        if kind == record.Kind.READY:  # Turn 0 is one that no event begins.
            self.add(Kind.START, self.began_ns, sent)
        else:
            self.add(_TURN, self._since, ended, self._number, sent - ended)
            self._number += 1
        self._since = sent

    def receive(self) -> bytes:
        """As `Channel.receive`."""
        data = self._inner.receive()
        self._since = now()
        return data


assert (_TURN, RECORD_BYTES) == (2, 40)  # As `TurnSpans.exchange` has them.


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
        spans.attach(AgentEnd(self._task.pair), self._first)
        self._task.channel = spans
        code = self._task()
        left = now()
        spans.add(Kind.LEFT, left, left, 0, time.process_time_ns())
        return code
