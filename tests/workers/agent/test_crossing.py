"""Numbers, errors and fuel on their way between host and guest, past wasmtime's own wrappers."""

from collections.abc import Callable
from typing import Any

import pytest
from wasmtime import Linker, Module, Store, Trap, WasmtimeError, wat2wasm

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import Outcome
from lockstep.workers.agent import native
from lockstep.workers.agent.crossing import Crossing, DirectCrossing, HostCalls, PausedCrossing
from lockstep.workers.agent.engine_config import guest_engine
from lockstep.workers.agent.fuel import HOST_CALL_FUEL, Fuel
from lockstep.workers.agent.spec import GuestStopped

TURN_MAX = 100_000


class Crossed:
    """A module with one host function ``h.f``, entered directly or paused every 50 units."""

    def __init__(
        self, wat: str, signature: tuple[tuple[str, ...], tuple[str, ...]], f: Any, paused: bool
    ) -> None:
        engine = guest_engine()
        self.engine = engine
        module = Module(engine.engine, wat2wasm(wat))
        store = Store(engine.engine)
        self.fuel = Fuel(native.Tank(store), TURN_MAX)
        host = HostCalls(self.fuel)
        self.crossing: Crossing = DirectCrossing(store, host, self.fuel)
        if paused:
            pausing = native.pausing()
            if pausing is None:
                pytest.skip("guests cannot be paused here")
            self.crossing = PausedCrossing(store, host, self.fuel, pausing, 50)
        linker = Linker(engine.engine)
        host.define(linker, "h", "f", signature, f)
        self.fuel.begin_turn()
        exports: Any = self.crossing.instantiate(linker, module).exports(store)
        self.call = self.crossing.export(exports["g"])


BOTH = pytest.mark.parametrize("paused", [False, True], ids=["direct", "paused"])
MIXED = """(module (import "h" "f" (func $f (param i32 i64 i32 i64) (result i32)))
  (memory (export "memory") 1)
  (func (export "g") (param i32 i32) (result i32)
    (call $f (local.get 0) (i64.const {a}) (local.get 1) (i64.const {b}))))"""


@BOTH
@pytest.mark.parametrize("narrow", [0, 1, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("wide", [0, -1, 2**32, -(2**32) - 1, 2**63 - 1, -(2**63), 0xFFFF_FFFF])
def test_numbers_of_both_widths_arrive_signed_and_whole(
    narrow: int, wide: int, paused: bool
) -> None:
    seen: list[tuple[int, ...]] = []

    def f(*arguments: int) -> int:
        seen.append(arguments)
        return narrow

    signature = (("i32", "i64", "i32", "i64"), ("i32",))
    crossed = Crossed(MIXED.format(a=wide, b=~wide), signature, f, paused)
    assert crossed.call(narrow, 7) == narrow
    assert seen == [(narrow, wide, 7, ~wide)]


NOTHING = """(module (import "h" "f" (func $f)) (memory (export "memory") 1)
  (func (export "g") (call $f) {then}))"""


@BOTH
def test_function_without_arguments_and_result(paused: bool) -> None:
    calls: list[int] = []
    crossed = Crossed(NOTHING.format(then=""), ((), ()), lambda: calls.append(1), paused)
    assert (crossed.call(), crossed.call(), calls) == (0, 0, [1, 1])


def raises(error: BaseException) -> Callable[[], None]:
    def f() -> None:
        raise error

    return f


@BOTH
@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit(3), OSError(5)])
def test_what_a_host_function_raises_comes_out_as_itself(
    error: BaseException, paused: bool
) -> None:
    crossed = Crossed(NOTHING.format(then="unreachable"), ((), ()), raises(error), paused)
    for _ in range(2):  # Nothing of it is left behind.
        with pytest.raises(type(error)) as caught:
            crossed.call()
        assert caught.value is error


@BOTH
def test_broken_protocol_is_the_guests_own_end(paused: bool) -> None:
    crossed = Crossed(NOTHING.format(then=""), ((), ()), raises(ProtocolError("bad peer")), paused)
    with pytest.raises(GuestStopped, match="bad peer") as stop:
        crossed.call()
    assert stop.value.outcome == Outcome.PROTOCOL


@BOTH
def test_result_of_a_wrong_type_is_not_handed_to_the_guest(paused: bool) -> None:
    signature = (("i32", "i64", "i32", "i64"), ("i32",))
    crossed = Crossed(MIXED.format(a=1, b=2), signature, lambda *_: None, paused)
    with pytest.raises(TypeError):
        crossed.call(1, 2)


@BOTH
def test_trap_after_a_host_call_is_a_trap(paused: bool) -> None:
    crossed = Crossed(NOTHING.format(then="unreachable"), ((), ()), lambda: None, paused)
    for _ in range(2):
        with pytest.raises(Trap):
            crossed.call()
    assert crossed.fuel.burnt() > 2 * HOST_CALL_FUEL


@BOTH
def test_missing_import_is_an_error_not_a_crash(paused: bool) -> None:
    wat = '(module (import "h" "other" (func)) (memory (export "memory") 1) (func (export "g")))'
    with pytest.raises(WasmtimeError, match="other"):
        Crossed(wat, ((), ()), lambda: None, paused)


@BOTH
def test_host_has_the_fuel_while_it_runs(paused: bool) -> None:
    """What it charges inside a call is gone afterwards, and running dry ends the guest there."""
    box: list[Crossed] = []
    burnt: list[int] = []

    def f() -> None:
        box[0].fuel.charge(20_000)
        burnt.append(box[0].fuel.burnt())

    loop = NOTHING.format(then="(loop (call $f) (br 0))")
    box.append(Crossed(loop, ((), ()), f, paused))
    with pytest.raises(GuestStopped) as stop:
        box[0].call()
    assert stop.value.outcome == Outcome.OUT_OF_FUEL
    assert [fuel // 1000 for fuel in burnt] == [21, 42, 63, 84]
    assert box[0].fuel.burnt() == TURN_MAX


def test_publications_are_told_once_per_quantum() -> None:
    class Tank:
        left = 0

        def get_fuel(self) -> int:
            return self.left

        def set_fuel(self, fuel: int) -> None:
            self.left = fuel

    tank, told = Tank(), list[int]()
    fuel = Fuel(tank, 1000, 100, told.append)
    fuel.begin_turn()
    fuel.give()
    for left in (901, 900, 899, 801, 550):
        tank.left = left
        fuel.peek()
    fuel.take()
    fuel.charge(60)
    fuel.give()
    assert told == [100, 450, 510]
    fuel.begin_turn()
    fuel.charge(99)
    fuel.give()
    assert told == [100, 450, 510]
    tank.left = 0
    fuel.peek()
    assert told[3:] == [1000]
