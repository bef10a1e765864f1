"""Records of a journal as JSON objects: every kind that a journal has."""

import json
import struct
from typing import Any

import pytest

from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.journal import Frame
from lockstep.engine.journal import format as fmt
from lockstep.engine.order import chosen_effect, chosen_step
from lockstep.engine.outside import Outside, What
from lockstep.engine.plan import DUE
from lockstep.engine.record import FLAG_RAW, PEER_NONE, Kind, Outcome, encode
from lockstep.engine.wire import FromEngine
from lockstep.workers.export import Names, export, payload
from lockstep.workers.selection import KINDS, text

IDENTITY: dict[str, Any] = {
    "fleet": {
        "agents": [{"name": "ann"}, {"name": "ben"}],
        "models": [{"name": "small"}],
        "tools": [{"name": "look"}],
        "sources": [{"name": "lines"}],
    }
}
SLOT = struct.Struct("<HHIQqq")


def step(*slots: tuple[int, int, int, int, int, int], answers: bytes = b"") -> bytes:
    body = b"".join(SLOT.pack(*slot) for slot in slots)
    return body + SLOT.pack(FromEngine.STEP, 0, 0, 0, 7, 0) + answers


def one(record: bytes, kind: int = fmt.HISTORY) -> dict[str, Any]:
    """The object of a record, without its frame."""
    (value,) = export([Frame(5, 64, kind, record)], Names(IDENTITY))
    assert value.pop("frame") == 5 and json.loads(json.dumps(value)) == value
    assert value.pop("tag") is None or value["kind"] == "TAG"
    return value


EVENTS = encode(Kind.ITEM, b'{"a": 1}', item=3) + encode(Kind.MESSAGE, b"hi", id=4, peer=1)
WROTE = encode(Kind.INFER, b"\xff\0", flags=FLAG_RAW, id=1, item=3, peer=0)
CALL = encode(Kind.TOOL_CALL, b"x y", id=2, peer=0) + encode(Kind.SET_TIMER, b"\1" + bytes(7), id=9)
ANSWER = encode(Kind.RESULT, b'{"text":"ok"}', id=1, item=3, peer=0)

