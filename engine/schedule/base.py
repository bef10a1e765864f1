"""What a schedule is told and may do: routing of items over tags. A schedule holds no time.

The sequencer owns tags, mailboxes and failure; a schedule only says which agent gets an item
next and when an item is finished (rule 13).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from lockstep.engine.fleet import Fleet


class Host(Protocol):
    """The sequencer as schedules see it. Every call acts at the tag being processed."""

    def deliver_item(self, agent: int, item: int, payload: bytes, peer: int, turn: int) -> None:
        """Give an item to an agent; ``peer`` emitted it, ``turn`` is the round."""

    def finish_item(self, item: int, outputs: Sequence[tuple[int, bytes]]) -> None:
        """The item is done; ``outputs`` are (agent, payload) in output order."""

    def fail_item(self, item: int, reason: str) -> None:
        """The item is given up."""

    def has_open(self, agent: int, item: int) -> bool:
        """Whether the agent waits for a request or timer of the item."""


class Schedule(ABC):
    """One policy. Items are numbered from 1. What a policy does not care about does nothing.

    Attributes:
        takes_input: Whether some agent would be given the input.
    """

    takes_input = True

    @abstractmethod
    def admit(self, item: int, payload: bytes) -> None:
        """An item enters."""

    @abstractmethod
    def may_emit(self, agent: int, item: int) -> str:
        """Why the agent must not EMIT for an unfinished item; empty: it may."""

    @abstractmethod
    def emitted(self, agent: int, item: int, payload: bytes) -> None:
        """An EMIT takes effect."""

    @abstractmethod
    def forget(self, item: int) -> None:
        """The item is finished or failed."""

    @abstractmethod
    def holders(self, item: int) -> list[int]:
        """Agents that an unfinished item waits for: it fails with any of them."""

    def may_finish(self, agent: int, item: int) -> str:
        """Why the agent must not say DONE for an unfinished item; empty: it may."""
        return "DONE for one item is for round-robin"

    def done(self, agent: int, item: int) -> None:
        """A DONE for an item takes effect; `may_finish` allowed it."""

    def delivered(self, agent: int, item: int) -> None:
        """The agent was woken with the item."""

    def after_effects(self, agent: int) -> None:
        """All of the agent's effects of this tag are applied."""


class Groups:
    """Which agents are in which group of the fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.members: list[list[int]] = [[] for _ in fleet.groups]
        for agent in fleet.agents:
            self.members[agent.group].append(agent.index)
        self._dealt = [group.input == "deal" for group in fleet.groups]

    def receivers(self, group: int, item: int) -> list[int]:
        """The agents of a group that get an item: all, or the one it is dealt to."""
        members = self.members[group]
        return [members[(item - 1) % len(members)]] if self._dealt[group] else members
