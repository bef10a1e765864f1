"""Copies of a step, each done once, however often the process dies in between."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import LockstepBug
from lockstep.engine.plan import Copy
from lockstep.workers.inference import slab_file
from lockstep.workers.inference.copies import COPIES_MAX, Copies
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.model import ModelFolder

ROWS, KEPT, TOKENS = 3, 2, 8
SLOTS = ROWS + KEPT


@pytest.fixture(scope="module")
def facts() -> Any:
    folder = ModelFolder.open(Path(__file__).parents[2] / "data/genai-micro-fp32")
    folder.close()
    return folder.facts


@pytest.fixture
def slab(facts: Any) -> Iterator[KvSlab]:
    made = KvSlab(facts, ROWS, TOKENS, kept=KEPT)
    fill(made)
    yield made
    made.close()


def fill(slab: KvSlab) -> None:
    """Every number in it another one."""
    for slot in range(SLOTS):
        view = slab.tokens(slot, 0, TOKENS)
        view[:] = (np.arange(view.size) + slot * view.size).reshape(view.shape)


def content(slab: KvSlab) -> list[bytes]:
    return [slab.tokens(slot, 0, TOKENS).tobytes() for slot in range(SLOTS)]


def exchange(start: int = 0) -> list[Copy]:
    """Slots 0 and 1 change places over slot 4: the last copy's source was overwritten before."""
    pairs = [(0, 4), (1, 0), (4, 1)]
    return [Copy(source, slot, start, TOKENS - start) for source, slot in pairs]


copies = st.builds(
    Copy,
    source=st.integers(0, SLOTS - 1),
    slot=st.integers(0, SLOTS - 1),
    start=st.integers(0, TOKENS - 1),
    count=st.integers(1, TOKENS),
).filter(lambda copy: copy.source != copy.slot and copy.start + copy.count <= TOKENS)


@given(plan=st.lists(copies, max_size=6))
def test_copies_are_done_in_order_and_touch_nothing_else(facts: Any, plan: list[Copy]) -> None:
    slab = KvSlab(facts, ROWS, TOKENS, kept=KEPT)
    fill(slab)
    model = [slab.tokens(slot, 0, TOKENS).copy() for slot in range(SLOTS)]
    Copies(slab).run(7, plan)
    for copy in plan:
        part = slice(copy.start, copy.start + copy.count)
        model[copy.slot][:, :, :, part] = model[copy.source][:, :, :, part]
    assert content(slab) == [each.tobytes() for each in model]


@pytest.mark.parametrize("dies_at", range(3))
@pytest.mark.parametrize("half_done", [False, True])
def test_a_step_that_was_cut_off_goes_on_behind_its_last_copy(
    slab: KvSlab, monkeypatch: pytest.MonkeyPatch, dies_at: int, half_done: bool
) -> None:
    first, second, *_ = content(slab)
    word = memoryview(bytearray(8)).cast("Q")
    real, done = slab.copy, [0]

    class Died(Exception):
        """In the middle."""

    def dying(source: int, slot: int, start: int, count: int) -> None:
        if done[0] == dies_at:
            if half_done:
                real(source, slot, start, count // 2)
            raise Died
        done[0] += 1
        real(source, slot, start, count)

    monkeypatch.setattr(slab, "copy", dying)
    with pytest.raises(Died):
        Copies(slab, word).run(5, exchange())
    monkeypatch.setattr(slab, "copy", real)
    again = Copies(slab, word)
    assert again.done(5) == dies_at
    again.run(5, exchange())
    again.run(5, exchange())  # Died once more, behind them all.
    assert content(slab)[:2] == [second, first]


def test_beginning_such_a_step_anew_would_lose_a_row(slab: KvSlab) -> None:
    first, second, *_ = content(slab)
    Copies(slab).run(5, exchange()[:2])
    Copies(slab).run(5, exchange())  # Its word is not the first one's.
    assert content(slab)[:2] != [second, first]


@pytest.mark.parametrize("seed", range(4))
def test_killed_between_real_copies_the_next_process_ends_what_was_begun(
    facts: Any, seed: int
) -> None:
    chance = random.Random(seed)
    plan = exchange() * 40
    descriptor = slab_file.create("copies")
    slots = KvSlab.bytes_needed(facts, SLOTS, TOKENS)
    slab, word = mapped(facts, descriptor, slots)
    fill(slab)
    before = content(slab)
    dies_at = chance.randrange(1, len(plan))
    pid = os.fork()
    if pid == 0:
        own, its_word = mapped(facts, descriptor, slots)
        real, count = own.copy, [0]

        def dying(*arguments: int) -> None:
            count[0] += 1
            if count[0] == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*arguments)

        own.copy = dying  # type: ignore[method-assign]
        Copies(own, its_word).run(3, plan)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    Copies(slab, word).run(3, plan)
    assert content(slab)[:2] == before[:2]  # 40 exchanges.
    os.close(descriptor)


def mapped(facts: Any, descriptor: int, slots: int) -> tuple[KvSlab, memoryview]:
    word, memory = slab_file.mapped(descriptor, slots)
    return KvSlab(facts, ROWS, TOKENS, buffer=memory, kept=KEPT), word


def test_the_word_of_another_step_says_nothing(slab: KvSlab) -> None:
    made = Copies(slab)
    made.run(8, exchange())
    assert [made.done(step) for step in (7, 8, 9)] == [0, 3, 0]
    made.run(None, exchange())
    assert made.done(8) == 3
    made.forget()
    assert made.done(8) == 0
    made.run(2**48, [])
    assert made.done(2**48) == 0
    made.run(2**48, exchange())
    assert made.done(2**48) == 3


def test_more_copies_than_can_be_counted_are_refused_before_the_first(slab: KvSlab) -> None:
    before = content(slab)
    with pytest.raises(LockstepBug, match=f"{COPIES_MAX + 1} copies"):
        Copies(slab).run(1, [Copy(0, 1, 0, 1)] * (COPIES_MAX + 1))
    assert content(slab) == before
