"""Rule 1 piece by piece: queue, slots, prefix hits, prefill budget, decode, ends."""

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import LockstepBug
from lockstep.engine.model_queue import _chunk_size
from lockstep.engine.plan import (
    Admission,
    Chunk,
    Decode,
    Ended,
    ModelPlan,
    Outcome,
    Place,
    Request,
    StepPlan,
)
from lockstep.engine.planner import CHUNK_TOKENS_MIN, DUE, ModelLimits, Planner
from lockstep.engine.slots import _prefix_hit

STOP = 0
TOKEN = 9  # What the model says unless a test says otherwise.


def request(ticket: int, due: int = 0, prompt: int = 2, out: int = 1, **more: object) -> Request:
    fields: dict[str, object] = {
        "ticket": ticket,
        "due": due,
        "model": 0,
        "conversation": (ticket, ""),
        "prompt": tuple(range(100, 100 + prompt)),
        "tokens_out_max": out,
        "stop": frozenset({STOP}),
        **more,
    }
    return Request(**fields)  # type: ignore[arg-type]


def planner(rows: int = 4, budget: int = 64, period: int = 1, priority_steps: int = 8) -> Planner:
    return Planner([ModelLimits(rows, budget, period)], priority_steps)


def run(
    one: Planner, step: int, said: Callable[[int], int | None] = lambda ticket: TOKEN
) -> tuple[StepPlan, list[Ended]]:
    """Plan a step, let the model speak, book it."""
    plan = one.plan(step)
    spoken: dict[Place, Outcome] = {}
    for model in plan.models:
        rows = [*(c for c in model.chunks if c.last), *model.decodes]
        spoken |= {(model.model, row.slot): Outcome(said(row.ticket)) for row in rows}
    return plan, one.commit(spoken).ended


def admitted(plan: StepPlan) -> list[tuple[int, int]]:
    return [(a.ticket, a.slot) for a in plan.models[0].admitted]


# -- one request ----------------------------------------------------------------------------------


def test_a_request_is_prefilled_decoded_and_ends() -> None:
    one = planner(rows=2, budget=3)
    one.offer(request(1, due=2, prompt=5, out=3))
    assert one.next_step() == 2  # An idle engine jumps.
    log = [run(one, step) for step in (2, 3, 4, 5)]
    assert log == [
        (
            StepPlan(2, (), (ModelPlan(
                0, (), (Admission(1, 0, 0),), (),
                (Chunk(1, 0, 0, (100, 101, 102), False),), (), (3, 0),
            ),), ((DUE, 1, 2),)),
            [],
        ),
        (
            StepPlan(3, (), (ModelPlan(
                0, (), (), (), (Chunk(1, 0, 3, (103, 104), True),), (), (5, 0),
            ),)),
            [],
        ),
        (StepPlan(4, (), (ModelPlan(0, (), (), (), (), (Decode(1, 0, 5, 9),), (5, 0)),)), []),
        (
            StepPlan(5, (), (ModelPlan(0, (), (), (), (), (Decode(1, 0, 6, 9),), (6, 0)),)),
            [Ended(1, "length")],
        ),
    ]  # fmt: skip
    assert one.next_step() is None


def test_a_stop_token_ends_a_request_and_wins_over_length() -> None:
    one = planner()
    one.offer(request(1, out=1))
    one.offer(request(2, out=5))
    assert run(one, 0, lambda ticket: STOP)[1] == [Ended(1, "stop"), Ended(2, "stop")]


# -- the queue ------------------------------------------------------------------------------------


def test_the_queue_is_ordered_by_due_step_plus_priority_then_ticket() -> None:
    one = planner(rows=16, priority_steps=3)
    for ticket, due, priority in [(1, 0, 2), (2, 4, 0), (3, 3, 1), (4, 6, 0), (5, 5, 0)]:
        one.offer(request(ticket, due, priority=priority))
    # Places: 1 -> 6, 2 -> 4, 3 -> 6, 4 -> 6, 5 -> 5.
    assert [ticket for ticket, _ in admitted(one.plan(6))] == [2, 5, 1, 3, 4]


def test_arrival_order_does_not_matter() -> None:
    plans = []
    for order in ([1, 2, 3], [3, 1, 2], [2, 3, 1]):
        one = planner(rows=2)
        for ticket in order:
            one.offer(request(ticket))
        plans.append(one.plan(0))
    assert plans[0] == plans[1] == plans[2]
    assert [a.ticket for a in plans[0].models[0].admitted] == [1, 2]


