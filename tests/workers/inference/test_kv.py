"""The slab's addresses, and that a copy in its place is noticed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.model import ModelFolder


@pytest.fixture
def facts(fp32: Path) -> Any:
    folder = ModelFolder.open(fp32)
    folder.close()
    return folder.facts


def test_address_of_every_slot_is_where_numpy_has_it(facts: Any) -> None:
    slab = KvSlab(facts, 3, 8)
    assert slab.array is not None
    assert slab.shape == (2, 2, 3, 2, 8, 16)
    for layer in range(2):
        for part in range(2):
            for slot in range(3):
                view = slab.array[layer, part, slot : slot + 1]
                assert view.flags.c_contiguous
                assert slab.address(layer, part, slot) == view.ctypes.data
    assert slab.array.nbytes == KvSlab.bytes_needed(facts, 3, 8)


def test_buffer_is_used_as_it_is_and_not_cleared(facts: Any) -> None:
    memory = bytearray(b"\x01" * KvSlab.bytes_needed(facts, 2, 4))
    slab = KvSlab(facts, 2, 4, buffer=memoryview(memory))
    assert slab.array is not None
    assert slab.array.tobytes() == bytes(memory)
    slab.array[1, 1, 1, 1, 3, 15] = 2.0
    assert np.frombuffer(memory, np.float32)[-1] == 2.0
    slab.close()


def test_buffer_that_is_too_small_is_refused_with_both_sizes(facts: Any) -> None:
    need = KvSlab.bytes_needed(facts, 2, 4)
    with pytest.raises(UsageError, match=f"{need - 1} bytes, {need} are needed"):
        KvSlab(facts, 2, 4, buffer=memoryview(bytearray(need - 1)))
    with pytest.raises(UsageError, match="cannot be used on cuda"):
        KvSlab(facts, 2, 4, "cuda", memoryview(bytearray(need)))


@pytest.mark.parametrize("pair", [(0, 2), (2, 0), (1, 4), (4, 1), (3, 4)])
def test_a_part_of_a_slot_is_copied_bit_by_bit_and_nothing_beside_it(
    facts: Any, pair: tuple[int, int]
) -> None:
    slab = KvSlab(facts, 3, 8, kept=2)
    rng = np.random.default_rng(1)
    for slot in range(5):
        view = slab.tokens(slot, 0, 8)
        view[:] = rng.integers(0, 2**32, view.shape, np.uint32).view(np.float32)  # NaNs, too.
    before = [slab.tokens(slot, 0, 8).copy() for slot in range(5)]
    source, target = pair
    slab.copy(source, target, 2, 3)
    for slot in range(5):
        wanted = before[slot].copy()
        if slot == target:
            wanted[:, :, :, 2:5] = before[source][:, :, :, 2:5]
        assert slab.tokens(slot, 0, 8).tobytes() == wanted.tobytes()


def test_slots_that_rest_lie_behind_the_others_each_in_one_piece(facts: Any) -> None:
    memory = bytearray(KvSlab.bytes_needed(facts, 5, 8))
    slab = KvSlab(facts, 3, 8, buffer=memoryview(memory), kept=2)
    assert slab.array is not None and slab.kept.shape == (2, 2, 2, 2, 8, 16)
    assert slab.kept.ctypes.data == slab.array.ctypes.data + slab.array.nbytes
    assert slab.array.nbytes + slab.kept.nbytes == len(memory)
    for layer in range(2):
        for part in range(2):
            for slot in (3, 4):
                view = slab.kept[slot - 3, layer, part]
                assert view.flags.c_contiguous
                assert slab.address(layer, part, slot) == view.ctypes.data
    slab.close()


class CopyingBinding:
    """A binding that, as a careless one would, holds copies."""

    def __init__(self) -> None:
        self.bound: list[Any] = []

    def get_outputs(self) -> list[Any]:
        return self.bound

    def bind_input(self, *_: Any) -> None:
        pass

    def bind_output(self, *_: Any) -> None:
        self.bound.append(self)

    def data_ptr(self) -> int:
        return 4096


def test_binding_that_holds_a_copy_is_noticed(facts: Any) -> None:
    with pytest.raises(LockstepBug, match="a copy"):
        KvSlab(facts, 2, 4).bind(CopyingBinding(), 0, 2)
