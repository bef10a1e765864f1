"""Standing: what one agent may do at a tag, looked up when its records are checked."""

from typing import Protocol

from lockstep.engine.fleet import Fleet
from lockstep.engine.itemdesk import ItemDesk
from lockstep.engine.post import Post
from lockstep.engine.requests import RequestBook
from lockstep.engine.roster import Roster
from lockstep.engine.tooldesk import ToolDesk


class Books(Protocol):
    """The world's books."""

    fleet: Fleet
    roster: Roster
    requests: RequestBook
    tools: ToolDesk
    post: Post
    desk: ItemDesk


class AgentStanding:
    """`engine.effects.Standing` of one agent. Made for every turn, so it looks up nothing early."""

    __slots__ = ("_agent", "_books")

    def __init__(self, books: Books, agent: int) -> None:
        self._books = books
        self._agent = agent

    @property
    def open_requests(self) -> int:
        """As `Standing`."""
        books, agent = self._books, self._agent
        return len(books.requests.open(agent)) + len(books.tools.book.open(agent))

    @property
    def open_timers(self) -> int:
        """As `Standing`."""
        return sum(self._books.roster[self._agent].timers.values())

    @property
    def open_calls(self) -> int:
        """As `Standing`."""
        return len(self._books.post.calls.made(self._agent))

    def in_use(self, request: int) -> bool:
        """As `Standing`."""
        books, agent = self._books, self._agent
        return request in books.requests.open(agent) or request in books.tools.book.open(agent)

    def call_in_use(self, number: int) -> bool:
        """As `Standing`."""
        return number in self._books.post.calls.made(self._agent)

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

    def may_cancel_run(self) -> bool:
        """As `Standing`."""
        fleet = self._books.fleet
        return fleet.groups[fleet.agents[self._agent].group].may_cancel_run

    def may_use(self, tool: int) -> bool:
        """As `Standing`."""
        fleet = self._books.fleet
        group = fleet.groups[fleet.agents[self._agent].group]
        return fleet.tools[tool].name in group.tools
