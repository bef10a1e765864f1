"""Round-robin: agents go one after another in file order; each item is one conversation."""

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.engine.fleet import Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.base import Given, Host, Schedule, names_nobody


@dataclass(slots=True)
class _Go:
    agent: int
    round: int
    given: Given  # What it was woken with.
    emitted: bytes | None = None  # By the agent, in this go.
    last: tuple[int, bytes] | None = None  # (agent, payload) of the conversation's last EMIT.


class RoundRobin(Schedule):
    """One agent at a time per conversation, many conversations interleaved.

    A go is over at the first effect tag after which the agent has no unanswered request, tool
    call or timer for the item; the next agent is woken at that same tag with what the go emitted
    (nothing, if it emitted nothing). The conversation ends after ``rounds_max`` passes or with
    DONE for the item; its output is its last EMIT.

    Who gives the item up goes on with its go: it is woken with the same ITEM, of the same round.
    """

    def __init__(self, fleet: Fleet, host: Host) -> None:
        super().__init__(fleet, host)
        self._agents = len(fleet.agents)
        self._rounds_max = fleet.schedule.rounds_max
        self._goes: dict[int, _Go] = {}
        self._woken: list[dict[int, None]] = [{} for _ in fleet.agents]  # Items seen by each.

    def admit(self, item: int, payload: bytes) -> None:
        self._goes[item] = _Go(0, 0, (PEER_NONE, payload))
        self._give(0, item)

    def may_emit(self, agent: int, item: int, peer: int, given_up: bool) -> str:
        go = self._goes[item]
        if go.agent != agent:
            return "it is another agent's go"
        return names_nobody(peer) if go.emitted is None else "a second EMIT in one go"

    def may_finish(self, agent: int, item: int) -> str:
        return "" if self._goes[item].agent == agent else "it is another agent's go"

    def emitted(self, agent: int, item: int, payload: bytes, peer: int) -> None:
        go = self._goes[item]
        go.emitted = payload
        go.last = (agent, payload)

    def gave_up(self, agent: int, item: int, reason: str) -> None:
        # Until it is woken with the item once more, an effect of its does not end the go.
        self._woken[agent].pop(item, None)
        super().gave_up(agent, item, reason)

    def done(self, agent: int, item: int) -> None:
        self._end(item)

    def delivered(self, agent: int, item: int) -> None:
        if item in self._goes:
            self._woken[agent][item] = None

    def after_effects(self, agent: int) -> None:
        for item in sorted(self._woken[agent]):
            # A go may have ended at this very tag, by the effect of another agent.
            if item in self._goes and not self._host.has_open(agent, item):
                del self._woken[agent][item]
                self._pass_on(item, self._goes[item])

    def forget(self, item: int) -> None:
        super().forget(item)
        go = self._goes.pop(item, None)
        if go is not None:
            self._woken[go.agent].pop(item, None)

    def holders(self, item: int) -> list[int]:
        return [self._goes[item].agent]

    def _pass_on(self, item: int, go: _Go) -> None:
        go.given = (go.agent, go.emitted or b"")
        go.emitted = None
        go.agent += 1
        if go.agent == self._agents:
            go.agent = 0
            go.round += 1
            if go.round == self._rounds_max:
                self._end(item)
                return
        self._give(go.agent, item)

    def _given(self, agent: int, item: int) -> Sequence[Given]:
        return [self._goes[item].given]

    def _turn(self, agent: int, item: int) -> int:
        return self._goes[item].round

    def _end(self, item: int) -> None:
        last = self._goes[item].last
        if last is None:
            self._host.fail_item(item, "the conversation ended without an EMIT")
        else:
            self._host.finish_item(item, [last])
