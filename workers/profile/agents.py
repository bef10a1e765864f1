"""Agents, profiled: a channel that notes when a turn had its events and when it gave its records.

What lies between is the guest and the way into it and out again. Three looks at the clock and one
record are all that a turn pays.
"""

import time

from lockstep.engine import record
from lockstep.workers.agent.channel import RingChannel
from lockstep.workers.links import AgentEnd
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import Kind, Role, Spans, now
from lockstep.workers.tasks import AgentTask

_TURN = int(Kind.TURN)
_KIND = 4  # Place of a record's kind: the low byte, which tells all kinds of an agent apart.
_WITHIN = (record.Kind.PROGRESS, record.Kind.ACCIDENT)  # They end no turn.


class TimedEnd:
    """The sending half of an agent's end of its rings; the other half is what it was.

    Attributes:
        receive: As of `channel.Straight`.
        sent: When records were last handed to the ring.
    """

    __slots__ = ("_push_many", "_send", "receive", "sent")

    def __init__(self, end: AgentEnd) -> None:
        self._send, self._push_many = end.exchange.send, end.push_many
        self.receive = end.exchange.receive
        self.sent = 0

    def send(self, records: bytes) -> bool:
        """As `channel.Straight.send`."""
        done = self._send(records)
        self.sent = now()
        return done

    def push_many(self, records: bytes, start: int) -> int:
        """As `channel.Writer.push_many`."""
        reached = self._push_many(records, start)
        self.sent = now()
        return reached


class TimedChannel:
    """A `channel.Channel` over an agent's rings that notes its turns, once it has `begun`."""

    def __init__(self, end: AgentEnd) -> None:
        self._timed = TimedEnd(end)
        self._inner = RingChannel(end, self._timed, end, end, self._timed)
        self._spans: Spans
        self._since = 0  # When the events of the turn were there.
        self._number = -1  # Of the turn; -1: the guest is being made.

    def begin(self, spans: Spans, first: int) -> None:
        """In the agent's process: what it notes goes there.

        Args:
            spans: Its track.
            first: Turn that it begins with.
        """
        self._spans, self._since, self._first = spans, spans.began_ns, first

    def send(self, records: bytes) -> None:
        """As `Channel.send`."""
        ended = now()
        self._inner.send(records)
        if records[_KIND] in _WITHIN:
            return
        sent = now()
        if self._number < 0:
            self._spans.add(Kind.START, self._since, sent)
            self._number = self._first
        else:
            self._turn(ended, sent)
        self._since = sent  # Of turn 0, which no event begins.

    def receive(self) -> bytes:
        """As `Channel.receive`."""
        data = self._inner.receive()
        self._since = now()
        return data

    def exchange(self, records: bytes) -> bytes:
        """As `Channel.exchange`: the common turn's way."""
        ended = now()
        data = self._inner.exchange(records)
        received = now()
        self._turn(ended, self._timed.sent)
        self._since = received
        return data

    def _turn(self, ended: int, sent: int) -> None:
        self._spans.add(_TURN, self._since, ended, self._number, sent - ended)
        self._number += 1


class ProfiledAgent:
    """The life of an agent's process, with a track.

    Args:
        task: Whose channel is a `TimedChannel`.
        place: Of the tracks.
        bytes_max: Of this one.
        first: Turn that it begins with.
    """

    def __init__(self, task: AgentTask, place: Place, bytes_max: int, first: int) -> None:
        self._task, self._first = task, first
        self._place, self._bytes_max = place, bytes_max

    def __call__(self) -> int:
        spec, channel = self._task.spec, self._task.channel
        assert isinstance(channel, TimedChannel)
        spans = Spans(self._place, Role.AGENT, spec.index, spec.name, self._bytes_max)
        spans.open()
        channel.begin(spans, self._first)
        code = self._task()
        left = now()
        spans.add(Kind.LEFT, left, left, 0, time.process_time_ns())
        return code
