"""Standing: what one agent may do at a tag, looked up when its records are checked."""

from typing import Protocol

from lockstep.engine.fleet import Fleet
from lockstep.engine.itemdesk import ItemDesk
from lockstep.engine.post import Post
from lockstep.engine.requests import RequestBook
from lockstep.engine.roster import Roster
from lockstep.engine.toolbook import ToolBook


class Books(Protocol):
    """The world's books."""

    fleet: Fleet
    roster: Roster
    requests: RequestBook
    tools: ToolBook
    post: Post
    desk: ItemDesk


class AgentStanding:
    """`engine.effects.Standing` of one agent. A snapshot: the open counts are of its making."""

    def __init__(self, books: Books, agent: int) -> None:
        self._books = books
        self._agent = agent
        self._requests = books.requests.open(agent)
        self._tools = books.tools.open(agent)
        self._calls = books.post.calls.made(agent)
        self.open_requests = len(self._requests) + len(self._tools)
        self.open_timers = sum(books.roster[agent].timers.values())
        self.open_calls = len(self._calls)

    def in_use(self, request: int) -> bool:
        """As `Standing`."""
        return request in self._requests or request in self._tools

    def call_in_use(self, number: int) -> bool:
        """As `Standing`."""
        return number in self._calls

    def may_reply(self, caller: int, number: int) -> bool:
        """As `Standing`. A caller that is gone is told apart when the reply takes effect."""
        gone = not self._books.roster[caller].alive
        return gone or self._books.post.calls.waits(caller, number, self._agent)

    def may_emit(self, item: int, peer: int, given_up: bool) -> str:
        """As `Standing`. What was finished meanwhile may still be written to."""
        desk = self._books.desk
        if not desk.book.unfinished(item):
            return ""
        return desk.schedule.may_emit(self._agent, item, peer, given_up)

    def may_finish(self, item: int) -> str:
        """As `Standing`."""
        desk = self._books.desk
        return desk.schedule.may_finish(self._agent, item) if desk.book.unfinished(item) else ""

    def may_use(self, tool: int) -> bool:
        """As `Standing`."""
        fleet = self._books.fleet
        group = fleet.groups[fleet.agents[self._agent].group]
        return fleet.tools[tool].name in group.tools