def test_one_that_does_not_fit_blocks_those_behind_it() -> None:
    one = planner(rows=1)
    one.offer(request(1, out=2))
    one.offer(request(2))
    one.offer(request(3))
    run(one, 0)
    assert one.load() == (1, 2)
    plan, ended = run(one, 1)
    assert (admitted(plan), ended) == ([], [Ended(1, "length")])
    assert admitted(run(one, 2)[0]) == [(2, 0)]


def test_a_ticket_joins_at_its_due_step_not_before() -> None:
    one = planner()
    one.offer(request(1, due=0, out=9))
    one.offer(request(2, due=2))
    assert [admitted(run(one, step)[0]) for step in range(3)] == [[(1, 0)], [], [(2, 1)]]


@pytest.mark.parametrize("due", [0, 3])
def test_a_ticket_or_cancel_for_an_executed_step_is_our_bug(due: int) -> None:
    one = planner()
    one.plan(3)
    with pytest.raises(LockstepBug, match=f"ticket 1 is due at step {due}, but step 3 was exec"):
        one.offer(request(1, due))
    with pytest.raises(LockstepBug, match=f"cancel of ticket 1 is due at executed step {due}"):
        one.cancel(1, due)


# -- slots ----------------------------------------------------------------------------------------


def fill(one: Planner, *conversations: int, step: int = 0) -> None:
    """Each conversation gets a slot and keeps it; they end together at ``step``."""
    for place, conversation in enumerate(conversations):
        ticket = step * 10 + place + 1
        one.offer(request(ticket, step, conversation=(conversation, "")))
    run(one, step)


def test_a_free_slot_is_the_lowest() -> None:
    one = planner(rows=3)
    fill(one, 7)
    one.offer(request(90, 1, conversation=(8, "")))
    assert admitted(one.plan(1)) == [(90, 1)]


def test_a_conversation_gets_the_slot_it_kept() -> None:
    one = planner(rows=3)
    fill(one, 7, 8)
    one.offer(request(90, 1, conversation=(8, "")))
    plan = one.plan(1)
    assert (admitted(plan), plan.models[0].evicted) == ([(90, 1)], ())


def test_without_a_free_slot_the_least_recently_used_one_is_given_up() -> None:
    one = planner(rows=3)
    fill(one, 7, 8, 9)
    fill(one, 7, step=1)
    one.offer(request(90, 2, conversation=(1, "")))
    one.offer(request(91, 2, conversation=(2, "")))
    plan = one.plan(2)
    # 8 and 9 ended at step 0, in order of tickets; 7 was used since.
    assert (admitted(plan), plan.models[0].evicted) == ([(90, 1), (91, 2)], (1, 2))


def test_a_kept_slot_with_a_waiting_ticket_is_spared() -> None:
    one = planner(rows=2)
    fill(one, 7, 8)
    one.offer(request(90, 1, conversation=(1, "")))
    one.offer(request(91, 1, conversation=(7, ""), priority=1))
    # 7 is the least recently used, but its next ticket waits behind.
    plan = one.plan(1)
    assert (admitted(plan), plan.models[0].evicted) == ([(90, 1), (91, 0)], (1,))


def test_when_every_kept_slot_is_waited_for_the_least_recently_used_goes_all_the_same() -> None:
    one = planner(rows=2)
    fill(one, 7, 8)
    one.offer(request(90, 1, conversation=(1, ""), out=9))
    one.offer(request(91, 1, conversation=(7, ""), priority=1))
    one.offer(request(92, 1, conversation=(8, ""), priority=1))
    plan = one.plan(1)
    assert (admitted(plan), plan.models[0].evicted) == ([(90, 0), (91, 1)], (0, 1))


def test_two_requests_of_one_conversation_have_a_slot_each() -> None:
    one = planner(rows=2)
    one.offer(request(1, conversation=(7, "")))
    one.offer(request(2, conversation=(7, "")))
    assert admitted(one.plan(0)) == [(1, 0), (2, 1)]


