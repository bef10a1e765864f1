"""Graph: a fleet's topology as nodes and edges, for people to look at. Pure.

Agents are nodes by group, as the fleet file writes them. An edge that is ``may`` is one that an
item or message takes only if an agent says so.
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from lockstep.engine.fleet import JOIN_ALL, AgentGroup, Fleet, Source
from lockstep.engine.topology import emits, unreached

INPUT, OUTPUT = "input", "output"
# Kinds of edges, and what they mean.
EDGES = {
    "item": "an item goes on",
    "back": "an item is sent back, if the agent says so",
    "round": "the next round begins",
    "answer": "the first EMIT for an item is its output, whoever it is from",
    "event": "an outside event",
    "topic": "subscribed from the start",
    "tool": "may be called",
}
MAY = ("back", "round", "answer")


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        id: Unique: kind and name.
        kind: "input", "source", "agent", "output", "model", "topic" or "tool".
        name: As in the fleet file.
        replicas: Agents of a group; 1 for everything else.
        notes: What the file says about it, in words.
    """

    id: str
    kind: str
    name: str
    replicas: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge, by ids of nodes; ``kind`` is one of `EDGES`."""

    start: str
    end: str
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A topology. Nodes and edges are in file order."""

    name: str
    policy: str
    agents: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def of_kind(self, *kinds: str) -> list[Node]:
        """Nodes of some kinds."""
        return [node for node in self.nodes if node.kind in kinds]

    def as_json(self) -> dict[str, Any]:
        """JSON-able: ``fleet``, ``policy``, ``agents``, ``nodes``, ``edges``."""
        nodes = [asdict(node) for node in self.nodes]
        edges = [
            {"from": e.start, "to": e.end, "kind": e.kind, "may": e.kind in MAY, "label": e.label}
            for e in self.edges
        ]
        return {"fleet": self.name, "policy": self.policy, "agents": self.agents,
                "nodes": nodes, "edges": edges}  # fmt: skip


def graph_of(fleet: Fleet) -> Graph:
    """The topology of a checked fleet."""
    policy = fleet.schedule.policy
    takes_items = policy != "events" or any(group.input for group in fleet.groups)
    nodes = [Node(INPUT, INPUT, INPUT, notes=_input_notes(fleet))] if takes_items else []
    nodes += [_source(source) for source in fleet.sources]
    counts = {group.name: emits(group) for group in fleet.groups}
    alone = unreached(fleet)
    nodes += [_agent(group, policy, counts, group.name in alone) for group in fleet.groups]
    nodes += [Node(OUTPUT, OUTPUT, OUTPUT)] if takes_items else []
    nodes += [Node(f"model:{m.name}", "model", m.name) for m in fleet.models]
    nodes += [Node(f"topic:{name}", "topic", name) for name in fleet.schedule.topics]
    nodes += [Node(f"tool:{t.name}", "tool", t.name) for t in fleet.tools]
    flow = {"dag": _dag, "round-robin": _round_robin, "events": _events}[policy](fleet.routed)
    flow = [*flow, *_calls(fleet)]
    edges = flow if takes_items else []
    return Graph(fleet.name, policy, len(fleet.agents), tuple(nodes), (*edges, *_beside(fleet)))


def _agent_id(name: str) -> str:
    return f"agent:{name}"


def _agent(group: AgentGroup, policy: str, counts: dict[str, int], alone: bool) -> Node:
    notes = ["nothing in the file leads to it"] if alone else []
    if group.replicas > 1 and (group.input or policy == "dag"):
        deal = "one of them, in turn" if group.input == "deal" else "each of them"
        notes.append(f"an item goes to {deal}")
    if group.after:
        notes += _join(group, sum(counts[name] for name in group.after))
    if group.retries:
        notes.append(f"retries an item {_times(group.retries)}")
    return Node(_agent_id(group.name), "agent", group.name, max(group.replicas, 1), tuple(notes))


def _join(group: AgentGroup, most: int) -> list[str]:
    if most == 1:
        return []
    if group.join == JOIN_ALL:
        return [f"waits for all {most}"]
    return [f"waits for {'the first' if group.join == 1 else group.join} of {most}"]


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _input_notes(fleet: Fleet) -> tuple[str, ...]:
    return (f"{fleet.schedule.items_in_flight_max} items at once",)


def _source(source: Source) -> Node:
    notes = {"stdin": "standard input", "socket": f"socket {source.path!r}"}
    every = f"every {source.every_ms} ms" + (f", {_times(source.count)}" if source.count else "")
    return Node(f"source:{source.name}", "source", source.name,
                notes=(notes.get(source.kind, every),))  # fmt: skip


def _dag(fleet: Fleet) -> list[Edge]:
    named = {name: None for group in fleet.groups for name in group.after}
    edges = []
    for group in fleet.groups:
        here = _agent_id(group.name)
        if not group.after:
            edges.append(Edge(INPUT, here, "item"))
        edges += [Edge(_agent_id(name), here, "item") for name in group.after]
        back = f"{_times(group.passes_max)} at most" if group.passes_max > 1 else "once"
        edges += [Edge(here, _agent_id(name), "back", back) for name in group.back]
        if group.name not in named:
            edges.append(Edge(here, OUTPUT, "item"))
    return edges


def _round_robin(fleet: Fleet) -> list[Edge]:
    ids = [_agent_id(group.name) for group in fleet.groups]
    stops = [INPUT, *ids, OUTPUT]
    edges = [Edge(a, b, "item") for a, b in itertools.pairwise(stops)]
    rounds = fleet.schedule.rounds_max
    if rounds > 1:
        edges.append(Edge(ids[-1], ids[0], "round", f"{rounds} rounds at most"))
    return edges


def _events(fleet: Fleet) -> list[Edge]:
    taking = [Edge(INPUT, _agent_id(g.name), "item") for g in fleet.groups if g.input]
    return taking + [Edge(_agent_id(g.name), OUTPUT, "answer") for g in fleet.groups]


def _calls(fleet: Fleet) -> list[Edge]:
    if fleet.caller is None:
        return []
    here = _agent_id(fleet.caller.name)
    return [Edge(INPUT, here, "item", "calls to models"), Edge(here, OUTPUT, "answer")]


def _beside(fleet: Fleet) -> list[Edge]:
    """What reaches agents besides items, and what they may call."""
    edges = []
    for source in fleet.sources:
        here = f"source:{source.name}"
        edges += [Edge(here, _agent_id(name), "event") for name in source.to]
        if not source.to:
            edges.append(Edge(here, INPUT, "event"))
    for group in fleet.groups:
        here = _agent_id(group.name)
        edges += [Edge(f"topic:{name}", here, "topic") for name in group.topics]
        edges += [Edge(here, f"tool:{name}", "tool") for name in group.tools]
    return edges
