"""The crossing: how turns end, what they cost, and what hostile guests get."""

import hashlib
from types import ModuleType

import pytest

from lockstep.engine.record import Kind, Outcome, encode
from lockstep.workers.agent.fuel import HOST_CALL_FUEL

pytestmark = pytest.mark.usefixtures("crossings")

EMIT = encode(Kind.EMIT, b"12345678", item=1)  # 40 bytes
REACTOR_PARTS = """
  (memory (export "memory") 2)
  (func (export "lockstep_alloc") (param i32) (result i32) (i32.const 65536))"""


def reactor(body: str, data: bytes = b"", extra: str = "") -> str:
    literal = "".join(f"\\{byte:02x}" for byte in data)
    return f"""(module (import "lockstep" "submit" (func $submit (param i32 i32))) {REACTOR_PARTS}
      {extra} (data (i32.const 0) "{literal}")
      (func (export "on_events") (param i32 i32) (result i32) {body}))"""


def test_turns_of_the_blocking_form(h: ModuleType) -> None:
    events = [h.start(), h.item(1, b"one") + h.item(2, b"two"), h.CLOSE]
    played = h.play("echo", events, piece=13)
    assert (played.status, played.ready, played.accident) == (0, 1, "")
    assert [turn.end.turn for turn in played.turns] == [0, 1, 2, 3]
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED"] * 3 + ["RETURNED"]
    assert played.emitted == [(1, b"one"), (2, b"two")]
    assert played.turns[2].end.count == 2
    assert all(t.end.digest == hashlib.sha256(t.raw).digest() for t in played.turns)


def test_turns_of_the_reactor_form(h: ModuleType) -> None:
    played = h.play("echo_reactor", [h.start(), h.item(1, b"one") + h.item(2, b"two"), h.CLOSE])
    assert (played.status, played.ready) == (0, 1)
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED"] * 4
    assert played.emitted == [(1, b"one"), (2, b"two")]


def test_reactor_may_submit_often_and_fail_with_a_code(h: ModuleType) -> None:
    twice = (
        "(call $submit (i32.const 0) (i32.const 40)) (call $submit (i32.const 0) (i32.const 40))"
    )
    played = h.play(reactor(f"{twice} (i32.const 0)", EMIT), [b""])
    assert played.turns[1].emitted == [(1, b"12345678")] * 2
    log = encode(Kind.LOG, b"a", id=1)
    played = h.play(
        reactor("(call $submit (i32.const 0) (i32.const 80)) (i32.const 5)", EMIT + log), [b""]
    )
    assert (played.last.outcome, played.last.end.reason) == (Outcome.EXITED, "on_events returned 5")
    assert [record.kind for record in played.last.records] == [Kind.LOG]


@pytest.mark.parametrize("pointer", [0, 12, -4, 131064, -8])
def test_reactor_with_a_bad_buffer_breaks_the_protocol(h: ModuleType, pointer: int) -> None:
    wat = reactor("(i32.const 0)").replace("i32.const 65536", f"i32.const {pointer}")
    played = h.play(wat, [h.start()])
    assert played.last.outcome == Outcome.PROTOCOL
    assert "lockstep_alloc" in played.last.end.reason


def test_initialize_and_start_function_belong_to_turn_0(h: ModuleType) -> None:
    init = "(func $go (call $submit (i32.const 0) (i32.const 40))) (start $go)"
    init += '(func (export "_initialize") (call $submit (i32.const 0) (i32.const 40)))'
    played = h.play(reactor("(i32.const 0)", EMIT, init), [b""])
    assert [len(turn.emitted) for turn in played.turns] == [2, 0]
    whole_life = h.blocking("nop", EMIT, extra="").replace(
        '(func (export "main") nop)',
        f'(func $life (drop {h.turn_call(0, 40)}) unreachable) (start $life)(func (export "main"))',
    )
    played = h.play(whole_life, [b""])
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED", "TRAPPED"]


