"""The machine's free memory must not be something a guest can see."""

from types import ModuleType

import pytest

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


def test_kernel_refusal_is_noticed_for_real(h: ModuleType) -> None:
    """mprotect beyond what any machine has: 2^46 bytes."""
    memory = LinearMemory(65536, 1 << 20, 0)
    try:
        with pytest.raises(OSError, match="growing guest memory from 65536 to"):
            memory.grow(1 << 46)
        assert memory.size == 65536
    finally:
        memory.free()
    with pytest.raises(OSError, match="reserving"):
        LinearMemory(0, 1 << 50, 0)
