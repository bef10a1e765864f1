"""Rows and their neighbours: what a conversation is told does not depend on who else is there.

Agents hold conversations at their own pace: they ask, think, and ask again with all that was said.
Together they share few rows: conversations rest and come back, beginnings are copied from row to
row, rows move. Alone each has all rows, nothing is copied and nothing rests. Every answer is the
same, token by token.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine.fleet import Model
from lockstep.engine.record import Kind, encode
from lockstep.engine.wire import (
    TICKET_SLOT,
    FromEngine,
    Slots,
    StepAssembler,
    StepReport,
    ToEngine,
)
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.process import Server
from lockstep.workers.inference.spec import InferenceSpec

TOKENS = 160
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
BEGINNINGS = [
    "The quick brown fox jumps over the lazy dog. ",
    "The quick brown fox jumps over the fence, and then ",
    "Once upon a time there was ",
]
SPEC = InferenceSpec(
    models=(Model("tiny", "", ("cpu",), "", 1, 3, TOKENS, 16, 1, 12, True),),
    agent_names=tuple("abcdefgh"),
    seed=5,
    frozen_date="2000-01-01T00:00:00Z",
    lookahead=1,
    priority_steps=8,
    record_bytes_max=65_536,
)


class Idle(Exception):
    """Everybody has heard all answers."""


@dataclass
class Talk:
    """One agent's conversation: what it adds before each request, and how it asks."""

    agent: int
    first_due: int
    turns: list[dict[str, Any]]  # "add", "think", and fields of INFER.
    answers: list[list[int]] = field(default_factory=list)

    @classmethod
    def drawn(cls, agent: int, chance: random.Random) -> Talk:
        beginning = chance.choice(BEGINNINGS)
        turns = []
        for turn in range(chance.randint(1, 4)):
            words = " ".join(chance.choices(WORDS, k=chance.randint(0 if turn else 2, 6)))
            turns.append(
                {
                    "add": (beginning if turn == 0 else " ") + words,
                    "think": chance.choice([0, 0, 1, 5, 20]),
                    "max_tokens": chance.randint(1, 10),
                    "temperature": chance.choice([0, 0.9]),
                }
            )
        return cls(agent, chance.randint(0, 15), turns)


class Line:
    """Plays the sequencer to a server: each answer makes its agent ask again."""

    def __init__(self, talks: list[Talk]) -> None:
        self._assembler = StepAssembler()
        self._slots: list[tuple[int, ...]] = []
        self._records = b""
        self._said = {talk.agent: "" for talk in talks}
        self._asked: dict[int, Talk] = {}
        self.rows: list[tuple[int, ...]] = []
        for talk in talks:
            self._ask(talk, talk.first_due)

    def _ask(self, talk: Talk, due: int) -> None:
        turn = dict(talk.turns[len(talk.answers)])
        ordinal = len(talk.answers)
        ticket = 1 + talk.agent * 100 + ordinal
        del turn["think"]
        self._said[talk.agent] += turn.pop("add")
        fields = {"prompt": self._said[talk.agent], "conversation": "talk", **turn}
        record = encode(Kind.INFER, json.dumps(fields).encode(), id=ticket, item=1, peer=0)
        self._asked[ticket] = talk
        self._slots.append((ToEngine.TICKET, talk.agent, ticket, due, ordinal))
        self._records += record

    def drain(self) -> tuple[Slots, bytes]:
        slots = [*self._slots, (ToEngine.GRANT, 0, 0, 2**40, 2**40)]
        data, self._slots, self._records = self._records, [], b""
        return np.array(slots, dtype=TICKET_SLOT), data

    def wait(self) -> None:
        raise Idle

    def report(self, slots: Slots, records: bytes) -> None:
        self.rows += slots.tolist()
        for step in self._assembler.feed(slots, records):
            self._answered(step)

    def _answered(self, step: StepReport) -> None:
        for answer in step.answers:
            assert not answer.failed, answer.reason()
            said = json.loads(answer.record[32:].rstrip(b"\0"))
            talk = self._asked.pop(answer.ticket)
            think = talk.turns[len(talk.answers)]["think"]
            talk.answers.append(said["token_ids"])
            self._said[talk.agent] += said["text"]
            if len(talk.answers) < len(talk.turns):
                self._ask(talk, step.step + 2 + think)


