"""The test guests do what their first comment says."""

import json
import struct
from types import ModuleType
from typing import Any

import pytest

from lockstep.engine.record import FLAG_ERROR, FLAG_RAW, PEER_NONE, Kind, Outcome, encode


def texts(h: ModuleType, guest: str, *batches: bytes, **config: object) -> Any:
    return h.play(guest, [h.start(config), *batches])


@pytest.mark.parametrize("guest", ["echo", "echo_reactor"])
def test_echo_emits_what_it_gets(h: ModuleType, guest: str) -> None:
    many = b"".join(h.item(n, b"x" * n) for n in range(1, 200))
    assert texts(h, guest, many).emitted == [(n, b"x" * n) for n in range(1, 200)]


@pytest.mark.parametrize("guest", ["echo", "echo_reactor"])
def test_echo_takes_a_large_batch(h: ModuleType, guest: str) -> None:
    many = b"".join(h.item(n, bytes([n]) * 30_000) for n in range(1, 11))
    assert texts(h, guest, many).emitted == [(n, bytes([n]) * 30_000) for n in range(1, 11)]


def test_hello_prints_and_shows_clock_and_random(h: ModuleType) -> None:
    played = texts(h, "hello_wasi", h.item(1, b""), h.item(2, b""), h.CLOSE)
    assert played.turns[0].logs == ["hello from agent, 1 argument", "this is standard error"]
    assert played.turns[2].logs == ["item 1"]
    assert played.last.outcome == Outcome.RETURNED
    first, second = (json.loads(payload) for _, payload in played.emitted)
    assert (first["s"], first["ns"], second["ns"]) == (946_684_800, 2_000_000, 3_000_000)
    assert first["random"] != second["random"]


def test_asker_sends_a_raw_request_and_emits_the_text(h: ModuleType) -> None:
    def answer(turn: Any) -> bytes | None:
        if turn.end.turn < 2:
            return (h.start({"tokens": 9, "temperature": 0.5}), h.item(4, b"2+2="))[turn.end.turn]  # type: ignore[no-any-return]
        requests = [r for r in turn.records if r.kind == Kind.INFER]
        return b"".join(h.raw_result(r, b"four!") for r in requests) or None

    played = h.play("asker", answer=answer)
    (request,) = played.turns[2].records
    assert (request.flags, request.item, request.peer) == (FLAG_RAW, 4, 0)
    assert request.payload == struct.pack("<IfIIQ", 9, 0.5, 0, 0, 0) + b"2+2="
    assert played.emitted == [(4, b"four!")]


def test_talker_asks_in_json_and_emits_the_answer(h: ModuleType) -> None:
    said = 'she said "no"\n\tand left \u2013 \\o/'
    request_turn = texts(h, "talker", h.item(1, said.encode()), tokens=20, temperature=1.25).last
    (request,) = request_turn.records
    assert (request.kind, request.flags, request.item, request.peer) == (Kind.INFER, 0, 1, 0)
    assert json.loads(request.payload) == {"prompt": said, "max_tokens": 20, "temperature": 1.3}
    result = json.dumps({"text": said, "token_ids": [1], "finish_reason": "stop"}).encode()
    good = encode(Kind.RESULT, result, id=1, item=1, peer=0)
    bad = encode(Kind.RESULT, b'{"error": "too long"}', flags=FLAG_ERROR, id=2, item=2, peer=0)
    assert texts(h, "talker", good + bad).emitted == [(1, said.encode()), (2, b"too long")]


def test_burner_burns_as_configured(h: ModuleType) -> None:
    light, heavy = (texts(h, "burner", h.item(1, b"x"), loops=n) for n in (1000, 101_000))
    assert light.emitted == heavy.emitted == [(1, b"x")]
    assert 500_000 < heavy.fuels[2] - light.fuels[2] < 5_000_000


def test_trapper_traps_on_its_item_only(h: ModuleType) -> None:
    played = texts(h, "trapper", h.item(1, b"a"), h.item(2, b"b"), trap_item=2)
    assert played.emitted == [(1, b"a")]
    assert (played.last.outcome, played.last.end.reason) == (Outcome.TRAPPED, "UNREACHABLE")


def test_looper_never_ends(h: ModuleType) -> None:
    played = h.play("looper", [h.start(), h.item(1, b"")], turn_fuel_max=10**6)
    assert played.last.outcome == Outcome.OUT_OF_FUEL


def test_chatter_goes_round_all_agents(h: ModuleType) -> None:
    """Three agents, played one after another by hand."""
    names = ["chatter.0", "chatter.1", "chatter.2"]

    def react(index: int, event: bytes) -> Any:
        (record,) = h.play("chatter", [h.start({}, names, index), event]).last.records
        return record

    record = react(1, h.item(5, b"psst"))
    path = []
    while record.kind == Kind.SEND:
        path.append(record.peer)
        message = encode(Kind.MESSAGE, record.payload, id=record.id, item=5, peer=9)
        record = react(record.peer, message)
    assert path == [2, 0, 1]
    assert (record.kind, record.item, record.peer, record.payload) == (
        Kind.EMIT,
        5,
        PEER_NONE,
        b"psst",
    )
