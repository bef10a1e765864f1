"""The tool desk: calls of host commands at the current tag, and their answers.

A command runs outside (rule 8): here it is a number that is open until its answer comes as an
outside event, or until it is cancelled.
"""

from typing import Protocol

from lockstep.engine import actions
from lockstep.engine.history import TagEntry
from lockstep.engine.mailbox import EventClass
from lockstep.engine.outside import Outside
from lockstep.engine.record import FLAG_ERROR, Kind, Record, encode
from lockstep.engine.roster import Roster
from lockstep.engine.toolbook import ToolBook, ToolCall


class Surroundings(Protocol):
    """The world around the desk."""

    roster: Roster
    entry: TagEntry
    actions: list[actions.Action]


class ToolDesk:
    """One writer: the world, at the tag that is being processed.

    Attributes:
        book: Every call and whether it is answered.
    """

    def __init__(self, world: Surroundings) -> None:
        self._world = world
        self.book = ToolBook(len(world.roster))

    def call(self, agent: int, record: Record) -> ToolCall:
        """A TOOL_CALL takes effect."""
        call = self.book.issue(agent, record.id, record.item, record.peer)
        self._world.entry.add(
            encode(Kind.CALLED, id=call.number, item=call.item, peer=agent, flags=call.tool)
        )
        self._world.actions.append(
            actions.CallTool(call.number, agent, call.tool, record.payload)
        )  # fmt: skip
        return call

    def stop(self, call: ToolCall) -> None:
        """Cancelled at this very tag: whatever the command still answers is void."""
        if self.book.answer(call.number) is None:
            return
        self._world.actions.append(actions.StopTool(call.number))
        record = encode(Kind.CANCELLED, id=call.request, item=call.item, peer=call.tool)
        self._deliver(call, record, call.number)

    def stop_item(self, item: int) -> None:
        """Every call for an item is cancelled."""
        for call in self.book.unanswered():
            if call.item == item:
                self.stop(call)

    def end(self, agent: int) -> None:
        """An agent has ended: nobody waits for what it has called."""
        for call in list(self.book.open(agent).values()):
            self.stop(call)

    def answered(self, event: Outside) -> None:
        """The command has answered, or failed; void if the call was cancelled before."""
        call = self.book.answer(event.source)
        if call is not None:
            record = encode(
                Kind.TOOL_RESULT, event.payload, flags=event.flags & FLAG_ERROR,
                id=call.request, item=call.item, peer=call.tool,
            )  # fmt: skip
            self._deliver(call, record, event.number)

    def _deliver(self, call: ToolCall, record: bytes, key: int) -> None:
        roster = self._world.roster
        if roster[call.agent].alive:
            roster.put(
                call.agent, EventClass.OUTSIDE, key, record, Kind.TOOL_RESULT,
                call.item, call.number,
            )  # fmt: skip
        else:
            self.book.deliver(call.number)
