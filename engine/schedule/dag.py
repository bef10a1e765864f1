"""Dag: agents name their predecessors and are woken for an item when enough of them emitted.

One item walks the graph of groups. Every group is, for the item, one of

  waiting   its predecessors have not emitted enough yet, but still may;
  woken     its receivers were given what was emitted for it, and hold the item until they emit;
  skipped   it cannot get enough any more: those who could have sent the item to it sent it
            elsewhere, or were skipped themselves. Whoever waits for it waits no longer.

With ``join`` n a group is woken by the n-th EMIT and gets those n; with ``"all"`` it is woken when
nobody is left to wait for, with what was sent to it (of at least one). What comes later to a group
that was woken is legal and wakes nobody: a race has losers.

Loops: an EMIT that names an agent of a group in ``back`` sends the item back. It goes back when
nobody holds it any more in that group or behind it (at once, as a rule); what such a straggler
still emits goes no further. Then all of these groups are waiting again, and the one that was named
is woken with what was sent back. So each agent emits once per item and pass, whatever else was
under way. An item that an agent sends back more than ``passes_max`` times fails. If several send it
back in one pass, what they sent comes together, in file order; where
one named group lies behind another, what was sent to it joins what wakes it next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lockstep.engine.fleet import JOIN_ALL, Fleet
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule.base import Given, Host, Schedule
from lockstep.engine.schedule.edges import Edges

_EVERYBODY = -1  # An EMIT that names nobody goes to every successor.


class _Emit(NamedTuple):
    payload: bytes
    to: int  # A group, or `_EVERYBODY`.

    def reaches(self, group: int) -> bool:
        return self.to in (_EVERYBODY, group)


@dataclass(slots=True)
class _Walk:
    """One item on its way. Lists and masks are by group."""

    missing: list[int]  # Agents before it that have neither emitted nor been skipped.
    sent: list[int]  # EMITs that went to it.
    ends: int  # Agents without successors that have neither emitted nor been skipped.
    emits: dict[int, _Emit] = field(default_factory=dict)  # By agent, of this pass.
    given: dict[int, list[Given]] = field(default_factory=dict)  # The groups that were woken.
    skipped: dict[int, None] = field(default_factory=dict)
    passes: dict[int, int] = field(default_factory=dict)  # Times the item came back through it.
    sent_back: dict[int, int] = field(default_factory=dict)  # By agent, times.
    # What was sent back in this pass, by the group it goes to; not empty: it waits for stragglers.
    returns: dict[int, list[Given]] = field(default_factory=dict)
    notes: dict[int, list[Given]] = field(default_factory=dict)  # Sent back, to join what wakes it.
    region: int = 0  # Mask of the groups that `returns` makes waiting again.

    def settled(self, group: int) -> bool:
        """Whether nothing that is emitted now can wake or skip a group."""
        return group in self.given or group in self.skipped or bool(self.region >> group & 1)


class Dag(Schedule):
    """Fan-out, join, conditional edges, loops; replicas dealt or broadcast.

    The graph was checked by the fleet parser. An item is finished when every agent that nobody
    names in ``after`` has emitted for it or was skipped; its outputs are theirs, in file order. If
    all of those were skipped it fails.

    A repeated ITEM is told by its number: how often the item came back through the group, plus how
    often it was given to the group again.
    """

    def __init__(self, fleet: Fleet, host: Host) -> None:
        super().__init__(fleet, host)
        self._names = [group.name for group in fleet.groups]
        self._agent_names = [agent.name for agent in fleet.agents]
        self._joins = [group.join for group in fleet.groups]
        self._passes_max = [group.passes_max for group in fleet.groups]
        self._edges = Edges(fleet.groups)
        self._first = [n for n, after in enumerate(self._edges.after) if not after]
        self._last = [n for n, following in enumerate(self._edges.next) if not following]
        self._missing = [
            sum(self._groups.count(p) for p in predecessors) for predecessors in self._edges.after
        ]
        # Masks: the groups that sending an item back to a group makes waiting again.
        self._reach = {
            to: sum(1 << reached for reached in self._edges.reach(to))
            for to in dict.fromkeys(to for back in self._edges.back for to in back)
        }
        self._walks: dict[int, _Walk] = {}  # By item.

    def admit(self, item: int, payload: bytes) -> None:
        ends = sum(self._groups.count(group) for group in self._last)
        walk = _Walk(self._missing.copy(), [0] * len(self._missing), ends)
        self._walks[item] = walk
        for group in self._first:
            self._wake(item, walk, group, [(PEER_NONE, payload)])

    def may_emit(self, agent: int, item: int, peer: int, given_up: bool) -> str:
        walk, group = self._walks[item], self._groups.of[agent]
        if agent not in self._groups.receivers(group, item):
            return "the item was dealt to another replica"
        if agent in walk.emits:
            return "a second EMIT for it"
        if group not in walk.given:
            return "the agent was not given it yet"
        if peer == PEER_NONE:
            return ""
        if given_up:
            return "an agent that gives it up sends it to nobody"
        return self._may_send(group, peer)

    def emitted(self, agent: int, item: int, payload: bytes, peer: int) -> None:
        walk, group = self._walks[item], self._groups.of[agent]
        to = _EVERYBODY if peer == PEER_NONE else self._groups.of[peer]
        emit = walk.emits[agent] = _Emit(payload, to)
        if to in self._edges.back[group]:
            times = walk.sent_back[agent] = walk.sent_back.get(agent, 0) + 1
            if times > self._passes_max[group]:
                self._host.fail_item(item, self._too_often(agent, to))
                return
            walk.returns.setdefault(to, []).append((agent, payload))
            walk.region |= self._reach[to]
        else:
            self._pass_on(item, walk, group, emit)
        if walk.returns and item in self._walks:
            self._return_when_idle(item, walk)
        self._finish_when_complete(item, walk)

    def forget(self, item: int) -> None:
        super().forget(item)
        self._walks.pop(item, None)

    def holders(self, item: int) -> list[int]:
        walk = self._walks[item]
        given = [a for g in sorted(walk.given) for a in self._groups.receivers(g, item)]
        return [agent for agent in given if agent not in walk.emits]

    def _given(self, agent: int, item: int) -> Sequence[Given]:
        return self._walks[item].given[self._groups.of[agent]]

    def _turn(self, agent: int, item: int) -> int:
        group = self._groups.of[agent]
        return self._walks[item].passes.get(group, 0) + self._groups.retries(group, item)

    def _may_send(self, group: int, peer: int) -> str:
        to = self._groups.of[peer]
        if to in self._edges.back[group] or to in self._edges.next[group]:
            return ""
        ways = [self._names[g] for g in (*self._edges.next[group], *self._edges.back[group])]
        return (
            f"{self._names[to]} does not come after {self._names[group]}, and is not in its back; "
            f"it can go to {', '.join(ways) or 'nobody'}"
        )

    def _too_often(self, agent: int, to: int) -> str:
        name, most = self._agent_names[agent], self._passes_max[self._groups.of[agent]]
        return f"agent {name} sent it back to {self._names[to]} more than passes_max = {most} times"

    # -- forward ------------------------------------------------------------------------------

    def _pass_on(self, item: int, walk: _Walk, group: int, emit: _Emit) -> None:
        successors = self._edges.next[group]
        if not successors:
            walk.ends -= 1
        for successor in successors:
            walk.missing[successor] -= 1
            walk.sent[successor] += emit.reaches(successor)
        self._look_at(item, walk, successors)

    def _look_at(self, item: int, walk: _Walk, groups: Sequence[int]) -> None:
        """Wake those groups that have enough, skip those that cannot get it, and so on."""
        queue = list(groups)
        for group in queue:
            if walk.settled(group):
                continue
            if self._has_enough(walk, group):
                self._wake(item, walk, group, self._joined(item, walk, group))
            elif not self._may_get_enough(walk, group):
                queue += self._skip(walk, group)

    def _has_enough(self, walk: _Walk, group: int) -> bool:
        if self._joins[group] == JOIN_ALL:
            return not walk.missing[group] and walk.sent[group] > 0
        return walk.sent[group] >= self._joins[group]

    def _may_get_enough(self, walk: _Walk, group: int) -> bool:
        needed = max(self._joins[group], 1)
        return walk.sent[group] + walk.missing[group] >= needed

    def _joined(self, item: int, walk: _Walk, group: int) -> list[Given]:
        emits = walk.emits
        senders = [
            a
            for predecessor in self._edges.after[group]
            for a in self._groups.receivers(predecessor, item)
            if a in emits and emits[a].reaches(group)
        ]
        return [(a, emits[a].payload) for a in senders] + walk.notes.pop(group, [])

    def _skip(self, walk: _Walk, group: int) -> list[int]:
        """Nobody of the group will emit; who waited for it is returned, to be looked at."""
        walk.skipped[group] = None
        agents = self._groups.count(group)
        if not self._edges.next[group]:
            walk.ends -= agents
        for successor in self._edges.next[group]:
            walk.missing[successor] -= agents
        return self._edges.next[group]

    def _wake(self, item: int, walk: _Walk, group: int, given: list[Given]) -> None:
        walk.given[group] = given
        for receiver in self._groups.receivers(group, item):
            if item in self._walks:  # It is not, once a receiver had ended.
                self._hand(receiver, item)

    def _finish_when_complete(self, item: int, walk: _Walk) -> None:
        if walk.ends or walk.returns or item not in self._walks:
            return
        ends = [a for g in self._last for a in self._groups.receivers(g, item)]
        outputs = [(a, walk.emits[a].payload) for a in ends if a in walk.emits]
        if outputs:
            self._host.finish_item(item, outputs)
        else:
            names = ", ".join(self._names[group] for group in self._last)
            self._host.fail_item(
                item, f"no agent was left to give its output: nobody sent it to {names}"
            )

    # -- back ---------------------------------------------------------------------------------

    def _return_when_idle(self, item: int, walk: _Walk) -> None:
        if any(walk.region >> self._groups.of[agent] & 1 for agent in self.holders(item)):
            return
        returns, walk.returns = walk.returns, {}
        region = [g for g in range(len(self._names)) if walk.region >> g & 1]
        for group in region:
            self._clear(walk, group)
        for group in region:
            self._count_again(item, walk, group)
        self._count_ends(item, walk)
        walk.region = 0
        for group in sorted(returns):
            notes = walk.notes.get(group, []) + returns[group]
            walk.notes[group] = sorted(notes, key=lambda note: note[0])
        for group in sorted(returns):
            if not any(self._reach[other] >> group & 1 for other in returns if other != group):
                self._wake(item, walk, group, walk.notes.pop(group))
        # What was emitted outside may be enough for some of them once more.
        self._look_at(item, walk, region)

    def _clear(self, walk: _Walk, group: int) -> None:
        walk.passes[group] = walk.passes.get(group, 0) + 1
        walk.given.pop(group, None)
        walk.skipped.pop(group, None)
        for agent in self._groups.members[group]:
            walk.emits.pop(agent, None)

    def _count_again(self, item: int, walk: _Walk, group: int) -> None:
        walk.missing[group] = self._missing[group]
        walk.sent[group] = 0
        for predecessor in self._edges.after[group]:
            if predecessor in walk.skipped:
                walk.missing[group] -= self._groups.count(predecessor)
                continue
            for agent in self._groups.receivers(predecessor, item):
                if agent in walk.emits:
                    walk.missing[group] -= 1
                    walk.sent[group] += walk.emits[agent].reaches(group)

    def _count_ends(self, item: int, walk: _Walk) -> None:
        walk.ends = sum(
            agent not in walk.emits
            for group in self._last
            if group not in walk.skipped
            for agent in self._groups.receivers(group, item)
        )
