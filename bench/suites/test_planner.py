"""The planner alone: steps of a busy model, all rows decoding, and one prompt after another."""

from typing import Any

import pytest

from lockstep.engine.plan import Outcome, Place, Request
from lockstep.engine.planner import ModelLimits, Planner

STEPS = 100
NEVER = frozenset({1})  # The token that ends an answer.


def request(ticket: int, prompt: int, out: int) -> Request:
    text = tuple(range(2, 2 + prompt))
    return Request(ticket, 0, 0, (ticket, ""), text, tokens_out_max=out, stop=NEVER)


def planned(rows: int, requests: int, prompt: int, out: int) -> Planner:
    one = Planner([ModelLimits(rows, 256)], 8)
    for ticket in range(1, requests + 1):
        one.offer(request(ticket, prompt, out))
    return one


def steps(one: Planner) -> int:
    """Plan and book so many steps; how many tokens were said."""
    said = 0
    for _ in range(STEPS):
        plan = one.plan(one.last_step + 1)
        spoken: dict[Place, Outcome] = {}
        for model in plan.models:
            slots = [chunk.slot for chunk in model.chunks if chunk.last]
            slots += [row.slot for row in model.decodes]
            spoken |= {(model.model, slot): Outcome(9) for slot in slots}
        one.commit(spoken)
        said += len(spoken)
    return said


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_steps_in_which_every_row_decodes(benchmark: Any, rows: int) -> None:
    def setup() -> tuple[tuple[Planner], dict[str, Any]]:
        return (planned(rows, rows, 4, 10 * STEPS),), {}

    assert benchmark.pedantic(steps, setup=setup, rounds=30) > rows * STEPS // 2


@pytest.mark.parametrize("rows", [16, 64])
def test_steps_in_which_requests_come_and_go(benchmark: Any, rows: int) -> None:
    def setup() -> tuple[tuple[Planner], dict[str, Any]]:
        return (planned(rows, rows * STEPS // 4, 16, 8),), {}

    assert benchmark.pedantic(steps, setup=setup, rounds=30) > STEPS
