"""The inference process's body: real model, real planner, the rings played by lists."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine.fleet import Model
from lockstep.engine.record import FLAG_ERROR, FLAG_RAW, Kind, encode
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

ROWS = 3


class Idle(Exception):
    """The server waits: everything it was given is done."""


class Line:
    """Plays the inference process's end of the rings."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._records = b""
        self._assembler = StepAssembler()
        self.steps: list[StepReport] = []
        self.slots: list[tuple[int, ...]] = []

    def ticket(
        self, number: int, due: int, record: bytes, agent: int = 0, ordinal: int | None = None
    ) -> None:
        place = number if ordinal is None else ordinal
        self._rows.append((ToEngine.TICKET, agent, number, due, place))
        self._records += record

    def cancel(self, number: int, due: int) -> None:
        self._rows.append((ToEngine.CANCEL, 0, number, due, 0))

    def drain(self) -> tuple[Slots, bytes]:
        # A grant without a horizon, knowing everything: the tests are the only sequencer.
        rows = [*self._rows, (ToEngine.GRANT, 0, 0, 2**40, 2**40)]
        data, self._rows, self._records = self._records, [], b""
        return np.array(rows, dtype=TICKET_SLOT), data

    def wait(self) -> None:
        raise Idle

    def report(self, slots: Slots, records: bytes) -> None:
        self.slots += slots.tolist()
        self.steps += self._assembler.feed(slots, records)


Ask = Callable[..., dict[int, Any]]


@pytest.fixture
def loaded(fp32: Path) -> Iterator[LoadedModel]:
    model = LoadedModel(settings(str(fp32)), "2000-01-01T00:00:00Z")
    yield model
    model.decoder.close()


def settings(path: str) -> Model:
    return Model("tiny", path, ("cpu",), "", 1, ROWS, 96, 16, 1)


class Host:
    """A server over one line; `go` serves until it has nothing to do."""

    def __init__(self, model: LoadedModel, record_bytes_max: int = 65_536) -> None:
        self.line = Line()
        spec = InferenceSpec(
            models=(settings("x"),),
            agent_names=("ann", "ben"),
            seed=5,
            frozen_date="2000-01-01T00:00:00Z",
            lookahead=1,
            priority_steps=8,
            record_bytes_max=record_bytes_max,
        )
        self._server = Server(spec, [model], self.line, None)  # type: ignore[arg-type]

    def go(self) -> dict[int, tuple[int, bytes]]:
        """(status, payload) by ticket."""
        with pytest.raises(Idle):
            self._server.serve()
        return {
            answer.ticket: (answer.status, answer.record[32:])
            for step in self.line.steps
            for answer in step.answers
        }

    def hits(self) -> dict[int, int]:
        """Prefix hit by ticket."""
        return {row[3]: row[4] for row in self.line.slots if row[0] == FromEngine.ADMIT}


def infer(id: int = 1, item: int = 1, **fields: object) -> bytes:
    """A JSON INFER."""
    return encode(Kind.INFER, json.dumps(fields).encode(), id=id, item=item, peer=0)


def said(answer: tuple[int, bytes]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer[1].rstrip(b"\0"))
    return value


def test_an_answer_has_what_the_interface_promises(loaded: LoadedModel) -> None:
    host = Host(loaded)
    host.line.ticket(1, 4, infer(prompt="hello there", max_tokens=5))
    answer = said(host.go()[1])
    assert answer["finish_reason"] == "length" and len(answer["token_ids"]) == 5
    assert answer["usage"]["prompt_tokens"] == len(loaded.text.encode("hello there"))
    assert (answer["ticket"], answer["step"]) == (1, host.line.steps[-1].step)
    assert host.line.steps[0].step == 4  # An idle engine jumps to the smallest due.


def test_a_conversation_finds_its_prefix_and_says_what_it_says_without_it(
    loaded: LoadedModel,
) -> None:
    first = "The quick brown fox jumps over the lazy dog"
    host = Host(loaded)
    host.line.ticket(1, 0, infer(prompt=first, max_tokens=6, conversation="c"))
    text = said(host.go()[1])["text"]
    longer = first + text + " and then some"
    host.line.ticket(2, 50, infer(prompt=longer, max_tokens=6, conversation="c"))
    host.line.ticket(3, 90, infer(prompt=longer, max_tokens=6, conversation="other"))
    answers = host.go()
    assert host.hits()[2] >= len(loaded.text.encode(first)) - 2 and host.hits()[3] == 0
    assert said(answers[2])["usage"]["cached_tokens"] == host.hits()[2]
    assert said(answers[2])["token_ids"] == said(answers[3])["token_ids"]