def test_main_that_returns_a_code_has_failed(h: ModuleType) -> None:
    wat = '(module (memory (export "memory") 1) (func (export "main") (result i32) (i32.const {})))'
    assert h.play(wat.format(0)).last.outcome == Outcome.RETURNED
    last = h.play(wat.format(-2)).last
    assert (last.outcome, last.end.reason) == (Outcome.EXITED, "main returned -2")


def test_fuel_is_instructions_calls_and_bytes(h: ModuleType) -> None:
    """turn 0: the call and `out`. Turn 1: `in`, then its own call; more bytes cost just more."""

    def fuels(out_len: int, size: int) -> list[int]:
        loop = f"(loop (drop {h.turn_call(0, out_len)}) (br 0))"
        events = encode(Kind.ITEM, bytes(size), item=1)
        fuels: list[int] = h.play(h.blocking(loop, EMIT), [events, b""]).fuels
        return fuels

    plain = fuels(0, 0)
    # Turn 0 also pays for the module's data segment.
    assert HOST_CALL_FUEL + 40 < plain[0] < HOST_CALL_FUEL + 60
    assert [a - b for a, b in zip(fuels(40, 0), plain, strict=True)] == [40, 40, 40]
    assert [a - b for a, b in zip(fuels(0, 800), plain, strict=True)] == [0, 800, 0]
    assert plain[1] - plain[2] == 32  # The header of turn 1's event.


def test_wasi_calls_cost_their_bytes(h: ModuleType) -> None:
    imports = """(import "wasi_snapshot_preview1" "random_get"
      (func $random (param i32 i32) (result i32)))"""

    def fuel(size: int, calls: int) -> int:
        body = f"(drop (call $random (i32.const 0) (i32.const {size})))" * calls
        found: int = h.play(h.blocking(body, extra=imports)).last.end.fuel
        return found

    assert fuel(500, 1) - fuel(0, 1) == 500
    per_call = fuel(0, 2) - fuel(0, 1)
    assert HOST_CALL_FUEL < per_call < HOST_CALL_FUEL + 10


def test_equal_turns_cost_equal_fuel(h: ModuleType) -> None:
    for guest in ("echo", "echo_reactor", "burner"):
        events = [h.start()] + [h.item(1, b"same")] * 1000
        assert len(set(h.play(guest, events).fuels[2:])) == 1, guest


def test_endless_loop_ends_at_the_same_place_in_every_run(h: ModuleType) -> None:
    first = h.play("looper", [h.start(), h.item(1, b"x")], turn_fuel_max=10**6)
    assert (first.status, first.accident) == (0, "")
    assert first.last.outcome == Outcome.OUT_OF_FUEL
    assert (first.last.end.fuel, first.last.end.reason) == (10**6, "turn_fuel_max = 1000000")
    assert h.play("looper", [h.start(), h.item(1, b"x")], turn_fuel_max=10**6) == first


def test_endless_host_calls_end_inside_one(h: ModuleType) -> None:
    imports = """(import "wasi_snapshot_preview1" "fd_write"
      (func $write (param i32 i32 i32 i32) (result i32)))"""
    line = (16).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(8) + b".\n"
    body = (
        "(loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))"
    )
    wat = h.blocking(body, line, extra=imports)
    played = h.play(wat, turn_fuel_max=50_000)
    assert played.last.outcome == Outcome.OUT_OF_FUEL
    assert played.last.logs == ["."] * 49
    assert h.play(wat, turn_fuel_max=50_000) == played


def test_events_that_cost_more_than_the_turn_has_end_it(h: ModuleType) -> None:
    loop = f"(loop (drop {h.turn_call()}) (br 0))"
    played = h.play(h.blocking(loop), [h.item(1, bytes(5000))], turn_fuel_max=4000)
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED", "OUT_OF_FUEL"]
    assert played.last.end.fuel == 4000


NEED = """
  (local $got i32)
  (local.set $got {first})
  (if (i32.ge_s (local.get $got) (i32.const 0)) (then unreachable))
  (local.set $got {second})
  (i32.store (i32.const 28) (local.get $got))
  (drop {third})"""


