"""Calls: items that are calls to a model, beside the items that go by the fleet's policy.

A service that is spoken to over HTTP adds one agent that takes them (workers/outside/calls.c).
An item is one or the other from the moment it comes in, so each policy knows of its own alone.
"""

from collections.abc import Sequence

from lockstep.engine.fleet import Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.base import Given, Host, Schedule, names_nobody


class Calls(Schedule):
    """A call goes to the one agent that takes calls, and is finished by its EMIT.

    Args:
        fleet: Its last agent takes calls.
        host: As of any schedule.
        policy: Of all other items, over all other agents.
    """

    def __init__(self, fleet: Fleet, host: Host, policy: Schedule) -> None:
        super().__init__(fleet, host)
        self._policy = policy
        self._agent = fleet.agents[-1].index
        self._calls: dict[int, bytes | None] = {}  # None: it has not entered yet.
        self.takes_input = policy.takes_input

    def called(self, item: int) -> None:
        self._calls[item] = None

    def admit(self, item: int, payload: bytes) -> None:
        if item not in self._calls:
            self._policy.admit(item, payload)
            return
        self._calls[item] = payload
        self._give(self._agent, item)

    def may_emit(self, agent: int, item: int, peer: int, given_up: bool) -> str:
        if item in self._calls:
            ours = agent == self._agent
            return names_nobody(peer) if ours else "the item is a call to a model"
        if agent == self._agent:
            return "the item is no call to a model"
        return self._policy.may_emit(agent, item, peer, given_up)

    def emitted(self, agent: int, item: int, payload: bytes, peer: int) -> None:
        if item in self._calls:
            self._host.finish_item(item, [(agent, payload)])
        else:
            self._policy.emitted(agent, item, payload, peer)

    def gave_up(self, agent: int, item: int, reason: str) -> None:
        if item in self._calls:
            self._host.fail_item(item, reason)
        else:
            self._policy.gave_up(agent, item, reason)

    def member_ended(self, agent: int, item: int) -> bool:
        return item not in self._calls and self._policy.member_ended(agent, item)

    def forget(self, item: int) -> None:
        if item in self._calls:
            del self._calls[item]
        else:
            self._policy.forget(item)

    def holders(self, item: int) -> list[int]:
        return [self._agent] if item in self._calls else self._policy.holders(item)

    def may_finish(self, agent: int, item: int) -> str:
        if item in self._calls or agent == self._agent:
            return super().may_finish(agent, item)
        return self._policy.may_finish(agent, item)

    def done(self, agent: int, item: int) -> None:
        self._policy.done(agent, item)

    def delivered(self, agent: int, item: int) -> None:
        if item not in self._calls:
            self._policy.delivered(agent, item)

    def after_effects(self, agent: int) -> None:
        if agent != self._agent:
            self._policy.after_effects(agent)

    def _given(self, agent: int, item: int) -> Sequence[Given]:
        return [(PEER_NONE, self._calls[item] or b"")]

    def _turn(self, agent: int, item: int) -> int:
        return 0
