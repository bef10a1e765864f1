"""Sources: lines of standard input, lines sent to a socket, wall-clock timers.

What they bring goes through the gate. A line of a source without ``to`` is an item and has to be
one by the rules of the input file; one that is not is refused: a socket's client is told, of
standard input it is noted and counted, and the run does not end as if all had gone well. Of
nobody more is read than `WAITING_MAX` events that nobody has taken yet.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet, Source
from lockstep.engine.outside import ITEMS, Outside, What
from lockstep.engine.record import HEADER_BYTES, Kind, decode
from lockstep.workers import folder as folders
from lockstep.workers.loop import Loop
from lockstep.workers.outside.feed import Admission, Feed
from lockstep.workers.outside.gate import Gate, Told
from lockstep.workers.outside.ids import ItemIds
from lockstep.workers.outside.inlet import SERVICE, Inlet
from lockstep.workers.outside.lines import Answer, LineServer, accepted
from lockstep.workers.outside.stdin import StdinSource


class SocketSource:
    """Lines of whoever connects. It ends when a person closes it (`lockstep cancel --source`)."""

    refused = 0  # Whoever sent a bad line was told.

    def __init__(self, loop: Loop, feed: Feed, folder: Path) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be made.
        """
        self._feed = feed
        self._server = LineServer(
            loop, folder, feed.source.path, feed.line_bytes_max, self._hear, feed.may_read
        )

    def resume(self) -> None:
        """There may be room again."""
        if not self._feed.closed and self._feed.may_read():
            self._server.resume()

    def close(self) -> None:
        """Hear nobody any more; who waits for an answer gets it."""
        self._server.finish()

    def end(self) -> None:
        """The run is over."""
        self._server.close()

    def _hear(self, line: bytes, answer: Answer) -> None:
        line = line if self._feed.source.to else line.strip()
        if self._feed.closed:
            answer.give({"error": f"source {self._feed.source.name} is closed"})
            return
        if not line and not self._feed.source.to:
            answer.give({"error": "an empty line, expected a JSON object"})
            return
        try:
            self._feed.bring(line, partial(accepted, answer))
        except ValueError as error:
            answer.give({"error": str(error)})


class TimerSource:
    """An event every so many milliseconds of wall time. What is missed is not made up for."""

    refused = 0

    def __init__(self, loop: Loop, feed: Feed) -> None:
        self._loop, self._feed = loop, feed
        # Of a run that goes on, some may have come before.
        self._left = feed.source.count - feed.brought if feed.source.count else -1
        self._timer = loop.after(feed.source.every_ms / 1000, self._tick)

    def resume(self) -> None:
        """It looks by itself."""

    def close(self) -> None:
        """Tick no more."""
        self._timer.cancel()

    def end(self) -> None:
        """The run is over."""
        self.close()

    def _tick(self) -> None:
        if self._left and self._feed.may_read():
            self._left -= 1
            self._feed.bring(b"")
        if self._left == 0:
            self._feed.close()
            return
        # By the time at which it was due, so that it does not drift; never one in the past.
        period_s = self._feed.source.every_ms / 1000
        late_s = time.monotonic() - self._timer.at_s
        self._timer = self._loop.after(period_s - late_s % period_s, self._tick)


