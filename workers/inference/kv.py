"""The KV slab: all keys and values of a model in one block, bound to a graph by address.

Past and present of a layer are one buffer, so a step writes its keys in place and copies nothing.
That rests on addresses: an OrtValue made of a non-contiguous slice silently holds a copy, and the
run would write into nowhere. So binding goes by pointer, and every present tensor is asked for its
address afterwards.
"""

import mmap
from typing import Any

import numpy as np

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.workers.inference.config import ModelFacts
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.signature import at

# [layers, 2, rows, kv_heads, tokens_max, head_dim], C order: a key (0) or value (1) tensor of a
# run of slots is one contiguous piece.


class KvSlab:
    """Keys and values of ``rows`` slots.

    Attributes:
        shape: Of the whole slab.
        array: View of it on the CPU, else None. Valid until `close`.
    """

    def __init__(
        self,
        facts: ModelFacts,
        rows: int,
        tokens_max: int,
        device: str = "cpu",
        buffer: memoryview | None = None,
    ) -> None:
        """Allocate the slab, or lay it over ``buffer``.

        Args:
            facts: Sizes and type.
            rows: Slots.
            tokens_max: Tokens of a slot.
            device: Where the session wants it, as ONNX Runtime names devices.
            buffer: At least `bytes_needed` writable bytes on the CPU, kept as they are: shared
                memory that outlives this process. None: zeroed memory of its own.

        Raises:
            UsageError: the buffer is too small, or the device is not the CPU.
        """
        self.facts, self.rows, self.tokens_max, self.device = facts, rows, tokens_max, device
        self.shape = (facts.layers, 2, rows, facts.kv_heads, tokens_max, facts.head_dim)
        self.dtype = np.dtype(facts.dtype)
        self.array: np.ndarray[Any, Any] | None = None
        self._value: Any = None
        size = self.bytes_needed(facts, rows, tokens_max)
        if device != "cpu":
            if buffer is not None:
                raise UsageError(f"a KV buffer in shared memory cannot be used on {device}")
            self._value = ort.OrtValue.ortvalue_from_shape_and_type(
                list(self.shape), self.dtype.type, device, 0
            )
            self._base = int(self._value.data_ptr())
            return
        memory: Any = mmap.mmap(-1, size) if buffer is None else buffer
        if len(memory) < size:
            raise UsageError(f"KV buffer of {len(memory)} bytes, {size} are needed")
        flat = np.frombuffer(memory, dtype=self.dtype, count=size // self.dtype.itemsize)
        self.array = flat.reshape(self.shape)
        self._base = self.array.ctypes.data

    @staticmethod
    def bytes_needed(facts: ModelFacts, rows: int, tokens_max: int) -> int:
        """Bytes of a slab."""
        one = facts.kv_heads * tokens_max * facts.head_dim * np.dtype(facts.dtype).itemsize
        return facts.layers * 2 * rows * one

    def address(self, layer: int, part: int, slot: int) -> int:
        """Where the key (0) or value (1) tensor of a slot begins."""
        _, _, rows, heads, tokens, dim = self.shape
        index = (layer * 2 + part) * rows + slot
        return self._base + index * heads * tokens * dim * self.dtype.itemsize

    def bind(self, io: Any, first: int, count: int) -> None:
        """Bind the slots ``first .. first + count`` as past and as present of ``io``.

        The slab must outlive the binding: a binding keeps no memory alive.

        Raises:
            LockstepBug: ONNX Runtime bound a copy.
        """
        facts, kind = self.facts, self.dtype.type
        shape = [count, facts.kv_heads, self.tokens_max, facts.head_dim]
        before = len(io.get_outputs())
        addresses = []
        for layer in range(facts.layers):
            for part, (past, present) in enumerate(
                ((facts.past_key, facts.present_key), (facts.past_value, facts.present_value))
            ):
                address = self.address(layer, part, first)
                io.bind_input(at(past, layer), self.device, 0, kind, shape, address)
                io.bind_output(at(present, layer), self.device, 0, kind, shape, address)
                addresses.append(address)
        bound = [int(value.data_ptr()) for value in io.get_outputs()[before:]]
        if bound != addresses:
            raise LockstepBug("ONNX Runtime bound a copy of the KV slab, not the slab")

    def close(self) -> None:
        """Let go of the memory; bindings to it must be gone."""
        self.array = None
        self._value = None
