"""Dag: agents name their predecessors and are woken for an item when all of them emitted for it."""

from collections.abc import Sequence

from lockstep.engine.fleet import Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.base import Groups, Host, Schedule


class Dag(Schedule):
    """Fan-out, join, replicas dealt or broadcast. The graph was checked by the fleet parser.

    An item is finished when every agent that nobody names in ``after`` has emitted for it; its
    outputs are theirs, in file order.
    """

    def __init__(self, fleet: Fleet, host: Host) -> None:
        self._host = host
        self._groups = Groups(fleet)
        self._group_of = [agent.group for agent in fleet.agents]
        index = {group.name: n for n, group in enumerate(fleet.groups)}
        # File order, not the order of the list: a join's events come in file order (rule 13).
        self._after = [sorted(index[name] for name in group.after) for group in fleet.groups]
        groups = range(len(fleet.groups))
        self._next = [[s for s in groups if n in self._after[s]] for n in groups]
        self._emitted: dict[int, dict[int, bytes]] = {}  # Item -> agent -> payload.

    def admit(self, item: int, payload: bytes) -> None:
        self._emitted[item] = {}
        for group, after in enumerate(self._after):
            if not after:
                for agent in self._groups.receivers(group, item):
                    self._host.deliver_item(agent, item, payload, PEER_NONE, 0)

    def may_emit(self, agent: int, item: int) -> str:
        if agent not in self._groups.receivers(self._group_of[agent], item):
            return "the item was dealt to another replica"
        done = self._emitted[item]
        if agent in done:
            return "a second EMIT for it"
        expected = self._emitters(self._after[self._group_of[agent]], item)
        return "" if all(a in done for a in expected) else "the agent was not given it yet"

    def emitted(self, agent: int, item: int, payload: bytes) -> None:
        done = self._emitted[item]
        done[agent] = payload
        group = self._group_of[agent]
        if not self._next[group]:
            self._finish_when_complete(item)
        for successor in self._next[group]:
            expected = self._emitters(self._after[successor], item)
            if all(a in done for a in expected):
                for receiver in self._groups.receivers(successor, item):
                    for a in expected:
                        self._host.deliver_item(receiver, item, done[a], a, 0)

    def forget(self, item: int) -> None:
        self._emitted.pop(item, None)

    def holders(self, item: int) -> list[int]:
        done = self._emitted[item]
        ready = [
            group
            for group, after in enumerate(self._after)
            if all(a in done for a in self._emitters(after, item))
        ]
        return [a for a in self._emitters(ready, item) if a not in done]

    def _emitters(self, groups: Sequence[int], item: int) -> list[int]:
        return [agent for group in groups for agent in self._groups.receivers(group, item)]

    def _finish_when_complete(self, item: int) -> None:
        sinks = [group for group, successors in enumerate(self._next) if not successors]
        done = self._emitted[item]
        expected = self._emitters(sinks, item)
        if all(a in done for a in expected):
            self._host.finish_item(item, [(a, done[a]) for a in expected])