class ClosedSource:
    """It had ended before the run went on."""

    refused = 0

    def resume(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """It is."""

    def end(self) -> None:
        """Nothing to end."""


AnySource = StdinSource | SocketSource | TimerSource | ClosedSource | Inlet


class Sources:
    """Every source of a run.

    Attributes:
        refused: Lines of standard input that were no items.
    """

    def __init__(
        self,
        loop: Loop,
        gate: Gate,
        fleet: Fleet,
        folder: Path,
        stdin: int,
        ids: ItemIds,
        admission: Admission,
        note: Callable[[str], None],
        past: Sequence[Outside] = (),
        inlet: Callable[[Feed], Inlet] | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            loop: Of the supervisor.
            gate: Where events go.
            fleet: Its sources.
            folder: Of the run, for sockets.
            stdin: The standard input that the run was given, owned from now on; -1: none.
            ids: Of every item so far.
            admission: How many have entered.
            note: Told of lines that are refused.
            past: What came before, of a run that goes on.
            inlet: Makes what a service hands in items by; None: nobody holds the run.

        Raises:
            OSError: a socket cannot be made.
        """
        self._fleet, self._gate = fleet, gate
        line_bytes_max = fleet.record_bytes_max - HEADER_BYTES
        self._feeds = []
        for n, source in enumerate(fleet.sources):
            brought = sum(e.source == n and e.what in (*ITEMS, What.EVENT) for e in past)
            closed = any(e.source == n and e.what == What.CLOSED for e in past)
            agents = _agents(fleet, source)
            self._feeds.append(
                Feed(n, source, agents, line_bytes_max, gate, ids, admission, brought, closed)
            )
        self._sources: list[AnySource] = []
        self._takers = frozenset(agent for feed in self._feeds for agent in feed.agents)
        for feed in self._feeds:
            if inlet is not None and feed.source.name == SERVICE:
                self._sources.append(inlet(feed))
                continue
            if feed.closed:
                self._sources.append(ClosedSource())
                continue
            match feed.source.kind:
                case "stdin":
                    made: AnySource = StdinSource(loop, feed, stdin, note)
                case "socket":
                    made = SocketSource(loop, feed, folder)
                case _:
                    made = TimerSource(loop, feed)
            self._sources.append(made)

    @property
    def refused(self) -> int:
        """Lines of standard input that were no items."""
        return sum(source.refused for source in self._sources)

    def woken(self, agent: int, events: bytes) -> None:
        """An agent was woken: events that it took make room."""
        if agent not in self._takers:
            return
        for record in decode(events):
            if record.kind == Kind.EVENT:
                self._feeds[record.peer].took(agent, 1)

    def lost(self, agent: int) -> None:
        """An agent has ended."""
        for feed in self._feeds:
            feed.lost(agent)

    def resume(self) -> None:
        """After each pump: go on with those that waited for room."""
        for source in self._sources:
            source.resume()

    def cancel(self, name: str, told: Told) -> None:
        """A person closes a source.

        Raises:
            ValueError: there is none of that name, or it is closed already.
        """
        names = [source.name for source in self._fleet.sources]
        if name not in names:
            known = f"known: {', '.join(names)}" if names else "the fleet has none"
            raise ValueError(f"no source {name!r}; {known}")
        index = names.index(name)
        if self._feeds[index].closed:
            raise ValueError(f"source {name} is closed already")
        self._feeds[index].close(told)
        self._sources[index].close()

    def close(self) -> None:
        """The run is over. After `Gate.close`, so that everybody has an answer."""
        for source in self._sources:
            source.end()


def check_sources(fleet: Fleet, where: str) -> None:
    """Refuse sources that would get into each other's way.

    Raises:
        UsageError: two read standard input, or two sockets have one name or that of a file.
    """
    stdin = [s.name for s in fleet.sources if s.kind == "stdin"]
    if len(stdin) > 1:
        raise UsageError(
            f"{where}: [sources.{stdin[0]}] and [sources.{stdin[1]}] both read standard input"
        )
    taken = dict.fromkeys(folders.NAMES, "a file of the run folder")
    for source in fleet.sources:
        if source.kind != "socket":
            continue
        if source.path in taken or source.path in (".", "..") or len(source.path.encode()) > 80:
            why = taken.get(source.path, "no usable name")
            raise UsageError(f"{where}: [sources.{source.name}] path is {source.path!r}: {why}")
        taken[source.path] = f"the path of [sources.{source.name}]"


def _agents(fleet: Fleet, source: Source) -> list[int]:
    return [a.index for a in fleet.agents if fleet.groups[a.group].name in source.to]
