"""What a schedule is told and may do: routing of items over tags. A schedule holds no time.

The sequencer owns tags, mailboxes and failure; a schedule only says which agent gets an item
next and when an item is finished (rule 13). It also gives an item again, to who gave it up or to
another replica of who has ended, while the group has retries left.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from lockstep.engine.fleet import Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.groups import Groups

Given = tuple[int, bytes]  # Of one ITEM: who emitted it (or nobody), payload.


class Host(Protocol):
    """The sequencer as schedules see it. Every call acts at the tag being processed."""

    def deliver_item(self, agent: int, item: int, payload: bytes, peer: int, turn: int) -> None:
        """Give an item to an agent; ``peer`` emitted it, ``turn`` is round, pass or attempt."""

    def finish_item(self, item: int, outputs: Sequence[tuple[int, bytes]]) -> None:
        """The item is done; ``outputs`` are (agent, payload) in output order."""

    def fail_item(self, item: int, reason: str) -> None:
        """The item is given up."""

    def has_open(self, agent: int, item: int) -> bool:
        """Whether the agent waits for a request, tool or timer of the item."""

    def is_alive(self, agent: int) -> bool:
        """Whether the agent has not ended."""


class Schedule(ABC):
    """One policy. Items are numbered from 1. What a policy does not care about does nothing.

    Attributes:
        takes_input: Whether some agent would be given the input.
    """

    takes_input = True

    def __init__(self, fleet: Fleet, host: Host) -> None:
        self._host = host
        self._groups = Groups(fleet)

    @abstractmethod
    def admit(self, item: int, payload: bytes) -> None:
        """An item enters."""

    def called(self, item: int) -> None:
        """An item that has not entered yet is a call to a model (engine/schedule/calls.py)."""

    @abstractmethod
    def may_emit(self, agent: int, item: int, peer: int, given_up: bool) -> str:
        """Why the agent must not EMIT for an unfinished item; empty: it may.

        Args:
            agent: Who emits.
            item: An unfinished item.
            peer: Index of the agent that it names, or `PEER_NONE`.
            given_up: The EMIT has the flag ERROR.
        """

    @abstractmethod
    def emitted(self, agent: int, item: int, payload: bytes, peer: int) -> None:
        """An EMIT takes effect; `may_emit` allowed it."""

    def gave_up(self, agent: int, item: int, reason: str) -> None:
        """An EMIT with ERROR takes effect: the item is given again, or fails for the reason."""
        if self._groups.may_retry(self._groups.of[agent], item):
            for receiver in self._again(agent, item):
                self._give(receiver, item)
        else:
            self._host.fail_item(item, reason)

    def member_ended(self, agent: int, item: int) -> bool:
        """An agent that holds an unfinished item has ended.

        Returns:
            Whether the item was dealt to another living replica, which costs a retry of the
            group. False: the item cannot go on.
        """
        replica = self._groups.another(agent, self._host.is_alive)
        if replica is None or not self._groups.may_retry(self._groups.of[agent], item):
            return False
        self._groups.move(item, replica)
        self._give(replica, item)
        return True

    def forget(self, item: int) -> None:
        """The item is finished or failed: everything kept about it is dropped."""
        self._groups.forget(item)

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

    @abstractmethod
    def _given(self, agent: int, item: int) -> Sequence[Given]:
        """What the agent is given for an item, the first time and every other."""

    @abstractmethod
    def _turn(self, agent: int, item: int) -> int:
        """Number that tells a repeated ITEM from the first."""

    def _again(self, agent: int, item: int) -> Sequence[int]:
        """Who is given the item when the agent has given it up."""
        return [agent]

    def _hand(self, agent: int, item: int) -> None:
        """Give an item to who is next; a dealt one passes by a replica that has ended."""
        if self._host.is_alive(agent) or not self.member_ended(agent, item):
            self._give(agent, item)

    def _give(self, agent: int, item: int) -> None:
        turn = self._turn(agent, item)
        for peer, payload in self._given(agent, item):
            self._host.deliver_item(agent, item, payload, peer, turn)


def names_nobody(peer: int) -> str:
    """Why an EMIT must not name an agent where nobody has successors; empty: it does not."""
    return "" if peer == PEER_NONE else 'naming a successor is for [schedule] policy = "dag"'