# -- prefix hits ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_a_hit_is_a_common_prefix_that_leaves_two_tokens(
    kept: list[int], prompt: list[int]
) -> None:
    hit = _prefix_hit(kept, tuple(prompt))
    assert kept[:hit] == prompt[:hit]
    assert hit <= max(0, len(prompt) - 2)
    longest = hit == min(len(kept), max(0, len(prompt) - 2)) or kept[hit] != prompt[hit]
    assert longest


def test_a_conversation_goes_on_from_what_its_slot_holds() -> None:
    one = planner(rows=1)
    one.offer(request(1, prompt=4, out=3, conversation=(7, "")))
    for step in range(3):
        run(one, step, lambda ticket: 55)
    # The slot holds the prompt and all that was fed back: the last token was never fed.
    again = (100, 101, 102, 103, 55, 55, 55, 60, 61)
    one.offer(Request(2, 3, 0, (7, ""), again, 1))
    plan, _ = run(one, 3)
    assert plan.models[0].admitted == (Admission(2, 0, 6),)
    assert plan.models[0].chunks == (Chunk(2, 0, 6, (55, 60, 61), True),)


def test_another_conversation_never_hits_even_with_the_same_tokens() -> None:
    one = planner(rows=1)
    fill(one, 7)
    one.offer(request(90, 1, prompt=2, conversation=(8, "")))
    plan = one.plan(1)
    assert plan.models[0].admitted == (Admission(90, 0, 0),)
    assert plan.models[0].evicted == (0,)


def test_a_hit_cuts_what_the_slot_held_behind_it() -> None:
    one = planner(rows=1)
    one.offer(Request(1, 0, 0, (7, ""), (1, 2, 3, 4, 5, 6), 1))
    run(one, 0)
    one.offer(Request(2, 1, 0, (7, ""), (1, 2, 9, 9), 2))
    plan, _ = run(one, 1)
    assert plan.models[0].admitted == (Admission(2, 0, 2),)
    assert plan.models[0].lengths == (4,)


# -- prefill --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hit", range(4))
@pytest.mark.parametrize("left", range(1, 25))
def test_chunks_cover_the_prompt_and_none_but_the_first_has_one_token(hit: int, left: int) -> None:
    if hit and left < 2:
        return  # A hit leaves two tokens.
    for budget in range(CHUNK_TOKENS_MIN, 26):
        filled, chunks = hit, []
        while filled < hit + left:
            size = _chunk_size(filled, hit + left - filled, budget)
            assert 1 <= size <= budget, "the first row in line always gets on"
            assert size > 1 or filled == 0
            assert hit + left - filled - size != 1
            chunks.append(size)
            filled += size
        assert sum(chunks) == left


@pytest.mark.parametrize("filled", range(3))
@pytest.mark.parametrize("left", range(1, 12))
@pytest.mark.parametrize("budget", range(8))
def test_what_is_left_of_the_budget_is_taken_or_waited_for(
    filled: int, left: int, budget: int
) -> None:
    size = _chunk_size(filled, left, budget)
    assert 0 <= size <= min(left, budget)
    assert left - size != 1 or size == 0
    assert not (size == 1 and filled)
    # Nothing else makes a chunk smaller than the budget allows, by more than one.
    assert size in (min(left, budget), min(left, budget) - 1) or (size == 0 and budget <= 2)


