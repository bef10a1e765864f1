"""The doors of a live run: tools, sources and the control socket, behind one gate.

A run that repeats another has the same doors, and none of them opens: what came in then is in the
record.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lockstep.engine import actions
from lockstep.engine.fleet import Fleet
from lockstep.engine.items import InputItem
from lockstep.engine.outside import ITEMS, Outside
from lockstep.engine.sequencer import Sequencer
from lockstep.workers import spawn
from lockstep.workers.job import Job
from lockstep.workers.loop import Loop
from lockstep.workers.outside.commands import Command
from lockstep.workers.outside.control import Control
from lockstep.workers.outside.feed import Feed
from lockstep.workers.outside.gate import Gate
from lockstep.workers.outside.ids import ItemIds
from lockstep.workers.outside.inlet import Inlet
from lockstep.workers.outside.lines import Answer
from lockstep.workers.outside.sources import Sources
from lockstep.workers.outside.tokens import Tokens, Told
from lockstep.workers.outside.tools import Tools


class Doors:
    """Order of use: `start_tools`, `listen`; then, for each pump, `woken`, `ended` and `later` as
    its actions say, `promised` for what is to be let out once that is durable, `resume`; `close` in
    any state.

    Attributes:
        gate: What came in.
        tokens: Of answers that are told while they grow.
    """

    def __init__(
        self,
        loop: Loop,
        fleet: Fleet,
        items: Sequence[InputItem],
        sequencer: Sequencer,
        live: bool,
        past: Sequence[Outside] = (),
    ) -> None:
        """Doors that are shut.

        Args:
            loop: Of the supervisor.
            fleet: Its tools and sources.
            items: Of the input file.
            sequencer: Where events go.
            live: Whether any door will open.
            past: What came before, of a run that goes on.
        """
        self._loop, self._fleet, self._sequencer, self._live = loop, fleet, sequencer, live
        self.gate = Gate(sequencer, past)
        self._past = past
        self._ids = ItemIds(items)
        for event in past:
            if event.what in ITEMS:
                self._ids.add(event.payload, fleet.record_bytes_max)
        self._later: list[actions.CallTool | actions.StopTool] = []
        self._tools: Tools | None = None
        self._sources: Sources | None = None
        self._control: Control | None = None
        self._inlet: Inlet | None = None
        self.tokens = Tokens()
        self._closed: list[tuple[int, list[bytes]]] = []
        self._closed_from = 1

    @property
    def refused(self) -> int:
        """Lines of standard input that were no items."""
        return self._sources.refused if self._sources is not None else 0

    def start_tools(
        self, commands: Sequence[Command], died: Callable[[str, spawn.Child], None]
    ) -> None:
        """Fork the tools process, while this one is small."""
        if self._live:
            self._tools = Tools(self._loop, self.gate, commands, died)

    def listen(
        self, folder: Path, stdin: int, note: Callable[[str], None], job: Job | None = None
    ) -> None:
        """Open sources and the control socket.

        Args:
            folder: Of the run.
            stdin: Descriptor for a source of that kind; -1: none.
            note: Told of lines that are refused.
            job: Says whether a service holds the run; None: none does.

        Raises:
            OSError: a socket cannot be made.
        """
        if not self._live:
            return
        self._sources = Sources(
            self._loop,
            self.gate,
            self._fleet,
            folder,
            stdin,
            self._ids,
            self._sequencer.world.desk.book,
            note,
            self._past,
            None if job is None or job.inlet < 0 else partial(self._take_in, job),
        )
        self._control = Control(
            self._loop, self.gate, folder, self._ids, self, self._sources.cancel
        )

    def _take_in(self, job: Job, feed: Feed) -> Inlet:
        def command(line: bytes, answer: Answer) -> None:
            assert self._control is not None  # Made before the loop goes round.
            self._control.hear(line, answer)

        def state() -> tuple[int, int]:
            return self._sequencer.step, self._sequencer.rows

        self._closed_from = job.closed_from
        self._inlet = Inlet(self._loop, feed, job.inlet, command, state, self.tokens.follow)
        return self._inlet

    # -- what the sequencer wants ---------------------------------------------------------------

    def woken(self, wake: actions.Wake) -> None:
        """An agent takes its events."""
        if self._sources is not None:
            self._sources.woken(wake.agent, wake.events)

    def ended(self, agent: int) -> None:
        """An agent takes nothing any more."""
        if self._sources is not None:
            self._sources.lost(agent)

    def later(self, action: actions.CallTool | actions.StopTool) -> None:
        """Do it when it is `promised`."""
        if self._live:
            self._later.append(action)

    def closed(self, items: Sequence[tuple[int, list[bytes]]]) -> None:
        """Items have come to their end: the service hears of them when it is `promised`."""
        if self._inlet is not None:
            self._closed += [item for item in items if item[0] >= self._closed_from]
            for number, _ in items:
                self.tokens.closed(number)

    @property
    def waiting(self) -> bool:
        """Whether anything is to be let out that has no promise yet."""
        return bool(self._later or self._closed or self.tokens.waiting) or self.gate.untold

    def promised(self) -> Callable[[], None]:
        """Take what waits; to be called when what was decided is as durable as promised.

        What is taken by one call comes out before what the next one takes.
        """
        later, self._later = self._later, []
        closed, self._closed = self._closed, []
        return partial(self._let_out, self.gate.take(), later, self.tokens.take(), closed)

    def resume(self) -> None:
        """Read on where there is room again."""
        if self._sources is not None:
            self._sources.resume()

    def _let_out(
        self,
        told: int,
        later: list[actions.CallTool | actions.StopTool],
        tokens: list[Told],
        closed: list[tuple[int, list[bytes]]],
    ) -> None:
        self.gate.reveal(told)
        for some in tokens:
            assert self._inlet is not None
            self._inlet.tokens(some)
        for item, lines in closed:
            assert self._inlet is not None
            self._inlet.closed(item, lines)
        for action in later:
            assert self._tools is not None
            if isinstance(action, actions.CallTool):
                self._tools.call(action)
            else:
                self._tools.stop(action)

    def close(self) -> None:
        """The run is over: nothing of it goes on, and whoever waits for an answer gets one."""
        if self._tools is not None:
            self._tools.end()
        self.gate.close()
        if self._sources is not None:
            self._sources.close()
        if self._control is not None:
            self._control.close()

    def end_orphans(self) -> None:
        """The last thing, after every child of the run was reaped (`Tools.end_orphans`)."""
        if self._tools is not None:
            self._tools.end_orphans()

    # -- what the control socket asks -----------------------------------------------------------

    def item_open(self, number: int) -> bool:
        """As `workers.outside.control.State`."""
        book = self._sequencer.world.desk.book
        return number > len(book) or book.open(number)

    def ticket_open(self, number: int) -> bool:
        """As `workers.outside.control.State`."""
        return self._sequencer.world.requests.unanswered_ticket(number) is not None


def stdin_of(fleet: Fleet, descriptor: int) -> int:
    """The standard input that was handed down, or -1: at once closed where nobody reads it."""
    if descriptor < 0:
        return -1
    if any(source.kind == "stdin" for source in fleet.sources):
        os.set_inheritable(descriptor, False)
        return descriptor
    os.close(descriptor)
    return -1
