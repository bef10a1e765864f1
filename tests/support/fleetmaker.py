"""Random fleets and scripted agents: the logical half of the simulator, all from one seed."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from lockstep.engine.effects import Turn
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.items import InputItem
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_ERROR,
    FLAG_REPLY,
    FLAG_TOPIC,
    PEER_ALL,
    PEER_NONE,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    encode,
)

PROMPT = struct.Struct("<IIIII")  # prompt tokens, out max, priority, timeout steps, salt


def make_fleet(seed: int) -> tuple[Fleet, list[InputItem]]:
    """A random fleet and its input; one that the topology check refuses is drawn again."""
    for attempt in range(100):
        rng = random.Random(f"fleet {seed} {attempt}")
        text = "\n".join(_lines(seed, rng))
        items = [InputItem(n, b"%d" % n) for n in range(rng.choice([0, 1, 7, 20]))]
        try:
            return parse(text.encode(), f"fleet {seed}"), items
        except UsageError:
            continue
    raise AssertionError(f"no legal fleet for seed {seed}")


def _lines(seed: int, rng: random.Random) -> list[str]:
    policy = rng.choice(["events", "round-robin", "dag", "dag"])
    topics = rng.choice([[], [], ["news"], ["news", "alarm"]])
    tools = rng.choice([0, 0, 0, 1])
    lines = [
        "[fleet]",
        f"seed = {seed}",
        f"turns_max = {rng.choice([40, 2_000, 2_000, 2_000])}",
        f"steps_max = {rng.choice([60, 1_000_000, 1_000_000, 1_000_000])}",
        f"messages_max = {rng.choice([300, 5_000, 5_000])}",
        "[schedule]",
        f'policy = "{policy}"',
        f'order = "{rng.choice(["strict"] * 5 + ["arrival"])}"',
        f"lookahead = {rng.choice([0, 1, 1, 1, 2, 5])}",
        "fuel_per_step = 1000",
        f"items_in_flight_max = {rng.choice([1, 2, 5, 64])}",
        f"items_reordered_max = {rng.choice([1, 3, 100])}",
        f"rounds_max = {rng.choice([1, 2, 3])}",
        f"credit = {rng.choice([1, 4, 50])}",
        f"topics = {_texts(topics)}",
        f'mailbox_cycle = "{rng.choice(["accept", "accept", "accept", "stop"])}"',
    ]
    if rng.random() < 0.2:
        lines.append(f"item_steps_max = {rng.choice([3, 20, 100])}")
    models = rng.choice([1, 1, 2])
    reuse = random.Random(f"reuse {seed}")
    for index in range(models):
        lines += [
            f"[models.m{index}]",
            'path = "none"',
            f"rows_max = {rng.choice([1, 2, 4, 16])}",
            f"prefill_tokens_per_step = {rng.choice([3, 7, 64])}",
            f"period = {rng.choice([1, 1, 2, 3])}",
            f"rows_kept = {reuse.choice([0, 1, 2, 8])}",
            f"prefix_copies = {reuse.choice(['true', 'true', 'false'])}",
        ]
    for index in range(tools):
        lines += [f"[tools.t{index}]", 'command = ["none"]']
    agents, names = _agents(rng, policy, topics, bool(tools))
    return lines + agents + _sources(rng, names)


def _agents(
    rng: random.Random, policy: str, topics: list[str], tools: bool
) -> tuple[list[str], list[str]]:
    """Lines and names."""
    lines: list[str] = []
    names: list[str] = []
    ancestors: dict[str, list[str]] = {}
    for index in range(rng.randint(1, 6)):
        name = f"a{index}"
        ancestors[name] = []
        lines += [f"[agents.{name}]", 'module = "none"', f"delay = {rng.choice([1, 1, 3])}"]
        if rng.random() < 0.3:
            lines.append(f"replicas = {rng.randint(1, 4)}")
        if rng.random() < 0.3:
            lines.append(f"mailbox_max = {rng.choice([1, 1, 2, 5])}")
            lines.append(f'mailbox_full = "{rng.choice(["wait", "wait", "fail"])}"')
        if rng.random() < 0.3:
            lines.append(f"retries = {rng.choice([1, 2])}")
        if topics and rng.random() < 0.6:
            lines.append(f"topics = {_texts(rng.sample(topics, rng.randint(1, len(topics))))}")
        if tools:
            lines.append('tools = ["t0"]')
        if policy == "dag" and names and rng.random() < 0.7:
            after = rng.sample(names, rng.randint(1, min(2, len(names))))
            lines.append(f"after = {_texts(after)}")
            for other in after:
                ancestors[name] += [other, *ancestors[other]]
            if rng.random() < 0.3:
                lines.append(f"join = {rng.choice(['1', '2', chr(34) + 'any' + chr(34)])}")
            if rng.random() < 0.3:
                lines.append(f"back = {_texts([rng.choice(ancestors[name])])}")
                lines.append(f"passes_max = {rng.choice([1, 2])}")
            if rng.random() < 0.3:
                lines.append('input = "deal"')
        elif policy == "events" and (not names or rng.random() < 0.4):
            lines.append(f'input = "{rng.choice(["broadcast", "deal"])}"')
        names.append(name)
    return lines, names


def _sources(rng: random.Random, names: list[str]) -> list[str]:
    lines: list[str] = []
    for index in range(rng.choice([0, 0, 0, 1, 2])):
        kind = rng.choice(["stdin", "timer", "timer"]) if not index else "timer"
        lines += [f"[sources.s{index}]", f'kind = "{kind}"']
        if kind == "timer":
            lines += ["every_ms = 1", f"count = {rng.choice([1, 5])}" if rng.random() < 0.7 else ""]
        if kind == "timer" or rng.random() < 0.5:
            lines.append(f"to = {_texts([rng.choice(names)])}")
    return lines


def _texts(names: list[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


@dataclass
class ScriptedAgent:
    """A pure function of its events, standing in for a guest: no physical time in it."""

    fleet: Fleet
    index: int
    seed: int
    turn: int = 0
    requests: int = 0
    calls: int = 0
    item: int = 0  # Largest it has seen.
    waits: dict[int, int] = field(default_factory=dict)  # Item -> answers it waits for.
    owner: dict[int, int] = field(default_factory=dict)  # Request -> item.
    asked: list[tuple[int, int]] = field(default_factory=list)  # (caller, number) to reply to.

    def __post_init__(self) -> None:
        agent = self.fleet.agents[self.index]
        self.name = agent.name
        self.group = self.fleet.groups[agent.group]
        groups = self.fleet.groups
        named = [n for n, g in enumerate(groups) if self.group.name in g.after]
        named += [n for n, g in enumerate(groups) if g.name in self.group.back]
        self.successors = [a.index for a in self.fleet.agents if a.group in named]

    def run(self, events: list[Record]) -> Turn:
        """The agent's next turn."""
        rng = random.Random(f"{self.seed} {self.name} {self.turn}")
        number, self.turn = self.turn, self.turn + 1
        out: list[bytes] = []
        for event in events:
            self._on_event(event, rng, out)
        fuel = rng.choice([10, 100, 500, 999, 1000, 2500, rng.randint(0, 30_000)])
        data = b"".join(out)
        luck = rng.random()
        if luck < 0.01:
            return Turn(number, fuel, Outcome.TRAPPED, "unreachable", data)
        if luck < 0.015:
            return Turn(number, fuel, Outcome.RETURNED, "", data)
        if luck < 0.02:
            data += encode(Kind.SUBSCRIBE)  # Without a topic: a protocol failure.
        return Turn(number, fuel, Outcome.BLOCKED, "", data)

    def _on_event(self, event: Record, rng: random.Random, out: list[bytes]) -> None:
        kind = event.kind
        if kind == Kind.ITEM:
            self.item = max(self.item, event.item)
            if event.item not in self.waits:
                self._work(event.item, rng, out)
        elif kind == Kind.CANCELLED and event.item and not event.id:
            self.waits.pop(event.item, None)
        elif kind in (Kind.RESULT, Kind.CANCELLED, Kind.TOOL_RESULT):
            self._answered(event, rng, out)
        elif kind == Kind.MESSAGE:
            self._on_message(event, rng, out)
        elif kind in (Kind.TIMER, Kind.EVENT) and rng.random() < 0.3:
            self._infer(0, rng, out)
        self._chatter(rng, out)

    def _on_message(self, event: Record, rng: random.Random, out: list[bytes]) -> None:
        if event.flags & FLAG_CALL:
            self.asked.append((event.peer, event.id))
        if event.payload and event.payload[0] > 0 and not event.flags & FLAG_REPLY:
            hops = bytes([event.payload[0] - 1])
            self._send(hops, rng, out, event.item)
            if rng.random() < 0.3:
                self._infer(0, rng, out)

    def _chatter(self, rng: random.Random, out: list[bytes]) -> None:
        if rng.random() < 0.15:
            for _ in range(rng.choice([1, 1, 2, 6])):
                self._send(bytes([rng.randrange(4)]), rng, out, 0)
        while self.asked and rng.random() < 0.7:
            caller, number = self.asked.pop(0)
            out.append(encode(Kind.SEND, b"\0", flags=FLAG_REPLY, id=number, peer=caller))
        if rng.random() < 0.1:
            steps = struct.pack("<Q", rng.choice([1, 2, 9, 40]))
            out.append(encode(Kind.SET_TIMER, steps, id=self.turn))
        if rng.random() < 0.1:
            out.append(encode(Kind.LOG, b"log line", id=1))
        if self.fleet.schedule.topics and rng.random() < 0.1:
            topic = rng.randrange(len(self.fleet.schedule.topics))
            flags = FLAG_TOPIC | topic << TOPIC_SHIFT
            out.append(encode(Kind.SUBSCRIBE, flags=flags, id=rng.randrange(2)))
        if self.item and rng.random() < 0.02:
            out.append(encode(Kind.CANCEL, item=rng.randint(1, self.item)))

    def _send(self, payload: bytes, rng: random.Random, out: list[bytes], item: int) -> None:
        topics = len(self.fleet.schedule.topics)
        luck = rng.random()
        if luck < 0.1 and topics:
            flags = FLAG_TOPIC | rng.randrange(topics) << TOPIC_SHIFT
            out.append(encode(Kind.SEND, payload[:1] and b"\0", flags=flags))
        elif luck < 0.15:
            out.append(encode(Kind.SEND, b"\0", peer=PEER_ALL))
        elif luck < 0.35:
            self.calls += 1
            peer = rng.randrange(len(self.fleet.agents))
            out.append(encode(Kind.SEND, payload, flags=FLAG_CALL, id=self.calls, peer=peer))
        else:
            peer = rng.randrange(len(self.fleet.agents))
            out.append(encode(Kind.SEND, payload, item=item, peer=peer))

    def _work(self, item: int, rng: random.Random, out: list[bytes]) -> None:
        count = rng.choice([0, 1, 1, 2, 3])
        self.waits[item] = count
        for _ in range(count):
            if self.group.tools and rng.random() < 0.4:
                self._tool(item, rng, out)
            else:
                self._infer(item, rng, out)
        if count == 0:
            self._emit(item, rng, out)
        elif rng.random() < 0.1:
            out.append(encode(Kind.CANCEL, id=self.requests))

    def _answered(self, event: Record, rng: random.Random, out: list[bytes]) -> None:
        item = self.owner.pop(event.id)
        if item in self.waits:
            self.waits[item] -= 1
            if self.waits[item] == 0:
                self._emit(item, rng, out, event.payload)

    def _tool(self, item: int, rng: random.Random, out: list[bytes]) -> None:
        self.requests += 1
        self.owner[self.requests] = item
        out.append(encode(Kind.TOOL_CALL, b"in", id=self.requests, item=item, peer=0))

    def _infer(self, item: int, rng: random.Random, out: list[bytes]) -> None:
        self.requests += 1
        self.owner[self.requests] = item
        payload = PROMPT.pack(
            rng.choice([1, 2, 5, 30]),
            rng.choice([1, 2, 8, 20]),
            rng.choice([0, 0, 0, 1, 7]),
            rng.choice([0, 0, 0, 3, 10]),
            rng.randrange(3),
        )
        peer = rng.randrange(len(self.fleet.models))
        out.append(encode(Kind.INFER, payload, id=self.requests, item=item, peer=peer))

    def _emit(
        self, item: int, rng: random.Random, out: list[bytes], payload: bytes = b"{}"
    ) -> None:
        del self.waits[item]
        luck = rng.random()
        if luck < 0.05:
            out.append(encode(Kind.EMIT, b"tired", item=item, flags=FLAG_ERROR))
        elif luck < 0.97:  # Else it stalls, or in round-robin passes on nothing.
            named = self.successors and rng.random() < 0.3
            peer = rng.choice(self.successors) if named else PEER_NONE
            out.append(encode(Kind.EMIT, payload, item=item, peer=peer))
        if self.fleet.schedule.policy == "round-robin" and rng.random() < 0.05:
            out.append(encode(Kind.DONE, item=item))
