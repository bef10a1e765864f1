"""Publishing fuel while a guest runs: seen by the supervisor, and by nothing else."""

import ctypes
import hashlib
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.engine import keyed
from lockstep.engine.record import Kind, Outcome, decode, encode
from lockstep.workers.agent import native
from lockstep.workers.agent.guest import Guest
from lockstep.workers.agent.process import EXIT_ACCIDENT, EXIT_LEFT, agent_main

needs_pausing = pytest.mark.skipif(native.pausing() is None, reason="guests cannot be paused here")

RANDOM = """(import "wasi_snapshot_preview1" "random_get"
  (func $random (param i32 i32) (result i32)))"""
DRAW = "(drop (call $random (i32.const 64) (i32.const 8)))"
ENDLESS_CALLS = f"(loop {DRAW} (br 0))"


def same_with_and_without(
    h: ModuleType, guest: str, quantum: int, *events: bytes, **more: Any
) -> Any:
    """Play a guest with publishing and without; what it published, if all else is equal."""
    plain = h.play(guest, events, fuel_per_step=0, **more)
    told = h.play(guest, events, fuel_per_step=quantum, **more)
    assert (told, plain.progress) == (plain, [])
    return told


def check_bounds(played: Any, quantum: int) -> None:
    """Each publication passes another quantum and never says more than the turn burns."""
    for turn in played.turns:
        told = [fuel for number, fuel in played.progress if number == turn.end.turn]
        quanta = [0, *(fuel // quantum for fuel in told)]
        assert all(a < b for a, b in pairwise(quanta))
        assert all(fuel <= turn.end.fuel for fuel in told)


@pytest.mark.parametrize("quantum", [1, 7, 1000, 12_345, 10**6, 10**18])
@pytest.mark.parametrize("guest", ["echo", "echo_reactor", "hello_wasi", "burner", "chatter"])
def test_turns_are_the_same_with_and_without(h: ModuleType, guest: str, quantum: int) -> None:
    events = [h.start({"loops": 4000}), *(h.item(n, b"x" * n) for n in range(1, 9)), h.CLOSE]
    check_bounds(same_with_and_without(h, guest, quantum, *events), quantum)


@needs_pausing
def test_a_turn_that_only_computes_is_known_to_the_quantum(h: ModuleType) -> None:
    events = h.start({"loops": 100_000}), h.item(1, b"x"), h.CLOSE
    played = same_with_and_without(h, "burner", 10_000, *events)
    working = played.turns[2].end
    told = [fuel // 10_000 for turn, fuel in played.progress if turn == 2]
    assert working.fuel // 10_000 > 50
    assert told == list(range(1, working.fuel // 10_000 + 1))
    assert {turn for turn, _ in played.progress} == {2}  # The others are cheaper than a quantum.


@needs_pausing
def test_a_turn_of_host_calls_is_published_though_it_never_pauses(h: ModuleType) -> None:
    wat = h.blocking(ENDLESS_CALLS, extra=RANDOM)
    played = same_with_and_without(h, wat, 5000, turn_fuel_max=100_000)
    assert (played.last.outcome, played.last.end.fuel) == (Outcome.OUT_OF_FUEL, 100_000)
    assert [fuel // 5000 for _, fuel in played.progress] == list(range(1, 20))


@needs_pausing
def test_bytes_of_a_turns_events_are_published_as_its_own(h: ModuleType) -> None:
    loop = f"(loop (drop {h.turn_call()}) (br 0))"
    played = same_with_and_without(h, h.blocking(loop), 4000, h.item(1, bytes(5000)), h.CLOSE)
    assert played.progress == [(1, 5032)]


@pytest.mark.parametrize("quantum", [1, 999, 1000, 1001, 333_333])
def test_fuel_ends_at_the_same_instruction(h: ModuleType, quantum: int) -> None:
    """The guest counts in memory, and only there."""
    body = """(loop (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
      (br 0))"""
    found = set()
    for fuel_per_step in (0, quantum):
        guest, played = run(h, h.blocking(body), fuel_per_step, turn_fuel_max=654_321)
        assert played.last.outcome == Outcome.OUT_OF_FUEL
        found.add((memory_of(guest), played.last.end))
    assert len(found) == 1


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("params", [1, 2, 3, 5, 8])
def test_stack_ends_at_the_same_depth(h: ModuleType, params: int, before: int) -> None:
    """Frames of several sizes, begun at several distances from the end."""
    numbers = " ".join(["i64"] * params)
    used = "(local.get 0)"
    for place in range(1, params):
        used = f"(i64.add {used} (local.get {place}))"
    rest = " ".join(f"(local.get {place})" for place in range(1, params))
    first = f"(drop (call $deep {' '.join(['(i64.const 1)'] * params)}))"
    deep = f"""(func $deep (param {numbers}) (result i64)
      (i64.add (call $deep (i64.add (local.get 0) (i64.const 1)) {rest}) {used}))
      (func $step0 {first})"""
    for place in range(before):
        deep += f"(func $step{place + 1} (call $step{place}))"
    wat = f"""(module (memory (export "memory") 1) {deep}
      (func (export "main") (call $step{before})))"""
    played = same_with_and_without(h, wat, 1000)
    assert played.last.end.reason == "STACK_OVERFLOW"


@needs_pausing
def test_host_calls_have_room_at_the_end_of_the_guests_stack(h: ModuleType) -> None:
    """Host functions run on the stack that the guest has nearly used up; they publish, too."""
    deep = f"""(func $deep (param i64) (result i64)
      {DRAW} (i64.add (call $deep (local.get 0)) (i64.const 1)))"""
    wat = h.blocking("(drop (call $deep (i64.const 1)))", extra=RANDOM + deep)
    played = same_with_and_without(h, wat, 1)
    assert played.last.end.reason == "STACK_OVERFLOW"
    assert len(played.progress) > 10_000


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.tuples(st.just("loop"), st.integers(1, 3000)),
            st.tuples(st.just("draw"), st.integers(0, 200)),
            st.tuples(st.just("fill"), st.integers(0, 60_000)),
            st.tuples(st.just("grow"), st.integers(0, 200)),
            st.tuples(st.just("trap"), st.just(0)),
            st.tuples(st.just("turn"), st.integers(0, 1)),
        ),
        min_size=1,
        max_size=8,
    ),
    quantum=st.integers(1, 20_000),
    fuel_max=st.integers(1, 60_000),
)
def test_any_guest_is_the_same_with_and_without(
    h: ModuleType, parts: list[tuple[str, int]], quantum: int, fuel_max: int
) -> None:
    code = {
        "loop": lambda n: (
            f"""(local.set 0 (i32.const {n})) (loop
          (i32.store (i32.const 128) (i32.add (i32.load (i32.const 128)) (local.get 0)))
          (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))"""
        ),
        "draw": lambda n: f"(drop (call $random (i32.const 256) (i32.const {n})))",
        "fill": lambda n: f"(memory.fill (i32.const 1024) (i32.const 7) (i32.const {n}))",
        "grow": lambda n: f"(drop (memory.grow (i32.const {n})))",
        "trap": lambda n: "unreachable",
        "turn": lambda n: f"(drop {h.turn_call(0, 40 * n)})",
    }
    emit = encode(Kind.EMIT, b"12345678", item=1)
    body = "(local i32) " + " ".join(code[name](n) for name, n in parts)
    wat = h.blocking(body, emit, extra=RANDOM)
    found = []
    for fuel_per_step in (0, quantum):
        guest, played = run(h, wat, fuel_per_step, turn_fuel_max=fuel_max, memory_bytes_max=1 << 20)
        check_bounds(played, quantum)
        found.append((memory_of(guest), played))
    assert found[0] == found[1]


def test_without_the_functions_for_it_nothing_is_published(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = native._library

    class Older:
        def __getitem__(self, name: str) -> Any:
            if "async" in name or "future" in name:
                raise AttributeError(name)
            return library[name]

    monkeypatch.setattr(native, "_library", Older())
    check_nothing_is_published(h)


def test_where_a_second_stack_is_fatal_nothing_is_published(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "PAUSABLE_BELOW", (3, 11))
    check_nothing_is_published(h)


def check_nothing_is_published(h: ModuleType) -> None:
    assert native.pausing() is None
    events = h.start({"loops": 100_000}), h.item(1, b"x"), h.CLOSE
    assert same_with_and_without(h, "burner", 1000, *events).progress == []
    calls = h.blocking(ENDLESS_CALLS, extra=RANDOM)
    assert same_with_and_without(h, calls, 1000, turn_fuel_max=10**5).progress == []


@needs_pausing
@pytest.mark.parametrize("body", [ENDLESS_CALLS, "(loop (br 0))"])
def test_channel_that_breaks_while_publishing_is_an_accident(h: ModuleType, body: str) -> None:
    class Breaking(h.ScriptedChannel):  # type: ignore[misc,name-defined]
        def send(self, records: bytes) -> None:
            if any(record.kind == Kind.PROGRESS for record in decode(records)):
                raise OSError("gone")
            super().send(records)

    channel = Breaking(lambda turn: None)
    spec = h.spec(h.compiled(h.blocking(body, extra=RANDOM)), fuel_per_step=10_000)
    assert agent_main(spec, channel) == EXIT_ACCIDENT
    assert (channel.played.turns, channel.played.accident) == ([], "OSError: gone")


def test_exception_after_a_pause_is_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(stream: bytes, number: int, size: int) -> bytes:
        raise MemoryError("host")

    monkeypatch.setattr(keyed, "fill", fill)
    work = """(local i32) (local.set 0 (i32.const 9000))
      (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))"""
    played = h.play(h.blocking(f"{work} {DRAW}", extra=RANDOM), fuel_per_step=1000)
    assert (played.status, played.turns) == (EXIT_ACCIDENT, [])
    assert played.accident == "MemoryError: host"


def test_shutdown_reaches_a_guest_that_was_paused_before(h: ModuleType) -> None:
    for guest in ("burner", "echo_reactor"):
        played = h.play(guest, [h.start({"loops": 9000}), h.item(1, b"")], fuel_per_step=500)
        assert (played.status, len(played.turns), played.accident) == (EXIT_LEFT, 3, "")


def run(h: ModuleType, wat: str, fuel_per_step: int, **changes: Any) -> tuple[Guest, Any]:
    """As `play`, the guest at hand. Each of its turns is answered with one event."""
    channel = h.ScriptedChannel(lambda turn: h.CLOSE)
    spec = h.spec(h.compiled(wat), fuel_per_step=fuel_per_step, **changes)
    guest = Guest(spec, channel, lambda: None)
    guest.run()
    return guest, channel.played


def memory_of(guest: Guest) -> bytes:
    """A hash of all linear memory."""
    linear = guest._memory._find()
    return hashlib.sha256(ctypes.string_at(linear.base, linear.size)).digest()
