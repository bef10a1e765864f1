"""Copied keys and values on real models: what is copied is what would have been computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import LockstepBug
from lockstep.engine.plan import Chunk, Copy, Decode, ModelPlan

ROWS, KEPT, TOKENS = 4, 2, 96
PROMPT = tuple(range(30, 70))
OTHER = (*PROMPT[:25], *range(200, 215))  # Shares 25 tokens.


def plan(*, copies: Any = (), chunks: Any = (), decodes: Any = (), lengths: Any = ()) -> ModelPlan:
    return ModelPlan(
        0,
        copies=tuple(copies),
        chunks=tuple(chunks),
        decodes=tuple(decodes),
        lengths=tuple(lengths),
    )


def prefill(decoder: Any, slot: int, tokens: tuple[int, ...], start: int, *copies: Copy) -> bytes:
    chunk = Chunk(1, slot, start, tokens[start:], True)
    ((found, logits),) = decoder.run(plan(copies=copies, chunks=[chunk]))
    assert found == slot
    return bytes(logits.tobytes())


def decode(decoder: Any, rows: dict[int, tuple[int, int]], *copies: Copy) -> dict[int, bytes]:
    """One token of each {slot: (past, token)}; every other row is empty."""
    lengths = [rows[slot][0] if slot in rows else 0 for slot in range(decoder.rows_max)]
    decodes = [Decode(1, slot, past, token) for slot, (past, token) in sorted(rows.items())]
    out = decoder.run(plan(copies=copies, decodes=decodes, lengths=lengths))
    return {slot: logits.tobytes() for slot, logits in out}


def held(decoder: Any, slot: int, count: int) -> bytes:
    return bytes(decoder.slab.tokens(slot, 0, count).tobytes())


@pytest.mark.parametrize("count", [8, 19, 25])
@pytest.mark.parametrize("way", ["row to row", "by a row that rests"])
def test_a_copied_prefix_is_bit_equal_to_a_computed_one(
    any_model: Path, decoder: Any, count: int, way: str
) -> None:
    made = decoder(any_model, ROWS, TOKENS, rows_kept=KEPT)
    prefill(made, 0, PROMPT, 0)
    computed = prefill(made, 1, OTHER, 0)
    copies = [Copy(0, 3, 0, count)]
    if way != "row to row":
        copies = [Copy(0, ROWS, 0, count), Copy(ROWS, 3, 0, count)]
    assert prefill(made, 3, OTHER, count, *copies) == computed
    assert held(made, 3, len(OTHER)) == held(made, 1, len(OTHER))


def test_a_copy_may_go_on_behind_what_a_row_has_computed_itself(
    any_model: Path, decoder: Any
) -> None:
    made = decoder(any_model, ROWS, TOKENS)
    prefill(made, 0, PROMPT, 0)
    computed = prefill(made, 1, OTHER, 0)
    made.run(plan(chunks=[Chunk(1, 2, 0, OTHER[:9], False)]))
    assert prefill(made, 2, OTHER, 25, Copy(0, 2, 9, 16)) == computed
    assert held(made, 2, len(OTHER)) == held(made, 1, len(OTHER))


def test_a_conversation_that_rested_goes_on_with_the_bits_of_one_that_did_not(
    any_model: Path, decoder: Any
) -> None:
    rested = decoder(any_model, ROWS, TOKENS, rows_kept=KEPT)
    stayed = decoder(any_model, ROWS, TOKENS)
    for made in (rested, stayed):
        prefill(made, 1, PROMPT, 0)
        for past in range(40, 46):
            decode(made, {1: (past, past)})
    away = Copy(1, ROWS + 1, 0, 46)
    rested.run(plan(copies=[away]))
    prefill(rested, 1, OTHER, 0)  # Somebody else has its row meanwhile.
    back = Copy(ROWS + 1, 2, 0, 46)
    for past in range(46, 50):
        there = decode(rested, {2: (past, past)}, *([back] if past == 46 else []))
        assert there[2] == decode(stayed, {1: (past, past)})[1]
    more = (*(0 for _ in range(50)), *range(80, 90))  # Its next request: only what is new.
    assert prefill(rested, 2, more, 50) == prefill(stayed, 1, more, 50)


def test_an_active_row_moves_and_its_neighbours_do_not_notice(
    any_model: Path, decoder: Any
) -> None:
    moved = decoder(any_model, ROWS, TOKENS)
    stayed = decoder(any_model, ROWS, TOKENS)
    for made in (moved, stayed):
        for slot in (1, 3):
            prefill(made, slot, PROMPT if slot == 1 else OTHER, 0)
        decode(made, {1: (40, 5), 3: (40, 6)})
    low = decode(moved, {0: (41, 8), 1: (41, 7)}, Copy(3, 0, 0, 41))
    high = decode(stayed, {1: (41, 7), 3: (41, 8)})
    assert (low[1], low[0]) == (high[1], high[3])


def test_rows_that_change_places_go_on_as_before(any_model: Path, decoder: Any) -> None:
    made = decoder(any_model, ROWS, TOKENS, rows_kept=1)
    prefill(made, 0, PROMPT, 0)
    prefill(made, 1, OTHER, 0)
    before = decode(made, {0: (40, 5), 1: (40, 6)})
    copies = [Copy(0, ROWS, 0, 40), Copy(1, 0, 0, 40), Copy(ROWS, 1, 0, 40)]
    after = decode(made, {0: (40, 6), 1: (40, 5)}, *copies)
    assert (after[1], after[0]) == (before[0], before[1])


def test_a_plan_of_copies_alone_runs_no_model(fp32: Path, decoder: Any) -> None:
    made = decoder(fp32, ROWS, TOKENS, rows_kept=KEPT)
    prefill(made, 0, PROMPT, 0)
    assert made.run(plan(copies=[Copy(0, ROWS, 0, 40)], lengths=[0] * (ROWS + KEPT))) == []
    assert held(made, ROWS, 40) == held(made, 0, 40)
    made.run(plan(copies=[Copy(ROWS, 1, 0, 0, move=True)]))  # Nothing of it is needed.
    assert not made.slab.tokens(1, 0, TOKENS).any()


@pytest.mark.parametrize(
    "copy",
    [
        Copy(0, 0, 0, 8),
        Copy(-1, 0, 0, 8),
        Copy(0, ROWS + KEPT, 0, 8),
        Copy(0, 1, 0, 0),
        Copy(0, 1, 0, -1, move=True),
        Copy(0, 1, -1, 8),
        Copy(0, 1, 90, 7),
    ],
    ids=str,
)
def test_a_copy_that_no_planner_may_make_is_refused_before_any_other(
    fp32: Path, decoder: Any, copy: Copy
) -> None:
    made = decoder(fp32, ROWS, TOKENS, rows_kept=KEPT)
    prefill(made, 0, PROMPT, 0)
    with pytest.raises(LockstepBug, match=r"plan: Copy.*6 slots of 96 tokens"):
        made.run(plan(copies=[Copy(0, 1, 0, 40), copy]))
    assert not made.slab.tokens(1, 0, TOKENS).any()


def test_rows_that_rest_never_run(fp32: Path, decoder: Any) -> None:
    made = decoder(fp32, ROWS, TOKENS, rows_kept=KEPT)
    lengths = (0,) * (ROWS + KEPT)
    for bad in (
        plan(chunks=[Chunk(1, ROWS, 0, PROMPT, True)]),
        plan(decodes=[Decode(1, ROWS, 0, 5)], lengths=lengths),
    ):
        with pytest.raises(LockstepBug, match="plan: "):
            made.run(bad)
