"""Mutants of KV reuse: each breaks one rule of what slots hold, and the simulator turns red.

Red is: a row computes on keys and values that are not its own tokens, computed as alone; a run that
lost its engine goes on otherwise than one that did not; or somebody starves. A wrong copy is wrong
under every physical timing, so it is the slots that are looked at (tests/support/simslab.py).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from crashing import survive
from play import Play
from simslab import SimSlab
from simulator import simulate

from lockstep.engine import prefix, restore, step_rows
from lockstep.engine.errors import LockstepError
from lockstep.engine.lineage import Lineage
from lockstep.engine.plan import ModelPlan, Request
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.slots import TOKEN_BYTES, Row, Slots, pack
from lockstep.engine.wire import FromEngine

FLEETS = 120  # Within so many fleets each mutant must be red at least once.

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def moves_without_bytes(patch: Patch) -> None:
    """Whoever moves is said to be elsewhere, and nothing is copied."""
    patch.setattr(Slots, "_note_move", lambda *_: None)


def copies_without_bytes(patch: Patch) -> None:
    """A prefix is said to be there, and nothing is copied."""

    def copy_prefix(self: Slots, source: int, row: Row, until: int) -> None:
        before(self, source, row, until)
        self.copies.pop()

    before = Slots.copy_prefix
    patch.setattr(Slots, "copy_prefix", copy_prefix)


def generated_tokens_are_shared(patch: Patch) -> None:
    """Others copy what another kernel computed."""

    def release(self: Slots, row: Row, step: int) -> None:
        before(self, row, step)
        slot = self[row.slot]
        if slot.lead:
            slot.shared, slot.lead = len(slot.tokens), pack(slot.tokens)

    before = Slots.release
    patch.setattr(Slots, "release", release)


def copies_behind_generated_tokens(patch: Patch) -> None:
    """A row goes on from its own generated tokens with what others computed on other bits."""

    def admit(self: Slots, *arguments: Any) -> Row | None:
        row = before(self, *arguments)
        if row is not None and row.packed:
            self[row.slot].shared = row.filled
        return row

    before = Slots.admit
    patch.setattr(Slots, "admit", admit)


def one_token_is_shared(patch: Patch) -> None:
    """A prompt of one token, which runs on the decode kernel, is taken over by others."""

    def fill(self: Slots, row: Row, tokens: Sequence[int]) -> None:
        before(self, row, tokens)
        slot = self[row.slot]
        if row.packed and row.filled == 1:
            slot.shared, slot.lead = 1, row.packed[:TOKEN_BYTES]

    before = Slots.fill
    patch.setattr(Slots, "fill", fill)


def prefixes_are_not_compared(patch: Patch) -> None:
    """What lies in another slot is taken for the beginning of the prompt."""
    patch.setattr(prefix, "common_tokens", lambda a, b: min(len(a), len(b)) // TOKEN_BYTES)


def every_sample_goes_on_with_the_conversation(patch: Patch) -> None:
    """A conversation has the tokens of whichever sample ended last."""

    def admit(self: Slots, request: Request, sample: int, wanted: Any) -> Row | None:
        row = before(self, request, 0, wanted)
        if row is not None:
            row.sample = sample
        return row

    before = Slots.admit
    patch.setattr(Slots, "admit", admit)


def copies_are_done_twice(patch: Patch) -> None:
    """A step that runs again begins anew with its copies, whose sources are overwritten."""

    def again(self: SimSlab, step: int | None, part: ModelPlan, whose: Any) -> Iterator[None]:
        self._done.clear()
        return before(self, step, part, whose)

    before = SimSlab.run
    patch.setattr(SimSlab, "run", again)


def copies_count_before_they_are_done(patch: Patch) -> None:
    """A process that dies between two copies leaves one that nobody does."""

    def again(self: SimSlab, step: int | None, part: ModelPlan, whose: Any) -> Iterator[None]:
        for number, _ in enumerate(runs(self, step, part, whose)):
            if number == 0 and step is not None and part.copies:
                self._done[part.model] = step, len(part.copies)
            yield

    runs = SimSlab.run
    patch.setattr(SimSlab, "run", again)


def moves_are_not_followed(patch: Patch) -> None:
    """The record is read as if everybody had stayed where he was admitted."""
    patch.setattr(restore._Tail, "_moved", lambda *_: None)


def shares_are_not_read(patch: Patch) -> None:
    """Who reads the record takes generated tokens of a hit for prefilled ones."""

    def grow(growing: Any, row: Any) -> None:
        if row[0] != FromEngine.SHARE:
            before(growing, row)

    before = restore._grow
    patch.setattr(restore, "_grow", grow)


def ends_of_samples_are_not_recorded(patch: Patch) -> None:
    """A sample that ended before its ticket goes on when its engine was lost."""
    patch.setattr(step_rows, "left", lambda _: [])


def lineage_without_copies(patch: Patch) -> None:
    """What was copied is not made again."""

    def needs(self: Lineage, row: Any, prefilled: bool) -> int:
        return 0 if row[0] == FromEngine.COPY else before(self, row, prefilled)

    before = Lineage._needs
    patch.setattr(Lineage, "_needs", needs)


PLANS = [
    moves_without_bytes,
    copies_without_bytes,
    generated_tokens_are_shared,
    copies_behind_generated_tokens,
    one_token_is_shared,
    prefixes_are_not_compared,
    every_sample_goes_on_with_the_conversation,
]
RECOVERIES = [
    moves_are_not_followed,
    shares_are_not_read,
    ends_of_samples_are_not_recorded,
    lineage_without_copies,
]


DEATHS = [copies_are_done_twice, copies_count_before_they_are_done]


def exchanges(seed: int, _: int) -> None:
    """Conversations that change places all the time, while those who copy them die."""
    rng = random.Random(seed)
    play = Play(ModelLimits(2, 64, 1, 3, True), lambda: rng.randrange(6))
    for ticket in range(1, 60):
        conversation = rng.randrange(5)
        prompt = tuple(range(conversation * 100, conversation * 100 + 8 + ticket % 9))
        play.offer(Request(ticket, ticket // 2, 0, (conversation, ""), prompt, 1))
    play.run()


def is_red(run: Callable[[int, int], object], seed: int) -> bool:
    try:
        run(seed, 1)
    except (AssertionError, LockstepError, KeyError, AttributeError):
        return True
    return False


@pytest.mark.parametrize("mutant", PLANS, ids=lambda mutant: mutant.__name__)
def test_a_plan_that_breaks_a_rule_of_reuse_turns_red(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert any(is_red(simulate, seed) for seed in range(FLEETS)), mutant.__doc__


@pytest.mark.parametrize("mutant", RECOVERIES, ids=lambda mutant: mutant.__name__)
def test_a_recovery_that_breaks_a_rule_of_reuse_turns_red(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert any(is_red(survive, seed) for seed in range(FLEETS)), mutant.__doc__


@pytest.mark.parametrize("mutant", DEATHS, ids=lambda mutant: mutant.__name__)
def test_a_step_broken_off_and_run_again_without_its_rules_turns_red(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(is_red(exchanges, seed) for seed in range(20))
    mutant(monkeypatch)
    assert any(is_red(exchanges, seed) for seed in range(20)), mutant.__doc__


def test_rows_that_wait_for_later_ones_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows with one beginning: without an order, each waits for the other."""

    def served() -> bool:
        one = Planner([ModelLimits(2, 8, prefix_copies=True)], 8)
        for ticket in (1, 2):
            one.offer(Request(ticket, 0, 0, (ticket, ""), tuple(range(30)), 1))
        return any(c.last for step in range(50) for c in one.plan(step).models[0].chunks)

    def promised(slots: Slots, row: Row, _: Sequence[Row]) -> int:
        return before(slots, row, [s.row for s in slots.all if s.row not in (None, row)])

    assert served()
    before = prefix._promised
    monkeypatch.setattr(prefix, "_promised", promised)
    assert not served()
