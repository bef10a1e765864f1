"""A guest that goes on from a snapshot is the one that was never stopped."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.engine.record import Kind, Outcome, encode, encode_wake
from lockstep.workers.agent.keeper import Keeper
from lockstep.workers.agent.linear import PAGE_BYTES
from lockstep.workers.agent.process import EXIT_ACCIDENT, EXIT_LEFT, agent_main
from lockstep.workers.agent.snapshot import Held, Store

MEMORY_MAX = 16 << 20
COMMANDS = "bwzgrcolm"

# Everything that the C guest does not have: wide globals, a table, a start function, and records
# and randomness before the first turn.
WIDE = """(module
  (import "lockstep" "submit" (func $submit (param i32 i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1 40)
  (global $v (mut v128) (v128.const i64x2 -1 0x7ff0dead00000001))
  (global $d (mut f64) (f64.const nan:0x4000000000001)) (global $f (mut f32) (f32.const 1))
  (global $i (mut i32) (i32.const 7)) (global $never (mut i64) (i64.const 99))
  (table 2 funcref) (elem (i32.const 0) func $one $two)
  (func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))
  (func $emit (i32.store (i32.const 0) (i32.const 48)) (i32.store16 (i32.const 4) (i32.const 34))
    (i32.store (i32.const 16) (i32.const 1)) (i32.store (i32.const 24) (i32.const -1))
    (call $submit (i32.const 0) (i32.const 48)))
  (func $go (drop (call $random (i32.const 32) (i32.const 8))) (call $emit)) (start $go)
  (func (export "_initialize") (global.set $i (i32.const 1000)) (call $go))
  (func (export "lockstep_alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "on_events") (param i32 i32) (result i32)
    (global.set $v (i64x2.add (global.get $v) (v128.load (i32.const 32))))
    (global.set $d (f64.reinterpret_i64
      (i64.add (i64.reinterpret_f64 (global.get $d)) (i64.const 1))))
    (global.set $f (f32.mul (global.get $f) (f32.const 1.25)))
    (global.set $i (i32.add (global.get $i)
      (call_indirect (result i32) (i32.and (global.get $i) (i32.const 1)))))
    (drop (memory.grow (i32.const 1)))
    (i32.store (i32.mul (i32.sub (memory.size) (i32.const 1)) (i32.const 65536)) (global.get $i))
    (v128.store (i32.const 32) (global.get $v))
    (i64.store (i32.const 40) (i64.reinterpret_f64 (global.get $d)))
    (call $go) (i32.const 0)))"""


class Watching(Keeper):
    """Sees the whole state after each turn, and takes snapshots as ever."""

    def __init__(self, store: Store, every: int, after: int | None = None) -> None:
        super().__init__(store, every, after)
        self.seen: dict[int, tuple[Held, bytes]] = {}

    def look(self, turn: int) -> None:
        insides = self._insides()
        self.seen[turn] = insides.held(turn), insides.memory().tobytes()
        super().look(turn)


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store.create(MEMORY_MAX)
    yield made
    made.close()


def live(
    h: ModuleType, source: str, batches: Sequence[bytes], keeper: Keeper | None, **changes: Any
) -> Any:
    """Play a guest; it is given ``batches`` from the turn on that its keeper lets it begin with."""
    first = 1 if keeper is None or keeper.after is None else keeper.after + 1
    turns = iter(range(first, len(batches) + 1))

    def wake() -> bytes:
        turn = next(turns, None)
        if turn is None:
            return encode(Kind.SHUTDOWN)
        return encode_wake(turn, turn * 3, 0, batches[turn - 1], 1)

    channel = h.ScriptedChannel(lambda turn: None)
    channel._next = wake
    code = h.compiled(source)
    channel.played.status = agent_main(h.spec(code, **changes), channel, keeper=keeper)
    return channel.played


def items(h: ModuleType, payloads: Sequence[bytes]) -> list[bytes]:
    return [h.start(), *(h.item(number, data) for number, data in enumerate(payloads, 1))]


def check_every_snapshot(h: ModuleType, source: str, batches: list[bytes], every: int) -> None:
    """Kill the guest after each turn: what goes on from its snapshot is what would have gone on."""
    whole, store = Watching(Store.create(MEMORY_MAX), 10**9), Store.create(MEMORY_MAX)
    undisturbed = live(h, source, batches, whole)
    assert live(h, source, batches, None) == undisturbed
    assert (undisturbed.status, undisturbed.accident) == (EXIT_LEFT, "")
    for stop in range(1, len(batches) + 1):
        assert live(h, source, batches[:stop], Keeper(store, every)).status == EXIT_LEFT
        newest = store.newest(stop)
        assert newest == (stop // every * every or None)
        if newest is None:
            continue
        again = Watching(store, 10**9, newest)
        played = live(h, source, batches, again)
        assert (played.status, played.accident, played.ready) == (EXIT_LEFT, "", 1)
        assert played.turns == undisturbed.turns[newest + 1 :]
        assert again.seen == {t: state for t, state in whole.seen.items() if t > newest}
    store.close()


@pytest.mark.usefixtures("crossings")
def test_state_of_every_kind_is_there_again(h: ModuleType) -> None:
    payloads = [b"b\x05w\x21", b"g\0w\x28", b"r\0c\0", b"w\x05l\0", b"z\x21o\0", b"g\0w\x31m\0"]
    check_every_snapshot(h, "keeper", items(h, [*payloads, b"l\0b\xfe", *payloads]), 2)


@pytest.mark.usefixtures("crossings")
def test_wide_globals_a_table_and_a_start_function(h: ModuleType) -> None:
    check_every_snapshot(h, WIDE, [b""] * 9, 3)


payloads = st.lists(
    st.lists(st.tuples(st.sampled_from(COMMANDS), st.integers(0, 255)), max_size=6).map(
        lambda commands: b"".join(what.encode() + bytes((much,)) for what, much in commands)
    ),
    min_size=1,
    max_size=8,
)


@given(payloads, st.integers(1, 4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_going_on_from_any_snapshot_is_never_having_stopped(
    h: ModuleType, payloads: list[bytes], every: int
) -> None:
    check_every_snapshot(h, "keeper", items(h, payloads), every)


def test_a_start_function_runs_again_and_nothing_of_it_is_sent_again(
    h: ModuleType, store: Store
) -> None:
    played = live(h, WIDE, [b""] * 4, Keeper(store, 1))
    assert [len(turn.records) for turn in played.turns] == [2, 1, 1, 1, 1]
    again = live(h, WIDE, [b""] * 6, Keeper(store, 1, 4))
    assert [turn.end.turn for turn in again.turns] == [5, 6]
    assert [len(turn.records) for turn in again.turns] == [1, 1]


def test_a_guest_that_goes_on_takes_snapshots_of_its_own(h: ModuleType, store: Store) -> None:
    batches = items(h, [b"b\x01w\x02"] * 19)
    live(h, "keeper", batches[:7], Keeper(store, 3))
    live(h, "keeper", batches[:13], Keeper(store, 3, 6))
    assert [store.newest(turn) for turn in (8, 9, 11, 12, 99)] == [None, 9, 9, 12, 12]
    assert (
        live(h, "keeper", batches, Keeper(store, 3, 12)).turns
        == (live(h, "keeper", batches, None).turns[13:])
    )


def test_a_snapshot_is_taken_when_the_turns_end_was_sent(h: ModuleType, store: Store) -> None:
    """So whoever has a snapshot of a turn has its records, too."""
    ended: list[tuple[int | None, int]] = []

    class Looking(Keeper):
        def look(self, turn: int) -> None:
            before = store.newest(10**9)
            super().look(turn)
            ended.append((before, len(channel.played.turns)))

    rest = iter(items(h, [b"b\1"] * 3))
    channel = h.ScriptedChannel(lambda turn: next(rest, None))
    agent_main(h.spec(h.compiled("keeper")), channel, keeper=Looking(store, 1))
    assert ended == [(None, 2), (1, 3), (2, 4), (3, 5)]


@pytest.mark.parametrize("end, outcome", [(b"t\0", Outcome.TRAPPED), (b"m\0" * 900, None)])
def test_the_end_of_a_guest_comes_at_the_same_place(
    h: ModuleType, store: Store, end: bytes, outcome: Outcome | None
) -> None:
    batches = items(h, [b"g\0w\x40", b"r\0l\0", end])
    whole = live(h, "keeper", batches, Keeper(store, 2), turn_fuel_max=10**8)
    assert whole.last.outcome == (outcome or Outcome.OUT_OF_FUEL)
    again = live(h, "keeper", batches, Keeper(store, 2, 2), turn_fuel_max=10**8)
    assert again.turns == whole.turns[3:]


def test_blocking_guests_and_those_with_other_state_take_no_snapshots(
    h: ModuleType, store: Store
) -> None:
    other = WIDE.replace("(call $go) (i32.const 0)", "(call $go) (elem.drop 0) (i32.const 0)")
    for source, batches in (("echo", items(h, [b"a"] * 3)), (other, [b""] * 4)):
        played = live(h, source, batches, Keeper(store, 1))
        assert played == live(h, source, batches, None)
        assert len(played.turns) == 5 and store.newest(10**9) is None


def test_without_room_for_snapshots_the_guest_goes_on(h: ModuleType) -> None:
    small = Store.create(PAGE_BYTES)
    batches = items(h, [b"w\1"] * 4)
    whole = live(h, "keeper", batches, None)

    class Refusing(Store):
        def write(self, held: Held, memory: Any) -> None:
            raise OSError("no room")

    keeper = Keeper(Refusing(small.descriptor, MEMORY_MAX), 1)
    assert live(h, "keeper", batches, keeper) == whole
    assert str(keeper.failed) == "no room"
    small.close()


@pytest.mark.parametrize("after", [2, 3])
def test_a_snapshot_that_cannot_be_put_back_is_an_accident(
    h: ModuleType, store: Store, after: int
) -> None:
    live(h, WIDE, [b""] * 2, Keeper(store, 2))
    played = live(h, "keeper", items(h, [b""] * 4), Keeper(store, 2, after))
    assert (played.status, played.turns) == (EXIT_ACCIDENT, [])
    assert "5 globals" in played.accident or "no snapshot of turn 3" in played.accident