Load = Callable[..., LoadedModel]


@pytest.fixture
def load(any_model: Path) -> Iterator[Load]:
    made: list[LoadedModel] = []

    def one(**sizes: Any) -> LoadedModel:
        settings = replace(SPEC.models[0], path=str(any_model), **sizes)
        made.append(LoadedModel(settings, SPEC.frozen_date))
        return made[-1]

    yield one
    for model in made:
        model.decoder.close()


def served(model: LoadedModel, talks: list[Talk], **sizes: Any) -> list[tuple[int, ...]]:
    """The slots of every step in which a model answers all that is asked."""
    line = Line(talks)
    spec = replace(SPEC, models=(replace(SPEC.models[0], **sizes),))
    server = Server(spec, [model], line, None)  # type: ignore[arg-type]
    with pytest.raises(Idle):
        server.serve()
    assert all(len(talk.answers) == len(talk.turns) for talk in talks)
    return line.rows


def talks_of(seed: int) -> list[Talk]:
    chance = random.Random(seed)
    return [Talk.drawn(agent, chance) for agent in range(8)]


ALONE = {"rows_kept": 0, "prefix_copies": False}


@pytest.mark.parametrize("rows_max", [1, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_answers_are_the_same_alone_and_among_others_that_come_and_go(
    load: Load, seed: int, rows_max: int
) -> None:
    together = talks_of(seed)
    rows = served(load(rows_max=rows_max), together, rows_max=rows_max)
    assert not any(row[0] == FromEngine.EVICT for row in rows)
    model = load(**ALONE)
    for talk in together:
        alone = replace(talk, answers=[])
        found = hits(served(model, [alone], **ALONE))
        assert alone.answers == talk.answers, (seed, talk.agent)
        there = hits(rows)
        assert all(there[ticket] >= found[ticket] for ticket in found)


def test_the_crowd_copies_beginnings_and_rows_rest_and_come_back(load: Load) -> None:
    model = load()
    ops: Counter[str] = Counter()
    for seed in range(4):
        for op, _, slot, source, *_ in served(model, talks_of(seed)):
            if op in (FromEngine.COPY, FromEngine.MOVE):
                ops["rests" if slot >= 3 else "comes back" if source >= 3 else "row to row"] += 1
    assert ops["rests"] > 3 and ops["comes back"] > 3 and ops["row to row"] > 3


def hits(rows: list[tuple[int, ...]]) -> dict[int, int]:
    """Prompt tokens by ticket that were in its slot when it got it."""
    return {row[3]: row[4] for row in rows if row[0] == FromEngine.ADMIT}


def test_some_conversations_find_what_was_generated(load: Load) -> None:
    """Or the hits that are compared above would show nothing."""
    found: list[int] = []
    for seed in range(4):
        rows = served(load(), talks_of(seed))
        prompts = {row[3]: row[4] + row[5] for row in rows if row[0] == FromEngine.CHUNK}
        found += [t for t, hit in hits(rows).items() if hit > prompts.get(t - 1, hit)]
    assert len(found) > 3


def test_a_shared_beginning_is_computed_once(load: Load) -> None:
    prompt = {"add": BEGINNINGS[0] + "tell me all", "think": 0, "max_tokens": 4, "temperature": 0}
    talks = [Talk(agent, 0, [dict(prompt)]) for agent in range(8)]
    rows = served(load(rows_max=8), talks, rows_max=8)
    length = len(load().text.encode(prompt["add"]))
    chunks = Counter(row[3] for row in rows if row[0] == FromEngine.CHUNK for _ in range(row[5]))
    assert chunks[1] == length
    assert [chunks[1 + agent * 100] for agent in range(1, 8)] == [2] * 7
    assert len({tuple(talk.answers[0]) for talk in talks}) == 1
