"""Rings played by a test: the server of the inference process on a real model, and nobody else.

What it reports is kept by step, as the history has it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lockstep.engine.fleet import Model
from lockstep.engine.record import Kind, encode
from lockstep.engine.wire import (
    TICKET_SLOT,
    Slots,
    StepAssembler,
    ToEngine,
)
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.process import Server
from lockstep.workers.inference.spec import InferenceSpec

ROWS, KEPT = 3, 1
SPEC = InferenceSpec(
    models=(Model("tiny", "", ("cpu",), "", 1, ROWS, 96, 16, 1, KEPT, True),),
    agent_names=("ann", "ben", "cat"),
    seed=5,
    frozen_date="2000-01-01T00:00:00Z",
    lookahead=1,
    priority_steps=8,
    record_bytes_max=65_536,
)
EXTRAS: tuple[dict[str, Any], ...] = (
    {},
    {"logprobs": 2, "top_k": 40},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "top_p": 0.9},
    {"stop": ["qu", "th"], "min_tokens": 1, "logprobs": 0},
    {},
)


class Idle(Exception):
    """The server may run no further step."""


class Line:
    """Plays the rings; what comes out is kept as history."""

    def __init__(self) -> None:
        self._assembler = StepAssembler()
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._records = b""
        self.limit = 0
        self.steps: dict[int, bytes] = {}

    def drain(self) -> tuple[Slots, bytes]:
        rows = [*self._rows, (ToEngine.GRANT, 0, 0, self.limit, 2**40)]
        data, self._rows, self._records = self._records, [], b""
        return np.array(rows, dtype=TICKET_SLOT), data

    def give(self, asked: list[tuple[int, int, int, bytes]]) -> None:
        for ticket, agent, due, record in asked:
            self._rows.append((ToEngine.TICKET, agent, ticket, due, ticket))
            self._records += record

    def wait(self) -> None:
        raise Idle

    def report(self, slots: Slots, records: bytes) -> None:
        for step in self._assembler.feed(slots, records):
            self.steps[step.step] = step.body


def serve(model: LoadedModel, limit: int, spec: InferenceSpec = SPEC, **given: Any) -> Line:
    """A server of a model, as far as the steps below ``limit``."""
    line = Line()
    line.limit = limit
    server = Server(spec, [model], line, None)  # type: ignore[arg-type]
    if "restored" in given:
        server.restore(given["restored"], given.get("note", lambda _: None))
    line.give(given.get("asked", []))
    with pytest.raises(Idle):
        server.serve()
    return line


def requests(
    seed: int, extras: Sequence[dict[str, Any]] = EXTRAS
) -> list[tuple[int, int, int, bytes]]:
    """(ticket, agent, due, INFER): some go on with what their conversation said before."""
    rng = random.Random(seed)
    found = []
    said: dict[tuple[int, str], str] = {}
    for ticket in range(1, 25):
        agent, name = rng.randrange(3), rng.choice("ab")
        words = " ".join(rng.choices(["one", "two", "three", "four", "five"], k=rng.randint(1, 9)))
        before = said.get((agent, name), "")
        if not before or len(before) > 60:
            before = "Once upon a time there was a little"
        prompt = said[agent, name] = f"{before} {words}"
        fields = {
            "prompt": prompt,
            "max_tokens": rng.randint(1, 12),
            "temperature": rng.choice([0, 0.9]),
            "conversation": name,
            **extras[ticket % len(extras)],
        }
        record = encode(Kind.INFER, json.dumps(fields).encode(), id=ticket, item=1, peer=0)
        found.append((ticket, agent, ticket * 2 + rng.randint(0, 4), record))
    return found
