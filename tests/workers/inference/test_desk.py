"""The desk: rows of tickets in any order and company, their tokens, their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.engine.errors import LockstepBug
from lockstep.engine.fleet import Model
from lockstep.engine.plan import Ended, Outcome, Request
from lockstep.engine.record import FLAG_ERROR, HEADER_BYTES, Kind, Record, decode_at
from lockstep.engine.restored import ACTIVE, Kept, Score
from lockstep.engine.version import ANSWERS, LOGIC_FLAGS, PROPOSALS
from lockstep.engine.wire import FromEngine
from lockstep.workers.inference import logprobs, sampler
from lockstep.workers.inference.desk import Desk
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.inference.text import NO_MESSAGES

Row = np.ndarray[Any, np.dtype[np.float32]]
VOCAB = 512
EOS = 2
MODEL = Model("tiny", "", ("cpu",), "", 1, 3, 96, 16, 1)
SPEC = InferenceSpec(
    models=(MODEL,),
    agent_names=("ann", "ben"),
    seed=5,
    frozen_date="2000-01-01T00:00:00Z",
    lookahead=1,
    priority_steps=8,
    record_bytes_max=65_536,
)
relaxed = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def model() -> Iterator[LoadedModel]:
    path = Path(__file__).parents[2] / "data" / "genai-micro-fp32"
    loaded = LoadedModel(replace(MODEL, path=str(path)), SPEC.frozen_date)
    yield loaded
    loaded.decoder.close()


def logits_of(seed: int, scale: float = 3.0) -> Row:
    return (np.random.default_rng(seed).normal(size=VOCAB) * scale).astype(np.float32)


def only(token: int) -> Row:
    """Logits that leave no doubt."""
    row = np.zeros(VOCAB, np.float32)
    row[token] = 50.0
    return row


def ask(desk: Desk, ticket: int, agent: int = 0, **fields: object) -> Request:
    payload = json.dumps({"prompt": "hello there", "max_tokens": 6, **fields}).encode()
    record = Record(Kind.INFER, 0, ticket, 1, 0, payload)
    request = desk.take(record, ticket, agent, 0, 7)
    for sample in range(request.samples if not request.refusal else 0):
        desk.admitted(ticket, sample, 0)
        desk.computed(ticket, len(request.prompt) if sample == 0 else 0)
    return request


def answered(desk: Desk, ticket: int, reason: str = "length") -> dict[str, Any]:
    _, _, data = desk.answer(9, Ended(ticket, reason, "why"))
    record, _ = decode_at(data, 0)
    found: dict[str, Any] = json.loads(record.payload)
    assert bool(record.flags & FLAG_ERROR) == ("error" in found)
    return found


def test_rows_in_any_order_and_company_get_the_tokens_they_get_alone(model: LoadedModel) -> None:
    asks: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1.5, "n": 3},
        {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3, "presence_penalty": 0.5},
        {"temperature": 1, "top_k": 20, "min_p": 0.05, "agent": 1, "seed": 3},
        {"temperature": 1, "top_k": 20, "frequency_penalty": 1.0, "logprobs": 2},
    ]
    alone: dict[tuple[int, int], list[int | None]] = {}
    for ticket, fields in enumerate(asks, 1):
        for sample in range(fields.get("n", 1)):
            desk = Desk(SPEC, [model])
            ask(desk, ticket, **fields)
            rows = [(ticket, sample, logits_of(100 * ticket + 10 * sample + n)) for n in range(6)]
            alone[ticket, sample] = [desk.draw([row])[0].token for row in rows]
    together = Desk(SPEC, [model])
    for ticket, fields in enumerate(asks, 1):
        ask(together, ticket, **fields)
    found: dict[tuple[int, int], list[int | None]] = {key: [] for key in alone}
    order = np.random.default_rng(3)
    for n in range(6):
        keys = [list(alone)[i] for i in order.permutation(len(alone))]
        outcomes = together.draw([(t, s, logits_of(100 * t + 10 * s + n)) for t, s in keys])
        for key, outcome in zip(keys, outcomes, strict=True):
            found[key].append(outcome.token)
    assert found == alone
    assert len({tuple(found[2, sample]) for sample in range(3)}) == 3


def test_a_ticket_or_a_row_changes_no_draw_but_agent_ordinal_and_sample_do(
    model: LoadedModel,
) -> None:
    logits = logits_of(1)
    desk = Desk(SPEC, [model])
    for ticket, agent in ((1, 0), (2, 0), (3, 1)):
        ask(desk, ticket, agent, temperature=8.0, n=2)
    first = [desk.draw([(ticket, 0, logits)])[0].token for ticket in (1, 2, 3)]
    second = [desk.draw([(ticket, 1, logits)])[0].token for ticket in (1, 2)]
    assert first[0] == first[1] != first[2]
    assert second[0] == second[1] != first[0]
    for ticket, ordinal in ((4, 7), (5, 8)):  # In place of the agent's own, which is 7.
        ask(desk, ticket, temperature=8.0, n=2, ordinal=ordinal)
    named = [desk.draw([(ticket, 0, logits)])[0].token for ticket in (4, 5)]
    assert named[0] == first[0] != named[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fields", [{}, {"temperature": 1}, {"top_k": 3, "temperature": 1}])
def test_a_row_that_is_not_finite_says_so_and_the_others_go_on(
    model: LoadedModel, value: float, fields: dict[str, Any]
) -> None:
    desk = Desk(SPEC, [model])
    ask(desk, 1, **fields)
    ask(desk, 2, **fields)
    bad = logits_of(1)
    bad[300] = value
    outcomes = desk.draw([(1, 0, bad), (2, 0, only(9))])
    assert outcomes == [Outcome(None), Outcome(9)]


def test_samples_are_answered_together_each_with_its_own_end(model: LoadedModel) -> None:
    desk = Desk(SPEC, [model])
    request = ask(desk, 1, n=3, stop=["b"], stop_token_ids=[90], max_tokens=2)
    assert (request.samples, request.stop) == (3, frozenset({EOS, 90}))
    a, b = model.text.encode("a")[0], model.text.encode("b")[0]
    assert desk.draw([(1, s, only(a)) for s in (0, 1, 2)]) == [Outcome(a)] * 3
    ends = desk.draw([(1, 0, only(b)), (1, 2, only(90)), (1, 1, only(a))])
    assert ends == [Outcome(b, True), Outcome(90, True), Outcome(a)]
    found = answered(desk, 1)
    ends_of = [
        (c["index"], c["text"], c["token_ids"], c["finish_reason"], c["stop_reason"])
        for c in found["choices"]
    ]
    assert ends_of == [
        (0, "a", [a, b], "stop", "b"),
        (1, "aa", [a, a], "length", None),
        (2, "a", [a, 90], "stop", 90),
    ]
    assert found["usage"]["completion_tokens"] == 6
    assert found["sampling"]["n"] == 3


def test_a_stop_string_ends_a_row_across_tokens_and_in_the_last_ones_tail(
    model: LoadedModel,
) -> None:
    half = model.text.encode("é")
    assert len(half) == 2
    desk = Desk(SPEC, [model])
    ask(desk, 1, stop=["é"], max_tokens=2)
    assert desk.draw([(1, 0, only(half[0]))]) == [Outcome(half[0])]
    assert desk.draw([(1, 0, only(half[1]))]) == [Outcome(half[1], True)]
    found = answered(desk, 1, "stop")
    assert (found["text"], found["token_ids"], found["stop_reason"]) == ("", half, "é")
    # What is cut off by the limit in the middle of a character is text, too.
    ask(desk, 2, stop=["\ufffd"], max_tokens=1)
    assert desk.draw([(2, 0, only(half[0]))]) == [Outcome(half[0], True)]
    assert answered(desk, 2, "stop")["text"] == ""


def test_the_models_own_end_is_named_only_where_the_request_named_it(model: LoadedModel) -> None:
    desk = Desk(SPEC, [model])
    ask(desk, 1)
    ask(desk, 2, stop_token_ids=[EOS])
    ask(desk, 3, ignore_eos=True)
    drawn = desk.draw([(ticket, 0, only(EOS)) for ticket in (1, 2, 3)])
    assert [outcome.stop for outcome in drawn] == [True, True, False]
    assert [answered(desk, t, "stop")["stop_reason"] for t in (1, 2)] == [None, EOS]


def test_nothing_ends_a_row_below_its_least_number_of_tokens(model: LoadedModel) -> None:
    desk = Desk(SPEC, [model])
    a = model.text.encode("a")[0]
    ask(desk, 1, min_tokens=2, stop=["aa"])
    ends = only(EOS)
    ends[a] = 49.0
    drawn = [desk.draw([(1, 0, ends)])[0] for _ in range(3)]
    assert drawn == [Outcome(a), Outcome(a), Outcome(EOS, True)]
    ask(desk, 2, min_tokens=2, stop=["aa"], ignore_eos=True)
    drawn = [desk.draw([(2, 0, only(a))])[0] for _ in range(3)]
    assert [outcome.stop for outcome in drawn] == [False, False, True]
    assert answered(desk, 2, "stop")["text"] == "a"


def test_scores_are_said_once_and_answered_in_order(model: LoadedModel) -> None:
    desk = Desk(SPEC, [model])
    ask(desk, 1, logprobs=True, top_logprobs=2, temperature=1.0, n=2, max_tokens=2)
    ask(desk, 2, max_tokens=1)
    desk.draw([(2, 0, only(3)), (1, 1, logits_of(4)), (1, 0, only(8))])
    rows = desk.scores()
    assert [row[:4] for row in rows] == [(FromEngine.SCORE, 1, 0, 1)] * 3 + [
        (FromEngine.SCORE, 0, 0, 1)
    ] * 3
    assert rows[3][4:] == (8, 0) and not desk.scores()
    desk.draw([(1, 0, only(9)), (1, 1, only(EOS))])
    assert [row[1:5] for row in desk.scores()] == [
        (0, 1, 1, 9), (0, 1, 1, 9), (0, 1, 1, 0), (1, 1, 1, EOS), (1, 1, 1, EOS), (1, 1, 1, 0),
    ]  # fmt: skip
    choices = answered(desk, 1)["choices"]
    assert [entry["token_id"] for entry in choices[0]["logprobs"]] == [8, 9]
    text, data = model.text.named(8)
    assert choices[0]["logprobs"][0]["top_logprobs"][0] == {
        "token_id": 8, "token": text, "bytes": list(data), "logprob": 0.0,
    }  # fmt: skip
    assert choices[1]["logprobs"][0]["logprob"] == rows[0][5] / 10_000
    assert "logprobs" not in answered(desk, 2)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 1.2]),
        "repetition_penalty": st.just(1.4),
        "frequency_penalty": st.just(0.7),
        "top_p": st.just(0.9),
        "stop": st.sampled_from([["e"], ["th", "é"]]),
        "stop_token_ids": st.just(list(range(100, 130))),
        "min_tokens": st.just(3),
        "logprobs": st.sampled_from([0, 2]),
        "n": st.integers(1, 3),
        "max_tokens": st.just(8),
        "ignore_eos": st.just(True),
    },
)


@relaxed
@given(FIELDS, st.integers(0, 8), st.integers(0, 2**32))
def test_a_desk_that_takes_over_goes_on_as_the_first_would_have(
    model: LoadedModel, fields: dict[str, Any], cut: int, seed: int
) -> None:
    whole, first = Desk(SPEC, [model]), Desk(SPEC, [model])
    request = ask(whole, 4, **fields)
    ask(first, 4, **fields)
    ended: dict[int, None] = {}
    tokens: dict[int, list[int]] = {sample: [] for sample in range(request.samples)}
    desk, scored = first, []
    for step in range(request.tokens_out_max):
        if step == cut:  # Its process dies; what the record has is all that is left.
            scored = [Score(row[3], row[1], row[2], row[4], row[5]) for row in scored]
            size = len(request.prompt)  # Computed by the first; the others have copies.
            kept = [
                Kept(0, s, 4, 0, size, tuple(tokens[s]), ACTIVE, s, computed=0 if s else size)
                for s in tokens
            ]
            desk = Desk(SPEC, [model])
            desk.take(_record(4, fields), 4, 0, 0, 7)
            desk.go_on([], kept, scored)
        alive = [sample for sample in tokens if sample not in ended]
        rows = [(4, sample, logits_of(seed + 97 * step + sample)) for sample in alive]
        wanted = whole.draw(rows)
        assert desk.draw(rows) == wanted
        if desk is first:
            scored += first.scores()
        for sample, outcome in zip(alive, wanted, strict=True):
            assert outcome.token is not None
            tokens[sample].append(outcome.token)
            if outcome.stop:
                ended[sample] = None
    assert answered(desk, 4) == answered(whole, 4)


def _record(ticket: int, fields: dict[str, Any]) -> Record:
    payload = json.dumps({"prompt": "hello there", "max_tokens": 6, **fields}).encode()
    return Record(Kind.INFER, 0, ticket, 1, 0, payload)


def test_tokens_are_drawn_again_with_the_penalties_and_seeds_they_had(model: LoadedModel) -> None:
    fields: dict[str, Any] = {"temperature": 1.1, "repetition_penalty": 1.8, "n": 2}
    desk = Desk(SPEC, [model])
    ask(desk, 1, **fields)
    rows = [logits_of(n) for n in range(6)]
    said = [[desk.draw([(1, s, row)])[0].token for row in rows] for s in (0, 1)]
    forked = Desk(replace(SPEC, seed=6, past_seeds=((4, 5),)), [model])
    ask(forked, 1, **fields)
    for sample in (1, 0):
        again = [forked.draw_again(n, 1, sample, rows[n], n) for n in range(6)]
        assert again[:4] == said[sample][:4] and again[4:] != said[sample][4:]
    with pytest.raises(LockstepBug, match="token 3 again, without those before it"):
        forked.draw_again(3, 1, 0, rows[3], 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop_token_ids": [512]}, "stop_token_ids: 512, the model has ids of 0 to 511"),
        ({"min_tokens": 7}, "min_tokens: 7, more than the 6 tokens of max_tokens"),
        ({"defaults": "model"}, 'defaults: "model", but the model has no generation_config.json'),
    ],
)
def test_what_does_not_go_with_the_model_is_refused(
    model: LoadedModel, fields: dict[str, Any], message: str
) -> None:
    assert ask(Desk(SPEC, [model]), 1, **fields).refusal == message


def test_a_least_number_of_tokens_needs_one_that_does_not_end_the_answer(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "vocab", 4)
    fields: dict[str, Any] = {"stop_token_ids": [0, 1, 3], "min_tokens": 1}
    assert "every token of the model ends" in ask(Desk(SPEC, [model]), 1, **fields).refusal


def test_an_answer_that_can_never_fit_a_record_is_refused_beforehand(model: LoadedModel) -> None:
    desk = Desk(replace(SPEC, record_bytes_max=1024), [model])
    room = 1024 - HEADER_BYTES
    never = ask(desk, 1, n=8, max_tokens=80, ignore_eos=True).refusal
    assert never.startswith("an answer of n = 8 with at least 80 tokens each has at least ")
    assert never.endswith(f" bytes, [fleet] record_bytes_max allows {room}")
    assert "at least 30 tokens" in ask(desk, 2, min_tokens=30, max_tokens=80, logprobs=3).refusal
    # It may end early: nobody knows.
    assert not ask(desk, 3, max_tokens=80).refusal
    assert not ask(desk, 4, max_tokens=80, ignore_eos=True, stop=["e"]).refusal


def test_what_was_in_force_is_in_the_answer_of_runs_that_know_it(model: LoadedModel) -> None:
    for flags, keys in ((1, set()), (3, {"sampling", "stop_reason"})):
        desk = Desk(replace(SPEC, logic_flags=flags), [model])
        ask(desk, 1, temperature=0.5, max_tokens=1)
        desk.draw([(1, 0, only(9))])
        found = answered(desk, 1)
        assert set(found) - keys == {
            "text", "token_ids", "finish_reason", "usage", "ticket", "step",
        }  # fmt: skip
        assert set(found) >= keys
        if keys:
            assert found["sampling"]["temperature"] == 0.5
            assert found["sampling"]["max_tokens"] == 1
    old = Desk(replace(SPEC, logic_flags=1), [model])
    assert "key 'top_p' is unknown" in ask(old, 1, top_p=0.5).refusal


def test_a_refused_value_is_shown_as_it_was_sent_or_as_older_runs_showed_it(
    model: LoadedModel,
) -> None:
    said = [("true", '"x"', '"nobody"'), ("True", "'x'", "'nobody'")]
    for flags, (true, text, name) in zip((LOGIC_FLAGS, PROPOSALS | ANSWERS), said, strict=True):
        desk = Desk(replace(SPEC, logic_flags=flags), [model])
        wanted = f"max_tokens: {true}, expected a whole number of 1 to 2147483647"
        assert ask(desk, 1, max_tokens=True).refusal == wanted
        assert ask(desk, 2, temperature="x").refusal == f"temperature: {text}, expected 0 to 10.0"
        assert ask(desk, 3, model="nobody").refusal.startswith(f"model: {name} is not in the fleet")


def test_runs_of_older_rules_draw_by_them_and_do_not_name_tokens(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "survivors", None)
    monkeypatch.setattr(logprobs, "reaching", None)
    desk = Desk(replace(SPEC, logic_flags=3), [model])
    ask(desk, 1, temperature=0.5, logprobs=True, max_tokens=1)
    desk.draw([(1, 0, only(9))])
    assert answered(desk, 1)["logprobs"] == [{"token_id": 9, "logprob": 0.0, "top_logprobs": []}]


def test_a_template_that_cannot_be_compiled_is_told_at_the_start_and_prompts_are_served(
    copy: Path,
) -> None:
    (copy / "chat_template.jinja").write_text("{% include 'x' %}")
    loaded = LoadedModel(replace(MODEL, path=str(copy)), SPEC.frozen_date)
    loaded.decoder.close()
    why = "Include is not allowed (line 1)"
    assert loaded.notes() == [f"{copy}: {NO_MESSAGES}: {why}"]
    desk = Desk(SPEC, [loaded])
    assert ask(desk, 1).refusal == ""
    chat = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    record = Record(Kind.INFER, 0, 2, 1, 0, chat)
    assert (
        f"template cannot be used ({why}), it takes only a" in desk.take(record, 2, 0, 0, 7).refusal
    )


def test_a_models_own_defaults_are_taken_by_those_who_ask(copy: Path) -> None:
    values = {"do_sample": True, "temperature": 0.7, "top_p": 0.8}
    (copy / "generation_config.json").write_text(json.dumps(values))
    loaded = LoadedModel(replace(MODEL, path=str(copy)), SPEC.frozen_date)
    desk = Desk(SPEC, [loaded])
    loaded.decoder.close()
    for ticket, fields in ((1, {}), (2, {"defaults": "model"})):
        ask(desk, ticket, max_tokens=1, **fields)
        desk.draw([(ticket, 0, only(9))])
    plain, taken = (answered(desk, ticket)["sampling"] for ticket in (1, 2))
    assert (plain["temperature"], plain["top_p"], plain["defaults"]) == (0.0, 1.0, "lockstep")
    assert (taken["temperature"], taken["top_p"], taken["defaults"]) == (0.7, 0.8, "model")


@pytest.mark.parametrize(("flags", "cached"), [(1, 3), (3, 4)])
def test_what_was_not_computed_counts_as_cached_even_if_it_came_after_the_slot(
    model: LoadedModel, flags: int, cached: int
) -> None:
    desk = Desk(replace(SPEC, logic_flags=flags), [model])
    record = _record(1, {"prompt": "hello there", "max_tokens": 1})
    prompt = desk.take(record, 1, 0, 0, 7).prompt
    desk.admitted(1, 0, 3)
    desk.computed(1, len(prompt) - 4)  # One more was copied from a row that had it by then.
    desk.draw([(1, 0, only(9))])
    assert answered(desk, 1)["usage"]["cached_tokens"] == cached
