"""The agents of the vote example."""

import json
import random
import struct
from types import ModuleType
from typing import Any

import pytest

from lockstep.engine.record import Kind, Outcome

NAMES = [*(f"solver.{n}" for n in range(5)), "greedy", "judge"]


def question(number: int) -> bytes:
    text = {"id": f"q{number:03}", "question": "123+456=", "answer": 579}
    return json.dumps(text).encode()


def solve(h: ModuleType, payload: bytes, text: bytes, status: int = 0) -> tuple[Any, Any]:
    def answer(turn: Any) -> bytes | None:
        if turn.end.turn == 0:
            return h.start({"temperature": 0.8}, NAMES)  # type: ignore[no-any-return]
        if turn.end.turn == 1:
            return h.item(3, payload)  # type: ignore[no-any-return]
        requests = [r for r in turn.records if r.kind == Kind.INFER]
        return b"".join(h.raw_result(r, text, status) for r in requests) or None

    played = h.play("vote/solver", answer=answer)
    requests = [r for turn in played.turns for r in turn.records if r.kind == Kind.INFER]
    ((item, output),) = played.emitted
    assert item == 3
    return (requests[0] if requests else None), json.loads(output)


@pytest.mark.parametrize(
    ("text", "digits", "value"),
    [
        (b"975", "975", 579),
        (b"970", "970", 79),
        (b"0", "0", 0),
        (b"975\n", "975", 579),
        (b"", "", None),
        (b"9a5", "9a5", None),
        (b"-1", "-1", None),
        (b'9"\\\n5', '9"\\\n5', None),
        (b"12345678", "12345678", 87654321),
        (b"1" * 19, "1" * 19, None),
    ],
)
def test_solver_asks_and_turns_the_digits_round(
    h: ModuleType, text: bytes, digits: str, value: int | None
) -> None:
    request, output = solve(h, question(1), text)
    assert request.payload == struct.pack("<IfIIQ", 8, 0.8, 0, 0, 0) + b"123+456="
    assert output == {"digits": digits, "value": value}


def test_solver_answers_null_when_the_request_failed(h: ModuleType) -> None:
    assert solve(h, question(1), b"refused", status=2)[1] == {"digits": "", "value": None}


def test_solver_answers_null_when_there_is_no_question(h: ModuleType) -> None:
    assert solve(h, b'{"q": 1}', b"") == (None, {"digits": "", "value": None})


def judged(h: ModuleType, *batches: bytes) -> Any:
    return h.play("vote/judge", [h.start({}, NAMES, 6), *batches])


def ballot(h: ModuleType, item: int, peer: int, value: int | None) -> bytes:
    text = {"digits": "x", "value": value}
    return h.item(item, json.dumps(text).encode(), peer)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("votes", "answer"),
    [
        ([579, 579, 579, 579, 579], 579),
        ([1, 579, 579, 2, 3], 579),
        ([5, 4, 5, 4, 9], 4),
        ([9, 8, 7, 6, 5], 5),
        ([None, None, None, None, 7], 7),
        ([None, None, None, 8, 7], 7),
        ([None] * 5, None),
        ([0, 0, None, None, None], 0),
        ([10**15, 10**15, 1, 2, 3], 10**15),
    ],
)
def test_judge_takes_the_majority(
    h: ModuleType, votes: list[int | None], answer: int | None
) -> None:
    ballots = [ballot(h, 1, peer, value) for peer, value in enumerate([*votes, 579])]
    for order in (ballots, ballots[::-1]):
        played = judged(h, b"".join(order[:2]), b"".join(order[2:5]), order[5])
        ((item, output),) = played.emitted
        assert item == 1
        assert json.loads(output) == {"answer": answer, "votes": votes, "greedy": 579}
    assert [len(turn.emitted) for turn in played.turns] == [0, 0, 0, 0, 1]


def test_judge_keeps_256_items_apart(h: ModuleType) -> None:
    rng = random.Random(5)
    items = list(range(1, 257))
    ballots = [(item, peer, item * 10 + peer % 2) for item in items for peer in range(6)]
    rng.shuffle(ballots)
    batches = [
        b"".join(ballot(h, *each) for each in ballots[at : at + 97])
        for at in range(0, len(ballots), 97)
    ]
    played = judged(h, *batches, h.CLOSE)
    found = {item: json.loads(output) for item, output in played.emitted}
    assert len(played.emitted) == 256
    assert found == {
        n: {
            "answer": n * 10,
            "votes": [n * 10, n * 10 + 1, n * 10, n * 10 + 1, n * 10],
            "greedy": n * 10 + 1,
        }
        for n in items
    }
    assert played.last.outcome == Outcome.RETURNED


def test_judge_without_baseline_and_with_other_names(h: ModuleType) -> None:
    names = ["a.0", "judge", "a.1"]
    config = {"voters": "a", "baseline": "b"}
    events = ballot(h, 1, 0, 5) + ballot(h, 1, 2, 6)
    played = h.play("vote/judge", [h.start(config, names, 1), events])
    ((_, output),) = played.emitted
    assert json.loads(output) == {"answer": 5, "votes": [5, 6], "greedy": None}
