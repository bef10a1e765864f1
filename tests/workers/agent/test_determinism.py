"""Two runs, two processes, another depth of the host's stack: the same bits."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("crossings")

# Fuel is stored before each call, so that the fuel of the turn tells how deep it came.
DEEP = """(module (memory (export "memory") 1)
  (func $deep (param i64 f64) (result i64)
    (i64.add (call $deep (i64.add (local.get 0) (i64.const 1)) (local.get 1)) (local.get 0)))
  (func (export "main") (drop (call $deep (i64.const 0) (f64.const 1)))))"""


def below(depth: int, run: Callable[[], Any]) -> Any:
    """Call ``run`` with some more frames on the interpreter's stack and on the machine's."""
    if depth == 0:
        return run()
    found: list[Any] = []
    sorted([depth], key=lambda _: found.append(below(depth - 1, run)) or 0)
    return found[0]


def test_stack_ends_at_the_same_depth_whatever_lies_below(h: ModuleType) -> None:
    first = h.play(DEEP)
    assert first.last.end.reason == "STACK_OVERFLOW"
    assert first.last.end.fuel > 90_000
    assert all(below(depth, lambda: h.play(DEEP)) == first for depth in range(1, 30))


def test_clock_and_random_are_equal_in_two_runs_and_not_for_another_agent(h: ModuleType) -> None:
    events = [h.start(), h.item(1, b"")]
    first, second, other, seed = (
        h.play("hello_wasi", events, **changes)
        for changes in ({}, {}, {"name": "other"}, {"seed": 8})
    )
    assert first == second
    assert first.emitted != other.emitted
    assert first.emitted != seed.emitted
    assert len({each.emitted[0][1][:34] for each in (first, other, seed)}) == 1


CHILD = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import harness as h
h.FUEL_PER_STEP = int(sys.argv[3])
events = [h.start({"loops": 5000}), *(h.item(n, b"x" * n) for n in range(1, 50)), h.CLOSE]
for guest in ("burner", "hello_wasi", "echo_reactor"):
    played = h.play(guest, events)
    for turn in played.turns:
        print(guest, turn.end.turn, turn.end.outcome, turn.end.fuel, turn.end.digest.hex())
played = h.play(sys.argv[2])
print(played.last.end, hashlib.sha256(h.compiled("burner")).hexdigest())
"""


def in_child(h: ModuleType, fuel_per_step: int, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(h.GUESTS), DEEP, str(fuel_per_step)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_fuel_records_depth_and_code_are_equal_in_two_processes(h: ModuleType) -> None:
    first = in_child(h, 0, PYTHONHASHSEED="1", TZ="UTC")
    assert "STACK_OVERFLOW" in first
    paused = in_child(h, 1234, PYTHONHASHSEED="2", TZ="Asia/Tokyo", PADDING="x" * 1234)
    assert first == paused


@pytest.mark.parametrize("guest", ["echo", "hello_wasi"])
def test_forked_child_runs_a_guest_as_its_parent_does(h: ModuleType, guest: str) -> None:
    """The way agents are started: code made before the fork, engine made after it."""
    events = [h.start(), h.item(1, b"payload"), h.CLOSE]
    h.compiled(guest)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, hashlib.sha256(repr(h.play(guest, events)).encode()).digest())
        finally:
            os._exit(0)
    os.close(write)
    found = os.read(read, 64)
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0
    assert found == hashlib.sha256(repr(h.play(guest, events)).encode()).digest()