def test_need_n_keeps_the_events_and_costs_no_turn(h: ModuleType) -> None:
    size = 65536 - 32
    event = encode(Kind.ITEM, bytes(size), item=1)
    grown = "(drop (memory.grow (i32.const 1)))"
    body = NEED.format(
        first=h.turn_call(0, 40, 65536, 100),
        second=f"(block (result i32) {grown} {h.turn_call(0, 0, 65536, 65536)})",
        third=h.turn_call(0, 40, 65536, 65536),
    ).replace(
        "(i32.store (i32.const 28) (local.get $got))", "(i32.store (i32.const 32) (local.get $got))"
    )
    played = h.play(h.blocking(body, EMIT), [event, h.CLOSE])
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED", "BLOCKED", "RETURNED"]
    assert played.turns[0].emitted == [(1, b"12345678")]
    assert played.turns[1].emitted == [(1, (65536).to_bytes(4, "little") + b"5678")]
    # The retry belongs to the turn that the events begin: two calls, `in`, `out`.
    assert (
        2 * HOST_CALL_FUEL + 65536 + 40 < played.turns[1].end.fuel < 2 * HOST_CALL_FUEL + 65600 + 40
    )


def test_need_n_is_answered_again_until_there_is_room(h: ModuleType) -> None:
    body = NEED.format(
        first=h.turn_call(0, 0, 65536, 0),
        second=h.turn_call(0, 0, 65536, 31),
        third=h.turn_call(0, 0, 65536, 32),
    )
    played = h.play(h.blocking(body), [h.CLOSE])
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED", "RETURNED"]


def test_records_after_need_n_break_the_protocol(h: ModuleType) -> None:
    body = NEED.format(
        first=h.turn_call(0, 0, 65536, 0),
        second=h.turn_call(0, 40, 65536, 65536),
        third=h.turn_call(),
    )
    played = h.play(h.blocking(body, EMIT), [h.CLOSE])
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED", "PROTOCOL"]
    assert played.last.end.reason == "turn: out_len is 40 after `need 32`, expected 0"


SIZE = 2 * 65536
BAD_SPANS = [
    (SIZE, 1, 0, 0),
    (0, SIZE + 8, 0, 0),
    (-8, 8, 0, 0),
    (0, -1, 0, 0),
    (-1, -1, 0, 0),
    (SIZE - 8, 16, 0, 0),
    (0, 0, SIZE, 1),
    (0, 0, -1, -1),
    (0, 0, 8, SIZE),
    (0, 40, 0, -1),
]


@pytest.mark.parametrize("arguments", BAD_SPANS)
def test_garbage_pointers_end_the_agent_before_any_read(
    h: ModuleType, arguments: tuple[int, int, int, int]
) -> None:
    played = h.play(h.blocking(f"(drop {h.turn_call(*arguments)})", EMIT), [h.CLOSE])
    assert (played.status, len(played.turns)) == (0, 1)
    assert played.last.outcome == Outcome.PROTOCOL
    assert played.last.records == ()
    assert f"the memory has {SIZE}" in played.last.end.reason


def test_overlapping_buffers_are_fine(h: ModuleType) -> None:
    played = h.play(h.blocking(f"(drop {h.turn_call(0, 40, 0, 64)})", EMIT), [h.CLOSE])
    assert [turn.outcome.name for turn in played.turns] == ["BLOCKED", "RETURNED"]
    assert played.emitted == [(1, b"12345678")]


BAD_OUT = {
    b"\x01" * 40: "record at byte 0: size 16843009, expected 32 to 40 with padding",
    encode(99): "record of kind 99: not one that a guest may write",
    encode(Kind.START): "record of kind 1: not one that a guest may write",
    EMIT + bytes(8): "record at byte 40: 8 bytes, a header needs 32",
    EMIT + EMIT[:32]: "record at byte 40: size 40, expected 32 to 32 with padding",
    EMIT[:28] + b"\1\0\0\0" + EMIT[32:]: "record at byte 0: reserved field is 1, expected 0",
}


