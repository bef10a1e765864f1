"""A reactor's state between turns, taken from its instance and put back into a new one.

Wasmtime's own values would go through Python numbers, which do not keep every NaN: globals are
copied as bytes.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from wasmtime import Store as EngineStore
from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi

from lockstep.engine.errors import LockstepBug
from lockstep.workers.agent.clock import GuestClock
from lockstep.workers.agent.globals import MEMORY_NAME
from lockstep.workers.agent.linear import PAGE_BYTES, LinearMemory
from lockstep.workers.agent.snapshot import PAGE_BYTES as ROW_BYTES
from lockstep.workers.agent.snapshot import VALUE_BYTES, Held, Store, Words
from lockstep.workers.agent.wasi import Wasi

_VALUE_AT = ffi.wasmtime_val_t.of.offset
_SIZES = {
    **dict.fromkeys((ffi.WASMTIME_I32.value, ffi.WASMTIME_F32.value), 4),
    **dict.fromkeys((ffi.WASMTIME_I64.value, ffi.WASMTIME_F64.value), 8),
    ffi.WASMTIME_V128.value: 16,
}


class Insides:
    """Everything that a turn of a reactor can change and the next one can see.

    Args:
        store: Of the instance.
        exports: Of the instance.
        names: Exports that are its mutable globals (`Shape.state`).
        memory: Its linear memory.
        clock: Its clock.
        wasi: Its randomness and its streams.
    """

    def __init__(
        self,
        store: EngineStore,
        exports: Any,
        names: Sequence[str],
        memory: LinearMemory,
        clock: GuestClock,
        wasi: Wasi,
    ) -> None:
        self._store = store
        self._globals = [exports[name] for name in names]
        self._growing = exports[MEMORY_NAME]
        self._memory = memory
        self._clock = clock
        self._wasi = wasi

    def held(self, turn: int) -> Held:
        """The state after ``turn``, without the bytes of `memory`."""
        draws, streams = self._wasi.state()
        values = tuple(_bits(self._value(each)) for each in self._globals)
        return Held(turn, self._memory.size, values, self._clock.state(), draws, streams)

    def memory(self) -> Words:
        """Linear memory as it is now, in rows of one page of a snapshot. Not a copy."""
        raw: Any = (ctypes.c_char * self._memory.size).from_address(self._memory.base)
        return np.frombuffer(raw, np.uint64).reshape(-1, ROW_BYTES // 8)

    def put(self, held: Held) -> None:
        """Be in that state; `memory` has its size then, and other bytes.

        Raises:
            LockstepBug: it is not a state of this module.
            WasmtimeError: memory cannot grow to that size.
        """
        if len(held.values) != len(self._globals) or held.memory_bytes < self._memory.size:
            raise LockstepBug(
                f"a snapshot with {len(held.values)} globals and {held.memory_bytes} bytes of "
                f"memory, expected {len(self._globals)} and at least {self._memory.size}"
            )
        self._growing.grow(self._store, (held.memory_bytes - self._memory.size) // PAGE_BYTES)
        for each, bits in zip(self._globals, held.values, strict=True):
            self._set(each, bits)
        self._clock.restore(held.clock_us)
        self._wasi.restore(held.draws, held.streams)

    def _value(self, each: Any) -> Any:
        value = ffi.wasmtime_val_t()
        at = ctypes.byref(each._global), ctypes.byref(value)
        ffi.wasmtime_global_get(self._store._context(), *at)
        return value

    def _set(self, each: Any, bits: bytes) -> None:
        value = self._value(each)  # For its type.
        ctypes.memmove(ctypes.addressof(value) + _VALUE_AT, bits, VALUE_BYTES)
        at = ctypes.byref(each._global), ctypes.byref(value)
        error = ffi.wasmtime_global_set(self._store._context(), *at)
        if error:
            raise WasmtimeError._from_ptr(error)


class Keeper:
    """Takes snapshots of one guest into its store, every so many turns.

    Args:
        store: Of the agent.
        every: Turns between two snapshots.
        after: Turn after which the guest goes on, from its snapshot; None: it begins.

    Attributes:
        after: As given.
        failed: Why no more snapshots are taken: there was no room. No reason to stop an agent.
    """

    def __init__(self, store: Store, every: int, after: int | None = None) -> None:
        self.after = after
        self.failed: OSError | None = None
        self._store = store
        self._every = every
        self._find: Callable[[], Insides] | None = None
        self._found: Insides | None = None

    def hold(self, find: Callable[[], Insides]) -> None:
        """``find`` gives the instance; asked when it is needed, which for many is never."""
        self._find = find

    def look(self, turn: int) -> None:
        """``turn`` is over and its end was sent: take a snapshot if it is time."""
        if turn % self._every or self.failed is not None:
            return
        insides = self._insides()
        try:
            self._store.write(insides.held(turn), insides.memory())
        except OSError as error:
            self.failed = error

    def restore(self) -> None:
        """Put the instance where it was after the turn ``after``.

        Raises:
            LookupError: there is no such snapshot.
            LockstepBug, WasmtimeError: as `Insides.put`.
            OSError: it cannot be read.
        """
        if self.after is None:
            raise LockstepBug("nothing to restore")
        insides = self._insides()
        insides.put(self._store.held(self.after))
        self._store.read_memory(self.after, insides.memory())

    def _insides(self) -> Insides:
        if self._found is None:
            if self._find is None:
                raise LockstepBug("a keeper without an instance")
            self._found = self._find()
        return self._found


def _bits(value: Any) -> bytes:
    """The bits of a value, and zeros behind them."""
    size = _SIZES[value.kind]
    return ctypes.string_at(ctypes.addressof(value) + _VALUE_AT, size).ljust(VALUE_BYTES, b"\0")
