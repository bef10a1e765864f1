"""Recorded steps executed again on a real model: the same keys, values and tokens, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rings import ROWS, SPEC, requests, serve

from lockstep.engine.errors import Diverged, ModelRejected
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.past import Past
from lockstep.engine.plan import Copy
from lockstep.engine.record import Kind, encode
from lockstep.engine.restore import restore
from lockstep.engine.restored import Restored
from lockstep.engine.wire import RESULT_SLOT, FromEngine
from lockstep.workers.inference.loaded import LoadedModel

FLEET: Any = SimpleNamespace(models=SPEC.models, schedule=SimpleNamespace(order="strict"))


def past_of(asked: list[tuple[int, int, int, bytes]], steps: dict[int, bytes]) -> Past:
    entries = []
    for ticket, agent, due, record in asked:
        payload = TICKET_PAYLOAD.pack(due, ticket, ticket)
        body = encode(Kind.TAG) + encode(Kind.EFFECT, record, peer=agent)
        entries.append(body + encode(Kind.TICKET, payload, id=ticket, peer=agent))
    entries += [encode(Kind.STEP, body, id=step) for step, body in steps.items()]
    return Past(entries)


Load = Callable[[], LoadedModel]


@pytest.fixture
def load(any_model: Path) -> Iterator[Load]:
    made: list[LoadedModel] = []

    def one() -> LoadedModel:
        settings = replace(SPEC.models[0], path=str(any_model))
        made.append(LoadedModel(settings, SPEC.frozen_date))
        return made[-1]

    yield one
    for model in made:
        model.decoder.close()


@pytest.mark.parametrize("cut", [8, 11, 18, 27, 40])
def test_slots_are_made_again_to_the_bit_and_the_run_goes_on(load: Load, cut: int) -> None:
    asked = requests(1)
    whole = serve(load(), 10_000, asked=asked).steps
    before = load()
    steps = serve(before, cut, asked=asked).steps
    past = restore(past_of(asked, steps), FLEET)
    assert past.again and past.last_step == cut - 1
    notes: list[str] = []
    after = load()
    again = serve(after, cut, restored=past, note=notes.append)
    assert not again.steps and len(notes) == 1 and "recorded steps again" in notes[0]
    _same_bits(past, before, after)
    then = serve(load(), 10_000, restored=past).steps
    assert steps | then == whole


def test_what_a_row_copied_is_not_counted_as_computed_by_who_takes_over(load: Load) -> None:
    asked = requests(3)
    whole = serve(load(), 10_000, asked=asked).steps
    before = {step: body for step, body in whole.items() if step < 37}
    past = restore(past_of(asked, before), FLEET)
    assert any(kept.computed < kept.filled - kept.hit for kept in past.kept)
    assert before | serve(load(), 10_000, restored=past).steps == whole


def _same_bits(past: Restored, before: LoadedModel, after: LoadedModel) -> None:
    left, right = before.decoder.slab, after.decoder.slab
    assert past.kept
    for kept in past.kept:
        length = kept.filled + max(0, len(kept.tokens) - 1)
        wanted = left.tokens(kept.slot, 0, length)
        assert np.array_equal(right.tokens(kept.slot, 0, length), wanted)


def test_the_requests_have_chunks_hits_evictions_and_copies(load: Load) -> None:
    steps = serve(load(), 10_000, asked=requests(1)).steps
    rows = [row for body in steps.values() for row in _rows(body)]
    ops = Counter(row[0] for row in rows)
    assert ops[FromEngine.COPY] > 1 and ops[FromEngine.MOVE] > 2
    cut = restore(past_of(requests(1), {n: body for n, body in steps.items() if n < 27}), FLEET)
    assert any(again.copies for again in cut.again)
    assert any(kept.slot >= ROWS for kept in cut.kept)
    assert any(row[0] == FromEngine.CHUNK and row[4] > 0 for row in rows)
    assert any(row[0] == FromEngine.ADMIT and row[4] > 0 for row in rows)
    assert any(row[0] == FromEngine.EVICT for row in rows)
    assert any(row[0] == FromEngine.SCORE for row in rows)


def _rows(body: bytes) -> Iterator[tuple[int, ...]]:
    for row in np.frombuffer(body[: len(body) // 32 * 32], RESULT_SLOT).tolist():
        if row[0] == FromEngine.STEP:
            return
        yield row


def test_copies_of_the_step_that_was_under_way_are_lost_with_all_the_rest(load: Load) -> None:
    asked = requests(1)
    whole = serve(load(), 10_000, asked=asked).steps
    moved = (step for step, body in whole.items() if step > 8 and _copies(body) > 0)
    for cut in islice(moved, 3):
        steps = {step: body for step, body in whole.items() if step < cut}
        model = load()
        nothing = Copy(0, 1, 0, 0, move=True)
        model.decoder.copies.run(cut, [nothing] * _copies(whole[cut]))  # As it had done them.
        again = serve(model, 10_000, restored=restore(past_of(asked, steps), FLEET))
        assert steps | again.steps == whole


def _copies(body: bytes) -> int:
    return sum(row[0] in (FromEngine.COPY, FromEngine.MOVE) for row in _rows(body))


def test_a_token_that_is_not_the_recorded_one_is_never_forced(load: Load) -> None:
    asked = requests(1)
    past = restore(past_of(asked, serve(load(), 20, asked=asked).steps), FLEET)
    at, said = next((n, again.said) for n, again in enumerate(past.again) if again.said)
    slot, (ticket, _, place, token) = next(iter(said.items()))
    forged = replace(past.again[at], said={slot: said[slot]._replace(token=token + 1)})
    wrong = replace(past, again=(*past.again[:at], forged, *past.again[at + 1 :]))
    with pytest.raises(Diverged) as caught:
        serve(load(), 20, restored=wrong)
    assert str(caught.value) == (
        f"step {forged.step}, ticket {ticket}: token {place} of the answer is {token} when "
        f"computed again, recorded is {token + 1}"
    )


def test_steps_before_a_fork_are_compared_with_the_seed_they_had(load: Load) -> None:
    asked = requests(1)
    past = restore(past_of(asked, serve(load(), 20, asked=asked).steps), FLEET)
    forked = replace(SPEC, seed=6)
    with pytest.raises(Diverged):
        serve(load(), 20, forked, restored=past)
    serve(load(), 20, replace(forked, past_seeds=((20, 5),)), restored=past)


def test_a_model_is_the_one_it_was_or_refused(copy: Path) -> None:
    settings = replace(SPEC.models[0], path=str(copy))
    first = LoadedModel(settings, SPEC.frozen_date)
    first.decoder.close()
    LoadedModel(settings, SPEC.frozen_date, files=first.identity).decoder.close()
    config = copy / "tokenizer_config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ModelRejected, match=r"tokenizer_config.json was changed .* -> .* \(sha256"):
        LoadedModel(settings, SPEC.frozen_date, files=first.identity)