def test_an_item_is_a_conversation_unless_the_request_names_one(loaded: LoadedModel) -> None:
    host = Host(loaded)
    prompt = "one two three four five"
    for number, item in enumerate((1, 1, 2), 1):
        host.line.ticket(number, number * 20, infer(item=item, prompt=prompt, max_tokens=2))
        host.go()
    assert [host.hits()[n] > 0 for n in (1, 2, 3)] == [False, True, False]


def test_more_conversations_than_slots_evict_the_longest_unused(loaded: LoadedModel) -> None:
    host = Host(loaded)
    for number in range(1, ROWS + 2):
        name = f"c{number}"
        host.line.ticket(
            number, number * 20, infer(prompt="abc def", max_tokens=2, conversation=name)
        )
        host.go()
    evicted = [row for row in host.line.slots if row[0] == FromEngine.EVICT]
    assert len(evicted) == 1 and evicted[0][2] == 0


def test_a_sampled_answer_depends_on_agent_and_ordinal_not_on_ticket_or_row(
    loaded: LoadedModel,
) -> None:
    ask = infer(prompt="hello", max_tokens=8, temperature=1.5)
    alone = Host(loaded)
    alone.line.ticket(1, 0, ask, agent=1, ordinal=0)
    wanted = said(alone.go()[1])["token_ids"]
    crowd = Host(loaded)
    for number in range(1, 4):
        crowd.line.ticket(number, 0, infer(prompt=f"x {number}", max_tokens=9), agent=0)
    crowd.line.ticket(9, 1, ask, agent=1, ordinal=0)
    crowd.line.ticket(10, 1, ask, agent=1, ordinal=1)
    answers = crowd.go()
    assert said(answers[9])["token_ids"] == wanted
    assert said(answers[10])["token_ids"] != wanted


def test_a_seed_of_the_request_takes_the_place_of_the_runs(loaded: LoadedModel) -> None:
    host = Host(loaded)
    for number, seed in enumerate((1, 1, 2), 1):
        record = infer(prompt="hello", max_tokens=8, temperature=1.5, seed=seed)
        host.line.ticket(number, 0, record, ordinal=0)
    tokens = [said(answer)["token_ids"] for answer in host.go().values()]
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a", "max_tokens": 200}, "1 tokens and max_tokens = 200 are 201"),
        ({"prompt": ""}, "prompt: empty"),
        ({"prompt": "a", "max_token": 5}, "did you mean 'max_tokens'"),
        ({"prompt": "a", "model": "tinny"}, "\"tinny\" is not in the fleet; did you mean 'tiny'"),
        ({"prompt": "word " * 200}, "the model is set to at most 96"),
    ],
)
def test_what_cannot_be_served_is_refused_alone(
    loaded: LoadedModel, fields: dict[str, object], message: str
) -> None:
    host = Host(loaded)
    host.line.ticket(1, 0, infer(**fields))
    host.line.ticket(2, 0, infer(prompt="fine", max_tokens=2))
    answers = host.go()
    assert answers[1][0] == 2 and message in said(answers[1])["error"]
    assert answers[2][0] == 1
    assert host.line.steps[0].answers[0].ticket == 1  # At the boundary of its due step.


def test_a_refusal_never_outgrows_its_record(loaded: LoadedModel) -> None:
    host = Host(loaded, record_bytes_max=1024)
    host.line.ticket(1, 0, infer(prompt="a", model="\x7f" * 256))
    (step,) = [(host.go(), host.line.steps[0])[1]]
    assert step.answers[0].status == 2 and len(step.answers[0].record) <= 1024


def test_an_answer_too_large_for_a_record_is_refused_in_slot_and_record(
    loaded: LoadedModel,
) -> None:
    host = Host(loaded, record_bytes_max=256)
    host.line.ticket(1, 0, infer(prompt="a", max_tokens=80))
    status, payload = host.go()[1]
    assert status == 2 and b"record_bytes_max" in payload