@pytest.mark.parametrize("out", BAD_OUT)
def test_bad_records_end_the_agent_and_name_the_field(h: ModuleType, out: bytes) -> None:
    played = h.play(h.blocking(f"(drop {h.turn_call(0, len(out))})", out), [h.CLOSE])
    assert (played.last.outcome, played.last.end.reason) == (Outcome.PROTOCOL, BAD_OUT[out])
    assert played.last.records == ()


def test_limits_of_out_are_named(h: ModuleType) -> None:
    wat = h.blocking(f"(drop {h.turn_call(0, 80)})", EMIT + EMIT)
    for limit, most, reason in [
        ("turn_out_bytes_max", 79, "turn_out_bytes_max = 79: 80 bytes in one turn"),
        ("record_bytes_max", 39, "record_bytes_max = 39: EMIT of 40 bytes"),
    ]:
        played = h.play(wat, [h.CLOSE], **{limit: most})
        assert (played.last.outcome, played.last.end.reason) == (Outcome.OVER_LIMIT, reason)
        assert len(h.play(wat, [h.CLOSE], **{limit: most + 1}).turns) == 2


TRAPS = {
    "unreachable": "UNREACHABLE",
    "(drop (i32.load (i32.const -8)))": "MEMORY_OUT_OF_BOUNDS",
    "(drop (i32.div_s (i32.const 1) (i32.const 0)))": "INTEGER_DIVISION_BY_ZERO",
    "(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))": "INTEGER_OVERFLOW",
    "(drop (i32.trunc_f32_s (f32.const nan)))": "BAD_CONVERSION_TO_INTEGER",
    "(call_indirect (i32.const 0))": "INDIRECT_CALL_TO_NULL",
    "(call_indirect (i32.const 9))": "TABLE_OUT_OF_BOUNDS",
    "(call_indirect (i32.const 1))": "BAD_SIGNATURE",
    "(call $deep)": "STACK_OVERFLOW",
}


@pytest.mark.parametrize("body", TRAPS)
def test_trap_is_named_by_its_code(h: ModuleType, body: str) -> None:
    extra = "(table 2 funcref) (elem (i32.const 1) $turn) (func $deep (call $deep))"
    wat = h.blocking(body).replace("(data", f"{extra} (data", 1)
    played = h.play(wat)
    assert (played.status, played.accident) == (0, "")
    assert (played.last.outcome, played.last.end.reason) == (Outcome.TRAPPED, TRAPS[body])


def test_memory_and_table_bombs_are_refused_or_bounded(h: ModuleType) -> None:
    first = h.play(h.blocking("nop", pages=300), memory_bytes_max=1 << 20)
    assert (first.last.outcome, first.last.end.reason) == (
        Outcome.OVER_LIMIT,
        "memory_bytes_max = 1048576: the module starts with 19660800 bytes",
    )
    tables = h.blocking("nop").replace("(data", "(table 1001 funcref) (data", 1)
    assert h.play(tables).last.outcome == Outcome.OVER_LIMIT
    assert h.play(tables, table_elements_max=1001).last.outcome == Outcome.RETURNED
    many = h.blocking("nop").replace("(data", "(table 1 funcref) " * 17 + "(data", 1)
    assert h.play(many).last.outcome == Outcome.OVER_LIMIT
    grow = """(if (i32.ne (table.grow 0 (ref.null func) (i32.const 5000)) (i32.const -1))
      (then unreachable))"""
    table = h.blocking(grow).replace("(data", "(table 1 funcref) (data", 1)
    assert h.play(table).last.outcome == Outcome.RETURNED


def test_clock_follows_the_steps_of_the_wakes(h: ModuleType) -> None:
    events = [h.start(), h.item(1, b""), h.item(2, b"")]
    played = h.play("hello_wasi", events, steps=(0, 3, 3))
    assert [payload[:34] for _, payload in played.emitted] == [
        b'{"s": 946684800, "ns": 3000000, "r',
        b'{"s": 946684800, "ns": 3001000, "r',
    ]
