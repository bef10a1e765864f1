"""The machine's free memory must not be something a guest can see."""

import subprocess
import sys
from types import ModuleType

import pytest

from lockstep.engine.errors import LockstepBug
from lockstep.workers.agent.linear import LinearMemory

GROW = """(module
  (import "lockstep" "turn" (func $turn (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "main") (result i32)
    (drop (memory.grow (i32.const 10)))
    (i32.store8 (i32.const 655360) (i32.const 1))
    (memory.size)))"""
GROW_IN_TURN = """(module
  (import "lockstep" "turn" (func $turn (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "main")
    (drop (memory.grow (i32.const 10)))
    (drop (call $turn (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))"""


def refuse(self: LinearMemory, size: int) -> None:
    if size > 3 * 65536:
        raise OSError(12, "growing guest memory: Cannot allocate memory")
    mapped(self, size)


mapped = LinearMemory.grow


def test_memory_grows_up_to_the_limit_and_is_zero(h: ModuleType) -> None:
    played = h.play(GROW, memory_bytes_max=11 * 65536)
    assert played.last.end.reason == "main returned 11"
    played = h.play(GROW, memory_bytes_max=11 * 65536 - 1)
    assert played.last.end.reason == "MEMORY_OUT_OF_BOUNDS"


def test_page_that_the_kernel_refuses_is_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest saw -1 and trapped, or went on: neither may count."""
    monkeypatch.setattr(LinearMemory, "grow", refuse)
    for wat in (GROW, GROW_IN_TURN):
        played = h.play(wat)
        assert played.turns == []
        assert played.status == 75
        assert "Cannot allocate memory" in played.accident


def test_first_pages_that_the_kernel_refuses_are_an_accident(
    h: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearMemory, "grow", refuse)
    played = h.play('(module (memory (export "memory") 9) (func (export "main")))')
    assert (played.turns, played.status) == ([], 75)


def test_reservation_is_a_bound(h: ModuleType) -> None:
    memory = LinearMemory(65536, 1 << 20, 1 << 20)
    try:
        with pytest.raises(LockstepBug):
            memory.grow((1 << 20) + 1)
        assert memory.size == 65536
    finally:
        memory.free()
    with pytest.raises(OSError, match="reserving"):
        LinearMemory(0, 1 << 50, 0)


IN_CHILD = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import harness
code = harness.compiled(sys.argv[2])
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
bound = int(fields["VmData"].split()[0]) * 1024 + (32 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
played = harness.play(sys.argv[2], memory_bytes_max=1 << 30)
print(played.status, len(played.turns), played.accident)
"""


def test_agent_that_meets_a_full_machine_leaves_by_an_accident(h: ModuleType) -> None:
    wat = GROW.replace("i32.const 10)", "i32.const 4000)")
    command = [sys.executable, "-c", IN_CHILD, str(h.GUESTS), wat]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("75 0 OSError: [Errno 12] growing guest memory from 65536 to 26")
