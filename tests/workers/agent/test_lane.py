"""The short lane: whoever takes it, and whoever does not, gets the same turn."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from lockstep.engine.record import Kind, encode
from lockstep.workers.agent.guest import Guest
from lockstep.workers.agent.turn import SHORT_BYTES, TurnRecords

SEND = encode(Kind.SEND, bytes(64), peer=0)
LOG = encode(Kind.LOG, b"a line", id=1)
MAX = 2**32 - 1
EVENT = encode(Kind.ITEM, b"event", item=1)

# Arguments of `turn` and what lies at 0; the lane takes what is marked.
COMMON: list[tuple[bytes, tuple[int, int, int, int]]] = [
    (b"", (0, 0, 65536, 65536)),
    (SEND, (0, len(SEND), 65536, 65536)),
    (3 * SEND, (0, 3 * len(SEND), 65536, 65536)),
    (20 * SEND, (0, 20 * len(SEND), 65536, 65536)),
    (SEND, (0, len(SEND), 65536, len(EVENT))),
    (SEND, (0, len(SEND), 0, 65536)),
    (b"", (131072, 0, 131072 - len(EVENT), len(EVENT))),
    (encode(Kind.EMIT, bytes(SHORT_BYTES), item=1), (0, SHORT_BYTES + 32, 65536, 65536)),
    (encode(Kind.EMIT, b"12345", item=1), (0, 40, 65536, 65536)),
    (SEND, (0, len(SEND), 65536, len(EVENT) - 1)),
    (SEND, (0, len(SEND), 65536, 0)),
]
UNCOMMON: list[tuple[bytes, tuple[int, int, int, int]]] = [
    (LOG, (0, len(LOG), 65536, 65536)),
    (SEND + LOG, (0, len(SEND + LOG), 65536, 65536)),
    (SEND[:-8], (0, len(SEND) - 8, 65536, 65536)),
    (SEND, (0, len(SEND) - 8, 65536, 65536)),
    (SEND, (0, 7, 65536, 65536)),
    (encode(Kind.ITEM, b"12345", item=1), (0, 40, 65536, 65536)),
    (encode(Kind.SEND, bytes(5000), peer=0), (0, 5032, 65536, 65536)),
    (100 * SEND, (0, 9600, 65536, 65536)),
    (SEND, (MAX, 1, 65536, 65536)),
    (SEND, (0, MAX, 65536, 65536)),
    (SEND, (131072, 1, 65536, 65536)),
    (SEND, (131073, 0, 65536, 65536)),
    (SEND, (0, len(SEND), 65537, 65536)),
    (SEND, (0, len(SEND), MAX, 1)),
    (SEND, (0, len(SEND), 65536, MAX)),
    (SEND, (0, len(SEND), 131073, 0)),
]


def calls(h: ModuleType, data: bytes, arguments: tuple[int, int, int, int]) -> str:
    """Calls once so that the memory is known, then as given, then for what was too long."""
    again = f"(drop {h.turn_call()})"
    loop = f"(loop $l {again} (br $l))"
    text: str = h.blocking(f"{again} (drop {h.turn_call(*arguments)}) {loop}", data)
    return text


def play(h: ModuleType, wat: str, **changes: Any) -> Any:
    limits = {"record_bytes_max": 4096, "turn_out_bytes_max": 8192, **changes}
    return h.play(wat, 4 * [EVENT], **limits)


@pytest.fixture
def both(
    h: ModuleType, request: pytest.FixtureRequest
) -> Callable[..., tuple[Any, list[tuple[int, int]]]]:
    """Plays through both lanes and compares; what was played, and what the first one published."""

    def compare(wat: str, **changes: Any) -> tuple[Any, list[tuple[int, int]]]:
        first = play(h, wat, **changes)
        request.getfixturevalue("long_way")
        second = play(h, wat, **changes)
        assert first == second
        assert first.progress == second.progress
        return first, first.progress

    return compare


@pytest.mark.parametrize(("data", "arguments"), COMMON + UNCOMMON)
@pytest.mark.parametrize("quantum", [0, 30, 500, 1 << 30])
def test_both_lanes_send_the_same_turns(
    h: ModuleType, both: Any, quantum: int, data: bytes, arguments: tuple[int, int, int, int]
) -> None:
    both(calls(h, data, arguments), fuel_per_step=quantum)


@pytest.mark.parametrize("fuel", range(1000, 1300, 5))
def test_both_lanes_run_out_of_fuel_at_the_same_place(h: ModuleType, both: Any, fuel: int) -> None:
    played, _ = both(calls(h, SEND, (0, len(SEND), 65536, 65536)), turn_fuel_max=fuel)
    assert played.status == 0


@pytest.mark.parametrize(("data", "arguments"), COMMON)
def test_common_turns_take_the_short_lane(
    h: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    arguments: tuple[int, int, int, int],
) -> None:
    taken: list[bytes] = []
    answer = Guest.answer

    def note(self: Guest, records: bytes) -> bytes:
        taken.append(records)
        return answer(self, records)

    monkeypatch.setattr(Guest, "answer", note)
    play(h, calls(h, data, arguments))
    assert any(records.startswith(data) and len(records) == len(data) + 64 for records in taken)


@pytest.mark.parametrize(("data", "arguments"), UNCOMMON)
def test_uncommon_turns_take_the_ordinary_way_from_its_beginning(
    h: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    arguments: tuple[int, int, int, int],
) -> None:
    seen: list[tuple[int, ...]] = []
    turn = Guest.turn

    def note(self: Guest, *given: int) -> int:
        seen.append(tuple(each & MAX for each in given))
        return turn(self, *given)

    monkeypatch.setattr(Guest, "turn", note)
    play(h, calls(h, data, arguments))
    assert arguments in seen


def test_a_turn_that_has_logged_is_sent_with_its_logs(h: ModuleType, both: Any) -> None:
    wat = h.blocking(
        f"""(drop {h.turn_call()})
        (drop (call $write (i32.const 1) (i32.const 200) (i32.const 1) (i32.const 300)))
        (drop {h.turn_call(0, len(SEND))})
        (loop $l (drop {h.turn_call()}) (br $l))""",
        SEND.ljust(200, b"\0") + (208).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello",
        extra="""(import "wasi_snapshot_preview1" "fd_write"
          (func $write (param i32 i32 i32 i32) (result i32)))""",
    )
    played, _ = both(wat)
    assert played.turns[1].logs == ["hello"]
    assert [each.kind for each in played.turns[1].records] == [Kind.LOG, Kind.SEND]


def test_a_guest_that_calls_from_many_depths_is_the_same(h: ModuleType, both: Any) -> None:
    """Arguments lie wherever the guest's stack has come to."""
    extra = f"""(func $deep (param $n i32)
      (if (local.get $n) (then (call $deep (i32.sub (local.get $n) (i32.const 1)))))
      (drop {h.turn_call(0, len(SEND))}))"""
    wat = h.blocking("(call $deep (i32.const 40)) (call $deep (i32.const 20))", SEND, extra=extra)
    first = h.play(wat, 80 * [EVENT])
    assert [turn.outcome.name for turn in first.turns] == 62 * ["BLOCKED"] + ["RETURNED"]
    assert {turn.raw for turn in first.turns[:-1]} == {SEND}
    both(wat)


def test_events_that_do_not_fit_are_kept_by_either_lane(h: ModuleType, both: Any) -> None:
    wat = h.blocking(
        f"""(loop $l
          (drop {h.turn_call(0, len(SEND), 65536, 8)})
          (drop {h.turn_call()})
          (br $l))""",
        SEND,
    )
    played, _ = both(wat)
    assert [turn.raw for turn in played.turns] == 5 * [SEND]


def test_bug_in_the_short_lane_is_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: Guest, records: bytes) -> bytes:
        raise AssertionError("a bug")

    monkeypatch.setattr(Guest, "answer", answer)
    played = h.play("echo", [h.start(), EVENT])
    assert (played.status, played.accident) == (75, "AssertionError: a bug")


def test_touched_says_whether_anything_was_written(h: ModuleType) -> None:
    records = TurnRecords(h.spec(b""))
    assert not records.touched
    for write in (lambda: records.log(1, b"x"), lambda: records.submit(b"")):
        write()
        assert records.touched
        records.finish(h.Outcome.BLOCKED)
        assert not records.touched