def test_a_cancelled_request_is_answered_as_cancelled(loaded: LoadedModel) -> None:
    host = Host(loaded)
    host.line.ticket(1, 0, infer(prompt="hello", max_tokens=40))
    host.line.cancel(1, 6)
    status, _ = host.go()[1]
    (answer,) = host.line.steps[-1].answers
    kind, flags = struct.unpack_from("<HH", answer.record, 4)
    assert (status, kind, flags, host.line.steps[-1].step) == (4, Kind.CANCELLED, FLAG_ERROR, 6)


def test_a_time_out_ends_a_request_so_many_steps_after_it_was_due(loaded: LoadedModel) -> None:
    host = Host(loaded)
    host.line.ticket(1, 2, infer(prompt="hello", max_tokens=40, timeout_steps=5))
    assert host.go()[1][0] == 5
    assert host.line.steps[-1].step == 7


def test_the_binary_form_is_answered_in_binary(loaded: LoadedModel) -> None:
    host = Host(loaded)
    payload = struct.pack("<IfIIQ", 3, 0.0, 0, 0, 0) + b"hello"
    host.line.ticket(1, 0, encode(Kind.INFER, payload, flags=FLAG_RAW, id=4, item=2, peer=0))
    status, data = host.go()[1]
    head = struct.unpack_from("<IIIIQQ", data)
    assert (status, head[0], head[2], head[4]) == (1, 1, 3, 1)


def test_a_row_that_is_not_finite_fails_and_the_others_are_served(loaded: LoadedModel) -> None:
    host = Host(loaded)
    rows = loaded.decoder.rows

    def poisoned(*given: Any) -> list[tuple[int, Any]]:
        return [(s, np.full_like(row, np.nan) if s == 0 else row) for s, row in rows(*given)]

    loaded.decoder.rows = poisoned  # type: ignore[method-assign]
    host.line.ticket(1, 0, infer(prompt="hello", max_tokens=3))
    host.line.ticket(2, 0, infer(prompt="hello", max_tokens=3))
    answers = host.go()
    assert answers[1][0] == 3 and "NaN or Inf" in said(answers[1])["error"]
    assert answers[2][0] == 1


def test_a_stop_string_ends_a_request_in_the_step_that_completes_it(loaded: LoadedModel) -> None:
    whole = Host(loaded)
    whole.line.ticket(1, 0, infer(prompt="hello", max_tokens=20))
    answer = said(whole.go()[1])
    text = answer["text"]
    middle = text[len(text) // 2 : len(text) // 2 + 3]
    host = Host(loaded)
    host.line.ticket(1, 0, infer(prompt="hello", max_tokens=20, stop=["no such", middle]))
    status, payload = host.go()[1]
    cut = said((status, payload))
    assert (status, cut["finish_reason"], cut["stop_reason"]) == (0, "stop", middle)
    assert cut["text"] == text[: text.index(middle)]
    count = len(cut["token_ids"])
    assert cut["token_ids"] == answer["token_ids"][:count] and count < 20
    assert middle in loaded.text.decode(cut["token_ids"])
    assert host.line.steps[-1].step == count - 1


def test_log_probabilities_are_in_the_record_of_the_step_that_drew_the_token(
    loaded: LoadedModel,
) -> None:
    host = Host(loaded)
    host.line.ticket(1, 0, infer(prompt="hello", max_tokens=4, logprobs=3))
    host.line.ticket(2, 0, infer(prompt="hello", max_tokens=4))
    answers = host.go()
    entries = said(answers[1])["logprobs"]
    rows = [row for row in host.line.slots if row[0] == FromEngine.SCORE]
    shown = [
        [(e["token_id"], e["logprob"]), *((t["token_id"], t["logprob"]) for t in e["top_logprobs"])]
        for e in entries
    ]
    assert [(row[3], row[2]) for row in rows] == [(1, n) for n in range(4) for _ in range(4)]
    assert [[(r[4], r[5] / 10_000) for r in rows[n * 4 : n * 4 + 4]] for n in range(4)] == shown
    # Greedy: what was drawn is the likeliest.
    assert all(entry[0] == entry[1] for entry in shown)
    assert said(answers[1])["token_ids"] == said(answers[2])["token_ids"]