CASES = {
    "turn": (
        encode(Kind.TURN, EVENTS, id=2, peer=0),
        {
            "kind": "TURN",
            "agent": "ann",
            "turn": 2,
            "events": [
                {"kind": "ITEM", "id": 0, "item": 3, "peer": None, "payload": {"a": 1}},
                {"kind": "MESSAGE", "id": 4, "item": 0, "peer": "ben", "payload": "hi"},
            ],
        },
    ),
    "effect": (
        encode(Kind.EFFECT, WROTE + CALL, flags=Outcome.BLOCKED, id=2, item=99, peer=1),
        {
            "kind": "EFFECT",
            "agent": "ben",
            "turn": 2,
            "fuel": 99,
            "outcome": "blocked",
            "records": [
                {
                    "kind": "INFER",
                    "id": 1,
                    "item": 3,
                    "peer": "small",
                    "flags": 1,
                    "payload_base64": "/wA=",
                },
                {"kind": "TOOL_CALL", "id": 2, "item": 0, "peer": "look", "payload": "x y"},
                {
                    "kind": "SET_TIMER",
                    "id": 9,
                    "item": 0,
                    "peer": None,
                    "payload_base64": "AQAAAAAAAAA=",
                },
            ],
        },
    ),
    "ticket": (
        encode(Kind.TICKET, TICKET_PAYLOAD.pack(8, 2, 41), id=6, item=3, peer=0),
        {"kind": "TICKET", "agent": "ann", "ticket": 6, "item": 3, "due": 8, "ordinal": 2,
         "id": 41},
    ),
    "revoke": (
        encode(Kind.REVOKE, (9).to_bytes(8, "little"), id=6),
        {"kind": "REVOKE", "ticket": 6, "due": 9},
    ),
    "admit": (encode(Kind.ADMIT, item=2), {"kind": "ADMIT", "item": 2}),
    "outcome": (
        encode(Kind.OUTCOME, b"[1]", item=2, peer=1),
        {"kind": "OUTCOME", "item": 2, "agent": "ben", "payload": [1]},
    ),
    "an item that failed": (
        encode(Kind.OUTCOME, b"why", flags=1, item=2),
        {"kind": "OUTCOME", "item": 2, "error": "why"},
    ),
    "failed": (
        encode(Kind.FAILED, b"trapped", flags=2, peer=0),
        {"kind": "FAILED", "agent": "ann", "reason": "trapped"},
    ),
    "forced": (
        encode(Kind.FORCED, b"ann -> ben", peer=0),
        {"kind": "FORCED", "agent": "ann", "circle": "ann -> ben"},
    ),
    "called": (
        encode(Kind.CALLED, id=1, item=2, peer=0, flags=0),
        {"kind": "CALLED", "agent": "ann", "call": 1, "item": 2, "tool": "look"},
    ),
    "stop": (encode(Kind.STOP, b"stalled"), {"kind": "STOP", "reason": "stalled"}),
    "outside": (
        Outside(1, (4, 0), What.EVENT, 0, 0, b"a line").record(),
        {"kind": "OUTSIDE", "event": 1, "at": "4.0", "what": "event", "source": "lines",
         "payload": "a line"},
    ),
    "ordered effect": (
        chosen_effect(1, 3, (4, 2)),
        {"kind": "ORDERED", "what": "effect", "agent": "ben", "turn": 3, "at": "4.2"},
    ),
    "ordered due": (
        chosen_step(DUE, 6, 8),
        {"kind": "ORDERED", "what": "ticket", "ticket": 6, "due": 8},
    ),
    "tag": (encode(Kind.TAG, id=12, peer=3), {"kind": "TAG"}),
    "environment": (
        encode(Kind.ENVIRONMENT, b'{"cpu":1}'),
        {"kind": "ENVIRONMENT", "environment": {"cpu": 1}},
    ),
    "step": (
        encode(
            Kind.STEP,
            step(
                (FromEngine.EVICT, 0, 2, 0, 0, 0),
                (FromEngine.MOVE, 0, 5, 2, 0, 9),
                (FromEngine.COPY, 0, 2, 3, 0, 4),
                (FromEngine.ADMIT, 0, 2, 6, 4, 0),
                (FromEngine.CHUNK, 0, 2, 6, 4, 9),
                (FromEngine.TOKEN, 0, 2, 6, 11, 13),
                (FromEngine.END, 0, 0, 6, 1, 13),
                (FromEngine.TAKEN, DUE, 0, 6, 7, 0),
                answers=ANSWER,
            ),
            id=7,
        ),
        {
            "kind": "STEP",
            "step": 7,
            "slots": [
                {"op": "evict", "ticket": 0, "model": "small", "slot": 2},
                {"op": "move", "source": 2, "model": "small", "slot": 5, "start": 0, "tokens": 9},
                {"op": "copy", "source": 3, "model": "small", "slot": 2, "start": 0, "tokens": 4},
                {"op": "admit", "ticket": 6, "model": "small", "slot": 2, "hit": 4,
                 "sample": 0},
                {"op": "chunk", "ticket": 6, "model": "small", "slot": 2, "start": 4, "tokens": 9},
                {"op": "token", "ticket": 6, "model": "small", "slot": 2, "token": 11,
                 "position": 13},
                {"op": "end", "ticket": 6, "status": "length", "prompt_tokens": 13},
                {"op": "taken", "ticket": 6, "what": "ticket", "due": 7},
            ],
            "answers": [
                {"kind": "RESULT", "id": 1, "item": 3, "peer": "small", "payload": {"text": "ok"}}
            ],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_kind_is_decoded(case: str) -> None:
    record, expected = CASES[case]
    assert one(record) == expected


def test_every_kind_of_history_has_a_case() -> None:
    covered = {str(expected["kind"]) for _, expected in CASES.values()} | {"IDENTITY"}
    history = {kind.name for kind in Kind if kind >= Kind.TAG}
    assert covered == history and history < set(KINDS)


def test_names_come_from_the_identity_and_tags_from_the_entry() -> None:
    identity = Frame(0, 64, fmt.IDENTITY, encode(Kind.IDENTITY, json.dumps(IDENTITY).encode()))
    entry = encode(Kind.TAG, id=3, peer=1) + encode(Kind.TURN, id=0, peer=1)
    values = list(export([identity, Frame(1, 99, fmt.HISTORY, entry)]))
    assert [(value["frame"], value["tag"], value["kind"]) for value in values] == [
        (0, None, "IDENTITY"),
        (1, "3.1", "TAG"),
        (1, "3.1", "TURN"),
    ]
    assert values[2]["agent"] == "ben"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b'{"a": [1, null]}', {"payload": {"a": [1, None]}}),
        (b"NaN", {"payload": "NaN"}),
        (b'{"a": 1, "a": 2}', {"payload": '{"a": 1, "a": 2}'}),
        ("grün".encode(), {"payload": "grün"}),
        (b"\xff\xfe", {"payload_base64": "//4="}),
        (b"[" * 100_000, {"payload": "[" * 100_000}),
    ],
)
def test_a_payload_is_json_text_or_base64(data: bytes, expected: dict[str, Any]) -> None:
    assert payload(data) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"12345",
        encode(Kind.TICKET, b"short"),
        encode(Kind.STEP, b"short"),
        encode(Kind.STEP, step((99, 0, 0, 0, 0, 0))),
        encode(Kind.TURN, b"12345", peer=0),
        encode(Kind.IDENTITY, b"{"),
        encode(Kind.OUTSIDE, b""),
    ],
)
def test_a_body_that_is_no_record_of_its_kind_is_named_by_its_frame(body: bytes) -> None:
    with pytest.raises(JournalCorrupt, match="frame 5: its body cannot be read"):
        list(export([Frame(5, 64, fmt.HISTORY, body)], Names(IDENTITY)))


def test_a_number_that_names_nobody_stays_a_number() -> None:
    assert one(encode(Kind.TURN, id=2, peer=77))["agent"] == 77
    assert one(encode(Kind.TURN, id=2, peer=PEER_NONE))["agent"] is None


def test_what_a_failed_turn_wrote_need_not_be_records() -> None:
    value = one(encode(Kind.EFFECT, b"junk", flags=Outcome.PROTOCOL, id=2, peer=0))
    assert value["records"] == {"payload_base64": "anVuaw=="} and value["outcome"] == "protocol"
    assert "anVuaw==" in text({"tag": "1.0", **value})


def test_text_is_cut_escaped_and_indented() -> None:
    long = encode(Kind.MESSAGE, b"\x1b[31m" + b"x" * 500, id=4, peer=1)
    value = {"tag": "2.0", **one(encode(Kind.TURN, long, id=2, peer=0))}
    first, second = text(value).splitlines()
    assert first.split() == ["2.0", "TURN", "agent", "ann", "turn", "2"]
    assert second.startswith("   ") and "\\x1b[31m" in second and "... (505)" in second
    assert len(second) < 250
