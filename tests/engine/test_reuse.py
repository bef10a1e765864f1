"""KV reuse, planned: conversations that rest, prefixes that are copied or waited for, samples."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from play import Play

from lockstep.engine.model_queue import CHUNK_TOKENS_MIN
from lockstep.engine.plan import (
    Admission,
    Chunk,
    Copy,
    Ended,
    Left,
    ModelPlan,
    Outcome,
    Request,
)
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.prefix import common_tokens
from lockstep.engine.slots import pack

TOKEN = 9
SYSTEM = tuple(range(1000, 1020))  # Twenty tokens that many prompts begin with.
Said = Callable[[int, int], Outcome]


def planner(rows: int = 4, kept: int = 0, copies: bool = True, budget: int = 64) -> Planner:
    return Planner([ModelLimits(rows, budget, 1, kept, copies)], 8)


def request(
    ticket: int, prompt: tuple[int, ...], due: int = 0, out: int = 1, **more: int
) -> Request:
    conversation = more.pop("conversation", ticket), ""
    return Request(ticket, due, 0, conversation, prompt, out, **more)  # type: ignore[arg-type]


def run(
    one: Planner, step: int, said: Said = lambda ticket, sample: Outcome(TOKEN)
) -> tuple[ModelPlan, list[Ended], list[Left]]:
    plan = one.plan(step)
    (part,) = plan.models
    rows = [*(c for c in part.chunks if c.last), *part.decodes]
    booked = one.commit({(0, row.slot): said(row.ticket, row.sample) for row in rows})
    return part, [*plan.ended, *booked.ended], booked.left


def test_a_prefix_that_another_slot_has_is_copied() -> None:
    one = planner()
    one.offer(request(1, (*SYSTEM, 1, 2), out=9))
    run(one, 0)
    one.offer(request(2, (*SYSTEM, 3, 4, 5), due=1))
    part, _, _ = run(one, 1)
    assert part.copies == (Copy(0, 1, 0, 20),)
    assert part.admitted == (Admission(2, 1, 20),)
    assert part.chunks == (Chunk(2, 1, 20, (3, 4, 5), True),)


@pytest.mark.parametrize(
    ("first", "second", "copied"),
    [
        ((*SYSTEM, 1), SYSTEM, 18),  # Two tokens are computed whatever is there.
        (SYSTEM[:8], (*SYSTEM[:8], 1, 2), 8),
        (SYSTEM[:7], (*SYSTEM[:7], 1, 2), 0),
        ((*SYSTEM, 1), (5, *SYSTEM, 1), 0),
    ],
)
def test_so_much_of_a_prefix_is_copied(
    first: tuple[int, ...], second: tuple[int, ...], copied: int
) -> None:
    one = planner()
    one.offer(request(1, first, out=9))
    run(one, 0)
    one.offer(request(2, second, due=1))
    part, _, _ = run(one, 1)
    assert sum(copy.count for copy in part.copies) == copied == part.admitted[0].hit


def test_generated_tokens_are_never_copied_to_another_conversation() -> None:
    one = planner()
    one.offer(request(1, SYSTEM, out=15))
    for step in range(15):
        run(one, step)
    one.offer(request(2, (*SYSTEM, *[TOKEN] * 12), due=15))
    part, _, _ = run(one, 15)
    assert part.copies == (Copy(0, 1, 0, 20),)


def test_a_row_behind_generated_tokens_of_its_own_computes_the_rest_itself() -> None:
    one = planner()
    one.offer(request(1, SYSTEM, out=3, conversation=1))
    for step in range(3):
        run(one, step)
    longer = (*SYSTEM, TOKEN, TOKEN, *range(30))
    one.offer(request(2, longer, due=3, out=9, conversation=2))
    run(one, 3)
    one.offer(request(3, (*longer, 7), due=4, conversation=1))
    part, _, _ = run(one, 4)
    # Alone it would go on from what the slot holds, with the bits of generated tokens.
    assert part.admitted == (Admission(3, 0, 22, 0, 20),) and part.copies == ()


def test_a_prefix_that_an_earlier_row_is_computing_is_waited_for() -> None:
    one = planner(budget=10)
    for ticket in (1, 2, 3):
        one.offer(request(ticket, (*SYSTEM, ticket, 7, 8), out=9))
    log = [run(one, step)[0] for step in range(3)]
    assert [[(c.ticket, c.start, len(c.tokens)) for c in part.chunks] for part in log] == [
        [(1, 0, 10)],
        [(1, 10, 10)],
        [(1, 20, 3), (2, 20, 3), (3, 20, 3)],
    ]
    assert [part.copies for part in log] == [(), (), (Copy(0, 1, 0, 20), Copy(0, 2, 0, 20))]


def test_who_waits_for_a_row_that_is_cancelled_goes_on_from_what_it_had() -> None:
    one = planner(budget=15)
    one.offer(request(1, (*SYSTEM, 1, 1)))
    one.offer(request(2, (*SYSTEM, 2, 2)))
    run(one, 0)
    one.cancel(1, 1)
    part, ended, _ = run(one, 1)
    assert [end.ticket for end in ended if end.reason == "cancelled"] == [1]
    assert part.copies == (Copy(0, 1, 0, 15),)
    assert part.chunks == (Chunk(2, 1, 15, (*SYSTEM[15:], 2, 2), True),)


def test_a_slot_taken_over_needs_no_copy_of_what_it_holds() -> None:
    one = planner(rows=1)
    one.offer(request(1, (*SYSTEM, 1, 2)))
    run(one, 0)
    one.offer(request(2, (*SYSTEM, 3, 4), due=1))
    part, _, _ = run(one, 1)
    assert part.evicted == (0,) and part.copies == ()
    assert part.admitted == (Admission(2, 0, 20),)


def test_without_prefix_copies_nothing_of_another_conversation_is_taken_over() -> None:
    one = planner(rows=1, copies=False, kept=1)
    one.offer(request(1, (*SYSTEM, 1, 2)))
    run(one, 0)
    one.offer(request(2, (*SYSTEM, 3, 4), due=1))
    assert run(one, 1)[0].admitted == (Admission(2, 0, 0),)


def test_a_row_whose_share_of_the_budget_is_one_token_waits_so_that_others_may_copy() -> None:
    one = planner(budget=7)
    one.offer(request(1, (1, 2, 3, 4, 5, 6)))
    one.offer(request(2, (*SYSTEM, 1)))
    assert [c.ticket for c in run(one, 0)[0].chunks] == [1]


# -- conversations at rest ------------------------------------------------------------------------


def test_a_conversation_that_has_to_leave_rests_and_comes_back_with_what_it_generated() -> None:
    one = planner(rows=1, kept=1)
    one.offer(request(1, (1, 2, 3), out=3, conversation=7))
    for step in range(3):
        run(one, step)
    one.offer(request(2, (4, 5, 6), due=3, conversation=8))
    part, _, _ = run(one, 3)
    assert (part.evicted, part.copies) == ((), (Copy(0, 1, 0, 5, move=True),))
    one.offer(request(3, (1, 2, 3, TOKEN, TOKEN, TOKEN, 4), due=4, conversation=7))
    part, _, _ = run(one, 4)
    # The only place to rest is the one it comes from, so the other conversation is given up.
    assert (part.evicted, part.copies) == ((0,), (Copy(1, 0, 0, 5, move=True),))
    assert part.admitted == (Admission(3, 0, 5, 0, 3),)
    assert part.chunks == (Chunk(3, 0, 5, (TOKEN, 4), True),)


def test_two_conversations_change_places_when_there_is_room_for_one_more() -> None:
    one = planner(rows=1, kept=2)
    for step, conversation in enumerate([7, 8, 7, 8]):
        prompt = tuple(range(conversation * 100, conversation * 100 + 5 + step))
        one.offer(request(step + 1, prompt, due=step, conversation=conversation))
    log = [run(one, step)[0] for step in range(4)]
    assert [part.copies for part in log] == [
        (),
        (Copy(0, 1, 0, 5, move=True),),
        (Copy(0, 2, 0, 6, move=True), Copy(1, 0, 0, 5, move=True)),
        (Copy(0, 1, 0, 7, move=True), Copy(2, 0, 0, 6, move=True)),
    ]
    assert [part.evicted for part in log] == [()] * 4


def test_without_room_to_rest_the_least_recently_used_conversation_is_given_up() -> None:
    one = planner(rows=1, kept=1)
    for step, conversation in enumerate([7, 8, 9]):
        prompt = tuple(range(conversation * 100, conversation * 100 + 5))
        one.offer(request(step + 1, prompt, due=step, conversation=conversation))
    log = [run(one, step)[0] for step in range(3)]
    assert log[2].evicted == (1,)  # 7, which rests there; 8 takes its place.
    assert log[2].copies == (Copy(0, 1, 0, 5, move=True),)


def test_a_conversation_at_rest_with_a_waiting_request_is_spared() -> None:
    one = planner(rows=1, kept=1)
    for step, conversation in enumerate([7, 8]):
        prompt = tuple(range(conversation * 100, conversation * 100 + 5))
        one.offer(request(step + 1, prompt, due=step, conversation=conversation))
        run(one, step)
    one.offer(request(3, (1, 2, 3), due=2, conversation=9))
    one.offer(request(4, tuple(range(700, 707)), due=2, conversation=7))
    part, _, _ = run(one, 2)
    assert (part.evicted, part.copies) == ((0,), ())


def test_slots_are_kept_compact() -> None:
    one = planner(rows=8, kept=8, copies=False)
    for ticket in range(1, 9):
        one.offer(request(ticket, (ticket, 2, 3), out=99 if ticket in (1, 6, 8) else 2))
    run(one, 0)
    run(one, 1)
    part, _, _ = run(one, 2)
    # Five of eight idle: the highest rows take the lowest places, whose conversations rest.
    assert part.copies == (
        Copy(1, 8, 0, 4, move=True),
        Copy(7, 1, 0, 4, move=True),
        Copy(2, 9, 0, 4, move=True),
        Copy(5, 2, 0, 4, move=True),
    )
    assert [(d.ticket, d.slot, d.past) for d in part.decodes] == [(1, 0, 4), (8, 1, 4), (6, 2, 4)]


def test_without_room_to_rest_a_conversation_stays_among_active_rows() -> None:
    one = planner(rows=4)
    for ticket in range(1, 5):
        one.offer(request(ticket, (ticket, 2, 3), out=99 if ticket in (1, 4) else 1))
    run(one, 0)
    part, _, _ = run(one, 1)
    assert part.copies == () and [d.slot for d in part.decodes] == [0, 3]


# -- samples --------------------------------------------------------------------------------------


def test_samples_share_one_prefill_and_end_together() -> None:
    one = planner()
    one.offer(request(1, SYSTEM, out=3, samples=3))
    log = [run(one, 0), run(one, 1)]
    assert [(a.sample, a.slot, a.hit) for a in log[0][0].admitted] == [
        (0, 0, 0),
        (1, 1, 0),
        (2, 2, 0),
    ]
    assert [len(c.tokens) for c in log[0][0].chunks] == [20]
    assert log[1][0].copies == (Copy(0, 1, 0, 18), Copy(0, 2, 0, 18))
    log += [run(one, 2), run(one, 3)]
    assert [(ended, left) for _, ended, left in log] == [
        ([], []),
        ([], []),
        ([], [Left(0, 0, 1)]),
        ([Ended(1, "length")], [Left(0, 1, 1)]),
    ]


def test_more_samples_than_slots_queue_and_block_those_behind_them() -> None:
    one = planner(rows=2, copies=False)
    one.offer(request(1, (1, 2, 3), samples=5))
    one.offer(request(2, (4, 5, 6)))
    log = [run(one, step) for step in range(3)]
    assert [[(a.ticket, a.sample) for a in part.admitted] for part, _, _ in log] == [
        [(1, 0), (1, 1)], [(1, 2), (1, 3)], [(1, 4), (2, 0)],
    ]  # fmt: skip
    assert [ended for _, ended, _ in log] == [[], [], [Ended(1, "length"), Ended(2, "length")]]


def test_only_the_first_sample_keeps_its_conversation() -> None:
    one = planner(rows=2, copies=False)
    one.offer(request(1, (1, 2, 3, 4), samples=2, conversation=7))
    run(one, 0)
    one.offer(request(2, (1, 2, 3, 4), due=1, conversation=7))
    one.offer(request(3, (5, 6), due=1, conversation=8))
    part, _, _ = run(one, 1)
    assert part.admitted == (Admission(2, 0, 2), Admission(3, 1, 0)) and part.evicted == ()


def test_a_sample_that_is_not_finite_ends_its_whole_ticket() -> None:
    one = planner(rows=3, copies=False)
    one.offer(request(1, (1, 2, 3), out=9, samples=4))
    one.offer(request(2, (4, 5, 6)))
    nan = {1: Outcome(None)}
    _, ended, left = run(one, 0, lambda _, sample: nan.get(sample, Outcome(TOKEN)))
    assert ([end[:2] for end in ended], left) == ([(1, "invalid_output")], [])
    part, ended, _ = run(one, 1)
    # All slots were wiped, and the sample that waited is gone.
    assert part.admitted == (Admission(2, 0, 0),) and part.evicted == ()
    assert one.load() == (0, 0)


def test_a_cancel_takes_all_samples() -> None:
    one = planner(rows=2, copies=False)
    one.offer(request(1, (1, 2, 3), out=9, samples=5))
    run(one, 0)
    one.cancel(1, 1)
    part, ended, _ = run(one, 1)
    assert ended == [Ended(1, "cancelled", "cancelled")] and one.load() == (0, 0)
    assert part.decodes == () and one.next_step() is None


def test_a_stop_of_the_answerer_ends_a_row() -> None:
    one = planner()
    one.offer(request(1, (1, 2, 3), out=9))
    assert run(one, 0, lambda *_: Outcome(TOKEN, stop=True))[1] == [Ended(1, "stop")]


# -- whatever comes -------------------------------------------------------------------------------

TRAFFIC = st.lists(
    st.tuples(
        st.integers(0, 8),  # due
        st.sampled_from([(), SYSTEM[:9], SYSTEM]),
        st.integers(1, 20),  # tokens behind it
        st.integers(1, 5),  # out
        st.integers(0, 3),  # conversation
        st.integers(1, 3),  # samples
        st.none() | st.integers(0, 20),  # cancel
    ),
    max_size=14,
)
LIMITS = st.builds(
    ModelLimits,
    st.integers(1, 5),
    st.integers(CHUNK_TOKENS_MIN, 30),
    st.integers(1, 2),
    st.integers(0, 3),
    st.booleans(),
)


@given(TRAFFIC, LIMITS, st.booleans())
def test_every_request_is_served_whole_and_every_slot_holds_what_it_must(
    wanted: list[tuple[int, tuple[int, ...], int, int, int, int, int | None]],
    limits: ModelLimits,
    dying: bool,
) -> None:
    # Whoever runs a step may die anywhere in it: the next one runs it in the slots as they are.
    deaths = random.Random(len(wanted))
    play = Play(limits, (lambda: deaths.randrange(9)) if dying else None)
    for ticket, (due, head, tail, out, conversation, samples, cancel) in enumerate(wanted, 1):
        prompt = (*head, *random.Random(conversation).choices(range(3), k=tail))
        play.offer(request(ticket, prompt, due, out, conversation=conversation, samples=samples))
        if cancel is not None:
            play.planner.cancel(ticket, cancel)
    play.run()
    assert sorted(play.ended) == list(range(1, len(wanted) + 1))
    for ticket, (_, _, _, out, _, samples, cancel) in enumerate(wanted, 1):
        if cancel is None:
            assert [len(play.said[ticket, sample]) for sample in range(samples)] == [out] * samples


def test_a_shared_prefix_is_computed_once_however_many_ask_for_it() -> None:
    play = Play(ModelLimits(8, 16, 1, 0, True))
    for ticket in range(1, 20):
        play.offer(request(ticket, (*range(500, 700), ticket, ticket), ticket % 3, 4))
    play.run()
    assert play.computed == 202 + 18 * 2


def test_without_copies_samples_and_rest_nothing_is_copied() -> None:
    play = Play(ModelLimits(3, 16))
    for ticket in range(1, 30):
        prompt = (*SYSTEM, *range(ticket))
        play.offer(request(ticket, prompt, ticket, 4, conversation=ticket % 5))
    while (step := play.planner.next_step()) is not None:
        (part,) = play.step(step).models
        assert part.copies == ()
        assert all(a.shared < 0 and a.sample == 0 for a in part.admitted)


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_common_tokens_are_those_at_the_beginning_of_both(one: list[int], other: list[int]) -> None:
    common = common_tokens(pack(one), pack(other))
    assert one[:common] == other[:common]
    assert common == min(len(one), len(other)) or one[common] != other[common]