def test_the_budget_is_handed_out_in_queue_order() -> None:
    one = planner(budget=10)
    for ticket, prompt in [(1, 6), (2, 3), (3, 5), (4, 1)]:
        one.offer(request(ticket, prompt=prompt, out=2))
    sizes = [[(c.ticket, len(c.tokens)) for c in run(one, s)[0].models[0].chunks] for s in (0, 1)]
    # One token is left for 3: as its first chunk it may have one, and 4 waits.
    assert sizes == [[(1, 6), (2, 3), (3, 1)], [(3, 4), (4, 1)]]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(0, 3)), max_size=8),
    st.integers(CHUNK_TOKENS_MIN, 12),
    st.integers(1, 4),
)
def test_every_request_is_served_whole_within_budget_and_rows(
    wanted: list[tuple[int, int, int]], budget: int, rows: int
) -> None:
    one = planner(rows, budget)
    for ticket, (prompt, out, conversation) in enumerate(wanted, 1):
        one.offer(request(ticket, ticket % 3, prompt, out, conversation=(conversation, "")))
    prefilled: dict[int, int] = {}
    said: dict[int, int] = {}
    ended: list[int] = []
    while (step := one.next_step()) is not None:
        plan, ends = run(one, step)
        model = plan.models[0]
        assert sum(len(c.tokens) for c in model.chunks) <= budget
        assert one.load()[0] <= rows
        assert [d.slot for d in model.decodes] == sorted({d.slot for d in model.decodes})
        for admission in model.admitted:
            prefilled[admission.ticket] = admission.hit
        for chunk in model.chunks:
            assert chunk.start == prefilled[chunk.ticket]
            assert len(chunk.tokens) > 1 or chunk.start == 0
            prefilled[chunk.ticket] += len(chunk.tokens)
        for ticket in [c.ticket for c in model.chunks if c.last] + [
            d.ticket for d in model.decodes
        ]:
            said[ticket] = said.get(ticket, 0) + 1
        ended += [end.ticket for end in ends]
    assert prefilled == {t: prompt for t, (prompt, _, _) in enumerate(wanted, 1)}
    assert said == {t: out for t, (_, out, _) in enumerate(wanted, 1)}
    assert sorted(ended) == list(range(1, len(wanted) + 1))


# -- the boundary ---------------------------------------------------------------------------------


def test_a_refusal_is_told_at_the_due_step_and_takes_no_slot() -> None:
    one = planner(rows=1)
    one.offer(request(1, 2, refusal="too long: 9 tokens"))
    assert one.next_step() == 2
    assert run(one, 2)[0] == StepPlan(
        2,
        (Ended(1, "refused", "too long: 9 tokens"),),
        (ModelPlan(0, lengths=(0,)),),
        ((DUE, 1, 2),),
    )
    assert one.next_step() is None


def test_a_cancel_frees_its_slot_for_the_same_step() -> None:
    one = planner(rows=1)
    one.offer(request(1, out=9))
    one.offer(request(2))
    run(one, 0)
    one.cancel(1, due=2)
    assert run(one, 1)[0].ended == ()
    plan, _ = run(one, 2)
    assert plan.ended == (Ended(1, "cancelled", "cancelled"),)
    assert admitted(plan) == [(2, 0)]


def test_a_cancel_reaches_a_ticket_in_the_queue_and_one_that_joins_with_it() -> None:
    one = planner(rows=1)
    for ticket in (1, 2, 3):
        one.offer(request(ticket, due=1 if ticket == 3 else 0, out=9))
    run(one, 0)
    one.cancel(3, due=1)
    one.cancel(2, due=1)
    assert [end.ticket for end in run(one, 1)[0].ended] == [2, 3]


def test_a_cancel_of_a_request_that_has_ended_is_void() -> None:
    one = planner()
    one.offer(request(1))
    one.offer(request(2, out=9))
    assert run(one, 0)[1] == [Ended(1, "length")]
    one.cancel(1, due=1)
    assert run(one, 1)[0].ended == ()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_time_out_is_counted_from_the_due_step(rows: int) -> None:
    one = planner(rows=rows)
    one.offer(request(1, 0, out=99))
    one.offer(request(2, 1, out=99, timeout_steps=3))
    ended = [run(one, step)[0].ended for step in range(5)]
    assert ended[:4] == [()] * 4
    assert ended[4] == (Ended(2, "timeout", "no answer 3 steps after it was due"),)


def test_time_outs_of_one_boundary_are_told_by_ticket_whatever_their_steps() -> None:
    one = planner(rows=1)
    for ticket, due, steps in [(3, 0, 4), (1, 3, 1), (2, 1, 3), (4, 0, 3)]:
        one.offer(request(ticket, due, out=99, timeout_steps=steps))
    assert [[e.ticket for e in run(one, s)[0].ended] for s in range(5)] == [[]] * 3 + [
        [4],
        [1, 2, 3],
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),  # due
            st.integers(0, 6),  # timeout_steps
            st.integers(1, 6),  # tokens
            st.none() | st.integers(0, 9),  # cancel due
            st.integers(0, 1),  # model
        ),
        max_size=40,
    ),
    st.integers(1, 3),
)
def test_a_time_out_comes_exactly_at_its_step_to_what_is_unanswered(
    wanted: list[tuple[int, int, int, int | None, int]], rows: int
) -> None:
    one = Planner([ModelLimits(rows, 8), ModelLimits(rows, 8, period=2)], 8)
    left: dict[int, int] = {}  # Ticket -> step of its time-out, of those without an answer.
    for ticket, (due, steps, out, cancel, model) in enumerate(wanted, 1):
        one.offer(request(ticket, due, out=out, timeout_steps=steps, model=model))
        left[ticket] = due + steps if steps else 10**9
        if cancel is not None:
            one.cancel(ticket, cancel)
    while (step := one.next_step()) is not None:
        plan, ended = run(one, step)
        cancelled = [end.ticket for end in plan.ended if end.reason == "cancelled"]
        late = [end.ticket for end in plan.ended if end.reason == "timeout"]
        assert late == [t for t, at in left.items() if at <= step and t not in cancelled]
        for end in (*plan.ended, *ended):
            del left[end.ticket]
    assert left == {}


