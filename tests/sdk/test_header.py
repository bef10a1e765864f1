"""sdk/lockstep.h, through the guest `probe`, whose buffers are too small for anything."""

import json
import struct
from types import ModuleType

import pytest

from lockstep.engine.record import FLAG_RAW, PEER_NONE, Kind, Outcome

CONFIG = {
    "agent": "solver.1",
    "agents": ["solver.0", "solver.1", 'quo"ted', []],
    "models": [],
    "config": {"temperature": 0.8, "deep": {"n": [1, [2, 3], {"x": -12.5e2}]}, "s": "a\nb\\\u20ac"},
    "temperature": 5,
    "big": 123456789012,
    "emoji": "\U0001f600",
    "yes": True,
    "none": None,
}
FOUND = [
    ("config.temperature", "0.8", 800),
    ("temperature", "5", 5000),
    ("config.deep.n.0", "1", 1000),
    ("config.deep.n.1.1", "3", 3000),
    ("config.deep.n.2.x", "-1250.0", -1_250_000),
    ("big", "123456789012", 123_456_789_012_000),
    ("agents.0", '"solver.0"', -1000),
    ("agents.3", "[]", -1000),
    ("yes", "true", -1000),
    ("none", "null", -1000),
    ("models", "[]", -1000),
    ("models.0", "", -1000),
    ("agents.9", "", -1000),
    ("agent.x", "", -1000),
    ("config.deep.m", "", -1000),
    ("tempera", "", -1000),
]


def probe(h: ModuleType, path: str, document: bytes, **limits: int) -> tuple[list[bytes], object]:
    item = h.item(1, path.encode() + b"\n" + document)
    played = h.play("probe", [h.start(), item, h.CLOSE], **limits)
    assert played.accident == ""
    ((number, output),) = played.emitted
    assert number == 1
    return output.split(b"\n", 2), played


@pytest.mark.parametrize(("path", "found", "thousandths"), FOUND)
@pytest.mark.parametrize("indent", [None, 2])
def test_values_are_found_by_path(
    h: ModuleType, path: str, found: str, thousandths: int, indent: int | None
) -> None:
    (value, number, *_), _played = probe(h, path, json.dumps(CONFIG, indent=indent).encode())
    assert (value.decode(), int(number)) == (found, thousandths)


@pytest.mark.parametrize("path", ["agent", "agents.2", "emoji"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_strings_are_unescaped_and_quoted_again(h: ModuleType, path: str, ascii_only: bool) -> None:
    fields, _ = probe(h, path, json.dumps(CONFIG, ensure_ascii=ascii_only).encode())
    head, _, name = path.partition(".")
    expected = CONFIG[head][int(name)] if name else CONFIG[head]  # type: ignore[index,call-overload]
    text, quoted = fields[2].split(b"\n")
    assert text.decode() == expected
    assert json.loads(quoted) == expected


def test_escapes_of_all_kinds(h: ModuleType) -> None:
    text = "a\nb\\\u20ac\x01\t/\"'"
    fields, _ = probe(h, "s", b'{"s": "a\\nb\\\\\\u20aC\\u0001\\t\\/\\"\'"}')
    shown, _, quoted = fields[2].rpartition(b"\n")
    assert shown.decode() == text
    assert json.loads(quoted) == text


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b'{"s', b'{"s":', b'{"s": "', b'{"s": "\\', b'{"s": "\\u12', b"[" * 500, b'"s"'],
)
def test_malformed_documents_find_nothing_and_break_nothing(h: ModuleType, document: bytes) -> None:
    fields, played = probe(h, "s.t", document)
    assert fields[0] == b""
    assert played.turns[-1].outcome == Outcome.BLOCKED  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [100, 65_536, 200_000])
def test_events_larger_than_the_buffer_are_fetched_again(h: ModuleType, size: int) -> None:
    document = json.dumps({"pad": "x" * size, "n": 7}).encode()
    (value, number, _), played = probe(h, "n", document, turn_out_bytes_max=1 << 20)
    assert (value, int(number)) == (b"7", 7000)
    assert [turn.end.turn for turn in played.turns] == [0, 1, 2, 3]  # type: ignore[attr-defined]


def test_memory_that_does_not_suffice_is_a_trap(h: ModuleType) -> None:
    item = h.item(1, bytes(1 << 20))
    played = h.play("probe", [h.start(), item], memory_bytes_max=1 << 20)
    assert (played.last.outcome, played.last.end.reason) == (Outcome.TRAPPED, "UNREACHABLE")


def test_records_are_as_the_interface_says(h: ModuleType) -> None:
    _, played = probe(h, "yes", json.dumps(CONFIG).encode())
    records = {r.kind: r for r in played.turns[2].records}  # type: ignore[attr-defined]
    assert list(records) == [Kind.EMIT, Kind.LOG, Kind.SET_TIMER, Kind.INFER, Kind.CANCEL]
    fields = {kind: (r.flags, r.id, r.item, r.peer) for kind, r in records.items()}
    assert fields == {
        Kind.EMIT: (0, 0, 1, PEER_NONE),
        Kind.LOG: (0, 0, 1, PEER_NONE),
        Kind.SET_TIMER: (0, 1, 1, PEER_NONE),
        Kind.INFER: (FLAG_RAW, 1, 1, 0),
        Kind.CANCEL: (0, 1, 0, PEER_NONE),
    }
    assert records[Kind.LOG].payload == b"yes"
    assert records[Kind.SET_TIMER].payload == struct.pack("<Q", 3)
    assert records[Kind.INFER].payload == struct.pack("<IfIIQ", 5, 0.5, 1, 0, 99) + b"p"
    (done,) = played.turns[3].records  # type: ignore[attr-defined]
    assert (done.kind, done.item, done.peer) == (Kind.DONE, 0, PEER_NONE)
