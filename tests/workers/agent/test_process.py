"""Accidents: what is not the guest's doing must never look like it."""

import sys
from types import ModuleType

import pytest
import wasmtime

from lockstep.engine import keyed
from lockstep.engine.record import Kind, decode
from lockstep.workers.agent import process
from lockstep.workers.agent.process import EXIT_ACCIDENT, EXIT_LEFT, agent_main
from lockstep.workers.agent.turn import TurnRecords

pytestmark = pytest.mark.usefixtures("crossings")

RANDOM = """(import "wasi_snapshot_preview1" "random_get"
  (func $random (param i32 i32) (result i32)))"""


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit, ValueError])
def test_exception_in_a_host_function_is_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fill(stream: bytes, number: int, size: int) -> bytes:
        raise error("not the guest's doing\nsecond line")

    monkeypatch.setattr(keyed, "fill", fill)
    played = h.play(h.blocking("(drop (call $random (i32.const 0) (i32.const 8)))", extra=RANDOM))
    assert (played.status, played.turns) == (EXIT_ACCIDENT, [])
    assert played.accident == f"{error.__name__}: not the guest's doing"


def test_exception_that_ctypes_swallows_is_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest goes on with a wrong result; its turn must not end."""

    def fill(stream: bytes, number: int, size: int) -> bytes:
        try:
            raise KeyboardInterrupt("lost")
        except KeyboardInterrupt as lost:
            hook = type("Args", (), {"exc_value": lost})
            sys.unraisablehook(hook)  # type: ignore[arg-type]
        return bytes(size)

    monkeypatch.setattr(keyed, "fill", fill)
    before = sys.unraisablehook
    played = h.play(h.blocking("(drop (call $random (i32.const 0) (i32.const 8)))", extra=RANDOM))
    assert (played.status, played.turns) == (EXIT_ACCIDENT, [])
    assert played.accident == "KeyboardInterrupt: lost"
    assert sys.unraisablehook is before


def test_bug_in_our_own_bookkeeping_is_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(self: TurnRecords, data: bytes) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(TurnRecords, "submit", submit)
    played = h.play("echo", [h.start()])
    assert (played.status, played.turns, played.accident) == (75, [], "AssertionError: a bug")


def test_malformed_wake_is_an_accident_not_a_protocol_error(h: ModuleType) -> None:
    class Broken(h.ScriptedChannel):  # type: ignore[misc,name-defined]
        def receive(self) -> bytes:
            return b"\xff" * 64

    channel = Broken(lambda turn: None)
    assert agent_main(h.spec(h.compiled("echo")), channel) == EXIT_ACCIDENT
    assert [turn.outcome.name for turn in channel.played.turns] == ["BLOCKED"]


def test_code_of_another_engine_is_an_accident_before_ready(h: ModuleType) -> None:
    engine = wasmtime.Engine()
    code = wasmtime.Module(engine, wasmtime.wat2wasm("(module)")).serialize()
    channel = h.ScriptedChannel(lambda turn: None)
    assert agent_main(h.spec(bytes(code)), channel) == EXIT_ACCIDENT
    played = channel.played
    assert (played.ready, played.turns) == (0, [])
    assert played.accident.startswith("WasmtimeError: ")
    assert "\n" not in played.accident


def test_broken_channel_is_said_by_the_exit_status(h: ModuleType) -> None:
    class Deaf:
        def send(self, records: bytes) -> None:
            raise OSError("gone")

        def receive(self) -> bytes:
            raise OSError("gone")

        def exchange(self, records: bytes) -> bytes:
            raise OSError("gone")

    assert agent_main(h.spec(h.compiled("echo")), Deaf()) == EXIT_ACCIDENT


def test_shutdown_leaves_without_an_end(h: ModuleType) -> None:
    for guest in ("echo", "echo_reactor"):
        played = h.play(guest, [h.start()])
        assert (played.status, len(played.turns), played.accident) == (EXIT_LEFT, 2, "")


def test_ready_comes_after_confinement_and_before_any_guest_code(h: ModuleType) -> None:
    order: list[str] = []

    class Noting(h.ScriptedChannel):  # type: ignore[misc,name-defined]
        def send(self, records: bytes) -> None:
            order.extend(Kind(each.kind).name for each in decode(records))
            super().send(records)

    wat = """(module (memory (export "memory") 1) (func $f unreachable) (start $f)
      (func (export "main")))"""
    channel = Noting(lambda turn: None)
    status = agent_main(h.spec(h.compiled(wat)), channel, lambda: order.append("confined"))
    assert (status, order) == (0, ["confined", "READY", "END"])


def test_refused_confinement_is_an_accident(h: ModuleType) -> None:
    def confine() -> None:
        raise PermissionError("landlock")

    channel = h.ScriptedChannel(lambda turn: None)
    assert agent_main(h.spec(h.compiled("echo")), channel, confine) == EXIT_ACCIDENT
    assert (channel.played.ready, channel.played.accident) == (0, "PermissionError: landlock")


def test_long_reason_is_cut(h: ModuleType) -> None:
    def confine() -> None:
        raise ValueError("x" * 10_000)

    channel = h.ScriptedChannel(lambda turn: None)
    agent_main(h.spec(h.compiled("echo")), channel, confine)
    assert len(channel.played.accident) == process.ACCIDENT_REASON_MAX