def test_answered_requests_with_a_long_time_out_are_not_kept() -> None:
    one = planner()
    for ticket in range(1, 200):
        one.offer(request(ticket, ticket, timeout_steps=10**9))
        assert run(one, ticket)[1] == [Ended(ticket, "length")]
    assert len(one._timeouts) <= 3


def test_what_ends_at_a_boundary_is_told_in_order_refusals_cancels_time_outs() -> None:
    one = planner(rows=1)
    one.offer(request(4, 0, timeout_steps=1, out=9))
    one.offer(request(3, 0, timeout_steps=1))
    one.offer(request(2, 0, out=9))
    run(one, 0)
    one.cancel(2, due=1)
    one.offer(request(9, 1, refusal="no"))
    assert [(e.ticket, e.reason) for e in run(one, 1)[0].ended] == [
        (9, "refused"),
        (2, "cancelled"),
        (3, "timeout"),
        (4, "timeout"),
    ]


def test_a_cancelled_slot_keeps_what_it_computed() -> None:
    one = planner(rows=1)
    one.offer(request(1, prompt=6, out=9, conversation=(7, "")))
    run(one, 0)
    one.cancel(1, due=1)
    one.offer(request(2, 1, prompt=6, conversation=(7, "")))
    assert run(one, 1)[0].models[0].admitted == (Admission(2, 0, 4),)


# -- bad output -----------------------------------------------------------------------------------


def test_a_row_with_nan_ends_others_go_on_and_its_slot_is_wiped() -> None:
    one = planner(rows=2)
    one.offer(request(1, prompt=6, out=5, conversation=(7, "")))
    one.offer(request(2, prompt=6, out=5, conversation=(8, "")))
    said: Mapping[int, int | None] = {1: None, 2: TOKEN}
    assert run(one, 0, lambda ticket: said[ticket])[1] == [
        Ended(1, "invalid_output", "the model's output has a NaN or Inf")
    ]
    one.offer(request(3, 1, prompt=6, conversation=(7, "")))
    plan, _ = run(one, 1)
    # Poisoned KV is no prefix, and the slot is free: nothing is evicted.
    assert plan.models[0].admitted == (Admission(3, 0, 0),)
    assert plan.models[0].evicted == ()
    assert [d.ticket for d in plan.models[0].decodes] == [2]


# -- several models -------------------------------------------------------------------------------


def test_a_model_runs_in_steps_divisible_by_its_period() -> None:
    one = Planner([ModelLimits(1, 64), ModelLimits(1, 64, period=3)], 8)
    one.offer(request(1, 0, out=9))
    one.offer(request(2, 1, out=2, model=1))
    log = []
    for step in range(7):
        plan, ended = run(one, step)
        log.append(([m.model for m in plan.models], [e.ticket for e in ended]))
    assert log == [
        ([0, 1], []),
        ([0], []),
        ([0], []),
        ([0, 1], []),  # Due at 1, prefilled at 3.
        ([0], []),
        ([0], []),
        ([0, 1], [2]),
    ]


def test_each_model_has_its_own_queue_slots_and_budget() -> None:
    one = Planner([ModelLimits(1, 3), ModelLimits(1, 3)], 8)
    one.offer(request(1, prompt=3, out=9))
    one.offer(request(2, prompt=3, out=9, model=1))
    plan, _ = run(one, 0)
    assert [[(c.ticket, c.slot) for c in m.chunks] for m in plan.models] == [[(1, 0)], [(2, 0)]]
    assert one.load() == (2, 0)
