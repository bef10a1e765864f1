"""Models that are no decoders, as the planner sees them: a request is one run of one step."""

from __future__ import annotations

from lockstep.engine import step_rows
from lockstep.engine.plan import Outcome, Request
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.wire import FromEngine

DONE = Outcome(0, stop=True)


def call(ticket: int, due: int = 0, model: int = 0, priority: int = 0) -> Request:
    return Request(ticket, due, model, (ticket % 3, f"item {ticket}"), (), 1, priority=priority)


def planner(*limits: ModelLimits) -> Planner:
    return Planner(limits or [ModelLimits(2, 8, calls=True)], 8)


def test_calls_are_run_in_ticket_order_so_many_at_once_and_end_in_their_step() -> None:
    one = planner()
    for ticket in (3, 1, 2, 4):
        one.offer(call(ticket, priority=1 if ticket == 1 else 0))
    ran = []
    while (step := one.next_step()) is not None:
        (part,) = one.plan(step).models
        ran.append([chunk.ticket for chunk in part.chunks])
        booked = one.commit({(0, chunk.slot): DONE for chunk in part.chunks})
        assert [end.ticket for end in booked.ended] == ran[-1]
        assert {end.reason for end in booked.ended} == {"stop"}
    assert ran == [[2, 3], [4, 1]]


def test_a_call_that_gives_nothing_fails_alone() -> None:
    one = planner()
    one.offer(call(1))
    one.offer(call(2))
    (part,) = one.plan(0).models
    outcomes = [Outcome(None), DONE]
    booked = one.commit({(0, c.slot): o for c, o in zip(part.chunks, outcomes, strict=True)})
    assert [(end.ticket, end.reason) for end in booked.ended] == [
        (1, "invalid_output"),
        (2, "stop"),
    ]


def test_the_record_of_a_call_has_no_tokens() -> None:
    one = planner()
    one.offer(call(1))
    (part,) = one.plan(0).models
    rows = step_rows.planned(part) + step_rows.drawn(part, {(0, part.chunks[0].slot): DONE})
    assert [row[0] for row in rows] == [FromEngine.ADMIT]


def test_calls_wait_for_their_models_step_beside_a_decoder() -> None:
    one = planner(ModelLimits(2, 8), ModelLimits(2, 8, period=3, calls=True))
    one.offer(Request(1, 0, 0, (0, "a"), (5, 6), 6))
    one.offer(call(2, 1, 1))
    ran = {}
    while (step := one.next_step()) is not None:
        for part in one.plan(step).models:
            for chunk in part.chunks:
                ran[chunk.ticket] = step
            outcomes = {(part.model, c.slot): DONE for c in part.chunks if part.model == 1}
            outcomes |= {(0, r.slot): Outcome(7) for r in (*part.chunks, *part.decodes)
                         if part.model == 0}  # fmt: skip
            one.commit(outcomes)
    assert ran == {1: 0, 2: 3}


def test_a_cancelled_call_never_runs() -> None:
    one = planner(ModelLimits(1, 8, calls=True))
    one.offer(call(1))
    one.offer(call(2))
    one.cancel(2, 1)
    (part,) = one.plan(0).models
    one.commit({(0, part.chunks[0].slot): DONE})
    plan = one.plan(1)
    assert [(end.ticket, end.reason) for end in plan.ended] == [(2, "cancelled")]
    assert plan.models[0].chunks == ()
