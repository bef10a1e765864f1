"""Dag against a model that remembers what was emitted and works out the rest from nothing."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.engine.record import PEER_NONE

Given = list[tuple[int, bytes]]


@dataclass
class Group:
    """One group as it is drawn."""

    after: list[int]
    size: int = 1
    dealt: bool = False
    join: int = 0
    back: list[int] = field(default_factory=list)
    passes_max: int = 1
    retries: int = 0


class Model:
    """One item. Nothing is counted along the way: every question looks at all EMITs again."""

    def __init__(self, groups: list[Group], item: int) -> None:
        self.groups = groups
        firsts = [sum(g.size for g in groups[:n]) for n in range(len(groups))]
        self.members = [list(range(f, f + g.size)) for f, g in zip(firsts, groups, strict=True)]
        self.of = [n for n, group in enumerate(groups) for _ in range(group.size)]
        self.chosen = [
            [m[(item - 1) % len(m)]] if g.dealt else m
            for g, m in zip(groups, self.members, strict=True)
        ]
        self.emits: dict[int, tuple[bytes, int]] = {}  # Agent -> payload, group or -1.
        self.given: dict[int, Given] = {}
        self.skipped: set[int] = set()
        self.pending: list[tuple[int, int, bytes]] = []  # Group, agent, payload.
        self.notes: dict[int, Given] = {}
        self.passes = [0] * len(groups)
        self.sent_back = [0] * len(self.of)
        self.retried = [0] * len(groups)
        self.log: list[tuple[object, ...]] = []
        self.over: tuple[object, ...] = ()

    def admit(self, payload: bytes) -> None:
        for n, group in enumerate(self.groups):
            if not group.after:
                self.wake(n, [(PEER_NONE, payload)])

    def wake(self, group: int, given: Given) -> None:
        self.given[group] = given
        for agent in self.chosen[group]:
            self.deliver(agent)

    def deliver(self, agent: int) -> None:
        group = self.of[agent]
        turn = self.passes[group] + self.retried[group]
        self.log += [(agent, payload, peer, turn) for peer, payload in self.given[group]]

    def holders(self) -> list[int]:
        held = [a for g, chosen in enumerate(self.chosen) if g in self.given for a in chosen]
        return [a for a in held if a not in self.emits]

    def ways(self, agent: int) -> list[int]:
        """Groups that an agent may name now."""
        group = self.of[agent]
        after = [n for n, g in enumerate(self.groups) if group in g.after]
        return after + self.groups[group].back

    def region(self) -> set[int]:
        found = {group for group, _, _ in self.pending}
        while more := {
            n for n, g in enumerate(self.groups) if n not in found and found & set(g.after)
        }:
            found |= more
        return found

    def emit(self, agent: int, payload: bytes, to: int) -> None:
        group = self.of[agent]
        self.emits[agent] = (payload, to)
        if to in self.groups[group].back:
            self.sent_back[agent] += 1
            if self.sent_back[agent] > self.groups[group].passes_max:
                self.over = ("failed",)
                return
            self.pending.append((to, agent, payload))
        if self.pending and not self.region() & {self.of[a] for a in self.holders()}:
            self.go_back()
        while self.look():
            pass
        ends = [n for n in range(len(self.groups)) if not any(n in g.after for g in self.groups)]
        agents = [a for n in ends if n not in self.skipped for a in self.chosen[n]]
        if not self.pending and all(a in self.emits for a in agents):
            outputs = [(a, self.emits[a][0]) for a in agents]
            self.over = ("finished", *outputs) if outputs else ("failed",)

    def give_up(self, agent: int) -> None:
        group = self.of[agent]
        if self.retried[group] == self.groups[group].retries:
            self.over = ("failed",)
        else:
            self.retried[group] += 1
            self.deliver(agent)

    def look(self) -> bool:
        """Wake or skip one group; False: there is none."""
        for n, group in enumerate(self.groups):
            if n in self.given or n in self.skipped or n in self.region() or not group.after:
                continue
            live = [p for p in sorted(group.after) if p not in self.skipped]
            before = [a for p in live for a in self.chosen[p]]
            sent = [a for a in before if a in self.emits and self.emits[a][1] in (-1, n)]
            missing = [a for a in before if a not in self.emits]
            if len(sent) >= max(group.join, 1) and (group.join or not missing):
                notes = self.notes.pop(n, [])
                self.wake(n, [(a, self.emits[a][0]) for a in sent] + notes)
                return True
            if len(sent) + len(missing) < max(group.join, 1):
                self.skipped.add(n)
                return True
        return False

    def go_back(self) -> None:
        region, pending = self.region(), self.pending
        self.pending = []
        for n in region:
            self.passes[n] += 1
            self.given.pop(n, None)
            for agent in self.members[n]:
                self.emits.pop(agent, None)
        self.skipped -= region
        for to, agent, payload in pending:
            notes = [*self.notes.get(to, []), (agent, payload)]
            self.notes[to] = sorted(notes, key=lambda note: note[0])
        for to in sorted({to for to, _, _ in pending}):
            self.pending = [(other, 0, b"") for other, _, _ in pending if other != to]
            inner = to in self.region()
            self.pending = []
            if not inner:
                self.wake(to, self.notes.pop(to))


@st.composite
def graphs(draw: st.DrawFn) -> list[Group]:
    """Groups whose predecessors have smaller numbers, before they are shuffled in the file."""
    groups: list[Group] = []
    before: list[set[int]] = []
    for n in range(draw(st.integers(1, 7))):
        after = sorted(draw(st.sets(st.integers(0, n - 1), max_size=3))) if n else []
        size = draw(st.sampled_from([1, 1, 2, 3]))
        dealt = draw(st.booleans())
        most = sum(1 if groups[p].dealt else groups[p].size for p in after)
        join = draw(st.integers(0, most))
        before.append(set(after).union(*(before[p] for p in after)))
        back = draw(st.lists(st.sampled_from(sorted(before[n])), max_size=3)) if after else []
        back = sorted(dict.fromkeys(back))
        passes_max = draw(st.integers(1, 3)) if back else 1
        retries = draw(st.integers(0, 1))
        groups.append(Group(after, size, dealt, join, back, passes_max, retries))
    order = draw(st.permutations(range(len(groups))))
    place = {old: new for new, old in enumerate(order)}
    for group in groups:
        group.after = [place[p] for p in group.after]
        group.back = sorted(place[p] for p in group.back)
    return [groups[old] for old in order]


def written(groups: list[Group]) -> str:
    """The agents of a fleet file, as the fixture reads them."""
    lines = []
    for n, g in enumerate(groups):
        keys = [f"after = {[f'g{p}' for p in g.after]}", f"replicas = {g.size}"]
        keys += ["input = 'deal'"] * g.dealt + [f"join = {g.join}"] * bool(g.join)
        keys += [f"back = {[f'g{p}' for p in g.back]}", f"retries = {g.retries}"]
        keys += [f"passes_max = {g.passes_max}"] * bool(g.back)
        lines.append(f"g{n} {'; '.join(keys)}")
    return "\n".join(lines)


def by_agent(log: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Which of two agents is told first is nobody's business; one agent's ITEMs have an order."""
    return sorted(log, key=lambda entry: entry[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(groups=graphs(), data=st.data())
def test_every_item_goes_the_way_that_the_model_says(
    routed: Any, groups: list[Group], data: st.DataObject
) -> None:
    schedule, host = routed("policy = 'dag'", written(groups))
    models = {item: Model(groups, item) for item in (1, 2)}
    for item, model in models.items():
        schedule.admit(item, b"in")
        model.admit(b"in")
        check(schedule, host, model, item)
    number = 0
    while open_items := [item for item, model in models.items() if not model.over]:
        item = data.draw(st.sampled_from(open_items))
        model = models[item]
        agent = data.draw(st.sampled_from(model.holders()))  # An open item always has one.
        number += 1
        payload = b"%d" % number
        if data.draw(st.integers(0, 9)) == 9:
            assert schedule.may_emit(agent, item, PEER_NONE, True) == ""
            schedule.gave_up(agent, item, "tired")
            model.give_up(agent)
        else:
            to = data.draw(st.sampled_from([-1, *model.ways(agent)]))
            peer = PEER_NONE if to < 0 else data.draw(st.sampled_from(model.members[to]))
            assert schedule.may_emit(agent, item, peer, False) == ""
            schedule.emitted(agent, item, payload, peer)
            model.emit(agent, payload, to)
        check(schedule, host, model, item)


def check(schedule: Any, host: Any, model: Model, item: int) -> None:
    """The same ITEMs, the same holders, the same end; and nobody else may emit."""
    log = host.log()
    ends = [entry for entry in log if entry[0] in ("finished", "failed")]
    items = [(agent, payload, peer, turn) for agent, of, payload, peer, turn in
             (entry for entry in log if entry not in ends)]  # fmt: skip
    assert by_agent(items) == by_agent(model.log)
    model.log = []
    if model.over:
        ((kind, of, *rest),) = ends
        assert of == item and (kind, *rest)[: len(model.over)] == model.over
        return
    assert ends == []
    assert sorted(schedule.holders(item)) == sorted(model.holders()) != []
    for agent, group in enumerate(model.of):
        why = schedule.may_emit(agent, item, PEER_NONE, False)
        assert bool(why) == (agent not in model.holders())
        for to in range(len(model.groups)):
            named = schedule.may_emit(agent, item, model.members[to][0], False)
            assert bool(named) == (bool(why) or to not in model.ways(agent)), (group, to, named)
