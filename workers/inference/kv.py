"""The KV slab: all keys and values of a model in one block, bound to a graph by address.

Past and present of a layer are one buffer, so a step writes its keys in place and copies nothing.
That rests on addresses: an OrtValue made of a non-contiguous slice silently holds a copy, and the
run would write into nowhere. So binding goes by pointer, and every present tensor is asked for its
address afterwards.

Behind the slots that compute lie those in which conversations rest. No graph is ever bound to
them: they are bytes in host memory, one slot in one piece.
"""

import math
import mmap
from typing import Any

import numpy as np

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.workers.inference import cudart
from lockstep.workers.inference.config import ModelFacts
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.signature import at

# Slots 0 .. rows: [layers, 2, rows, kv_heads, tokens_max, head_dim], C order: a key (0) or value
# (1) tensor of a run of slots is one contiguous piece.
# Slots rows .. rows + kept, behind them: [kept, layers, 2, kv_heads, tokens_max, head_dim].


class KvSlab:
    """Keys and values of ``rows`` slots that compute and ``kept`` that rest.

    Attributes:
        shape: Of the slots that compute.
        array: View of them on the CPU, else None. Valid until `close`.
        kept: View of those that rest. Valid until `close`.
    """

    def __init__(
        self,
        facts: ModelFacts,
        rows: int,
        tokens_max: int,
        device: str = "cpu",
        buffer: memoryview | None = None,
        kept: int = 0,
    ) -> None:
        """Allocate the slab, or lay it over ``buffer``.

        Args:
            facts: Sizes and type.
            rows: Slots that compute.
            tokens_max: Tokens of a slot.
            device: Where the session wants those, as ONNX Runtime names devices.
            buffer: At least `bytes_needed` writable bytes on the CPU, kept as they are: shared
                memory that outlives this process. None: zeroed memory of its own.
            kept: Slots that rest, in host memory whatever the device.

        Raises:
            UsageError: the buffer is too small, or the device is not the CPU.
        """
        self.facts, self.rows, self.tokens_max, self.device = facts, rows, tokens_max, device
        self.shape = (facts.layers, 2, rows, facts.kv_heads, tokens_max, facts.head_dim)
        self.dtype = np.dtype(facts.dtype)
        self.array: np.ndarray[Any, Any] | None = None
        self._value: Any = None
        if device != "cpu":
            if buffer is not None:
                raise UsageError(f"a KV buffer in shared memory cannot be used on {device}")
            self._value = ort.OrtValue.ortvalue_from_shape_and_type(
                list(self.shape), self.dtype.type, device, 0
            )
            self._base = int(self._value.data_ptr())
            self.kept = self._lay(None, kept)
            return
        flat = self._lay(buffer, rows + kept).reshape(-1)
        size = math.prod(self.shape)
        self.array = flat[:size].reshape(self.shape)
        self.kept = flat[size:].reshape(self._shape_of(kept))
        self._base = self.array.ctypes.data

    def _lay(self, buffer: memoryview | None, rows: int) -> np.ndarray[Any, Any]:
        size = self.bytes_needed(self.facts, rows, self.tokens_max)
        # No mapping may be empty.
        memory: Any = mmap.mmap(-1, max(size, 1)) if buffer is None else buffer
        if len(memory) < size:
            raise UsageError(f"KV buffer of {len(memory)} bytes, {size} are needed")
        flat = np.frombuffer(memory, dtype=self.dtype, count=size // self.dtype.itemsize)
        return flat.reshape(self._shape_of(rows))

    def _shape_of(self, kept: int) -> tuple[int, ...]:
        facts = self.facts
        return (kept, facts.layers, 2, facts.kv_heads, self.tokens_max, facts.head_dim)

    @staticmethod
    def bytes_needed(facts: ModelFacts, rows: int, tokens_max: int) -> int:
        """Bytes of so many slots, whether they compute or rest."""
        one = facts.kv_heads * tokens_max * facts.head_dim * np.dtype(facts.dtype).itemsize
        return facts.layers * 2 * rows * one

    def address(self, layer: int, part: int, slot: int) -> int:
        """Where the key (0) or value (1) tensor of a slot begins."""
        layers, _, rows, heads, tokens, dim = self.shape
        size = heads * tokens * dim * self.dtype.itemsize
        if slot < rows:
            return self._base + ((layer * 2 + part) * rows + slot) * size
        index = ((slot - rows) * layers + layer) * 2 + part
        return int(self.kept.ctypes.data) + index * size

    @property
    def host_bytes(self) -> int:
        """Of it in host memory."""
        return self.kept.nbytes + (0 if self.array is None else self.array.nbytes)

    def memory(self) -> tuple[int, int]:
        """(address, bytes) of the whole of it in host memory; none where it is on a device."""
        size = 0 if self.array is None else self.array.nbytes + self.kept.nbytes
        return self._base, size

    def copy(self, source: int, slot: int, start: int, count: int) -> None:
        """Copy tokens ``start .. start + count`` of one slot to another: every bit of them.

        Nothing else of either slot is touched, and the two must not be the same.
        """
        if self.array is None:
            self._copy_on_device(source, slot, start, count)
        else:
            to, at = self.tokens(slot, start, count), self.tokens(source, start, count)
            # A tensor at a time: slots that compute lie interleaved, and where numpy cannot see
            # that two views share nothing it copies twice (512 tokens of a 135 M model: 12 ms).
            for place in np.ndindex(to.shape[:2]):
                to[place] = at[place]

    def tokens(self, slot: int, start: int, count: int) -> np.ndarray[Any, Any]:
        """View of shape (layers, 2, kv_heads, count, head_dim); not of a slot on a device."""
        if slot >= self.rows:
            row = self.kept[slot - self.rows]
        else:
            assert self.array is not None, "on a device"
            row = self.array[:, :, slot]
        view: np.ndarray[Any, Any] = row[:, :, :, start : start + count]
        return view

    def _copy_on_device(self, source: int, slot: int, start: int, count: int) -> None:
        """A piece for each head, of every key and value tensor, whatever side it lies on."""
        layers, parts, _, heads, tokens, dim = self.shape
        one = dim * self.dtype.itemsize
        for layer in range(layers):
            for part in range(parts):
                to, at = (self.address(layer, part, each) for each in (slot, source))
                offset = start * one
                cudart.copy(to + offset, at + offset, tokens * one, count * one, heads)
        cudart.wait()

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
        self.kept = np.empty(self._shape_of(0), self.dtype)
        self._value = None
