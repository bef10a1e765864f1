"""Into the guest and out of it: calls of its exports, and the host functions that it calls.

While a guest runs, an exception cannot pass through its frames: a host function keeps what it
raised, unwinds the guest with a trap, and the call that entered the guest raises it again. Fuel
goes with the control: given at each entry, taken at each exit.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

from wasmtime import Func, FuncType, Instance, Linker, Module, Store, ValType
from wasmtime import _ffi as ffi

from lockstep.engine.errors import LockstepBug, ProtocolError
from lockstep.engine.record import Outcome
from lockstep.workers.agent import native
from lockstep.workers.agent.fuel import HOST_CALL_FUEL, Fuel
from lockstep.workers.agent.native import LANES
from lockstep.workers.agent.signatures import Signature
from lockstep.workers.agent.spec import GuestStopped

HostFunction = Callable[..., "int | None"]
Callback = Callable[[None, int, Any, int], "int | None"]
Export = Callable[..., int]  # Called with its arguments; 0 if it has no result.

ARGUMENTS_MAX = 2  # Of the exports that are called here.

_VALUE_TYPES = {"i32": ValType.i32, "i64": ValType.i64}
_U32 = 0xFFFF_FFFF


class Short(Protocol):
    """A short way through one host function, which does all that its ordinary way would."""

    def call(self, env: None, caller: int, lanes: int, count: int) -> int | None:
        """As `native.BARE_CALLBACK`."""


class HostCalls:
    """The host functions of one guest. Lives as long as its linker and store.

    Attributes:
        raised: What unwinds the guest just now.
    """

    def __init__(self, fuel: Fuel) -> None:
        self.raised: BaseException | None = None
        self._fuel = fuel
        self._callbacks: list[Any] = []  # Nothing of wasmtime's keeps them alive.

    def define(
        self,
        linker: Linker,
        module: str,
        name: str,
        signature: Signature,
        function: HostFunction,
        short: Callable[[Callback], Short] | None = None,
    ) -> None:
        """Let ``linker`` resolve an import to ``function``.

        Args:
            linker: The guest's.
            module: Of the import.
            name: Of the import.
            signature: Its type.
            function: Called with the arguments.
            short: Makes a short way, given the ordinary one.
        """
        params, results = signature
        kind = FuncType(
            [_VALUE_TYPES[each]() for each in params], [_VALUE_TYPES[each]() for each in results]
        )
        ordinary = self._callback(signature, function)
        if short is None:
            callback: Any = native.CALLBACK(ordinary)
        else:
            bare = native.BARE_CALLBACK(short(ordinary).call)
            self._callbacks.append(bare)
            callback = ctypes.cast(bare, native.CALLBACK)
        self._callbacks.append(callback)
        module_name, field = module.encode(), name.encode()
        at = native.address(linker.ptr()), native.address(kind.ptr())
        error = native.define(
            *(at[0], module_name, len(module_name), field, len(field)),
            *(at[1], callback, None, None),
        )
        if error:
            raise LockstepBug(f"wasmtime refused the host function {module}.{name}")

    def _callback(self, signature: Signature, function: HostFunction) -> Callback:
        """Charge the call, and make a broken protocol the guest's own end.

        Every other exception goes on as it is, and is an accident.
        """
        params, results = signature
        stop, has_result, fuel = len(params) * LANES, bool(results), self._fuel
        wide = [place for place, kind in enumerate(params) if kind == "i64"]

        def call(env: None, caller: int, lanes: Any, count: int) -> int | None:
            # An exception that left this function would be printed and forgotten (`Accidents`).
            try:
                fuel.take()
                fuel.charge(HOST_CALL_FUEL)
                # An empty slice of a ctypes pointer, with a step, has one element.
                arguments = lanes[0:stop:LANES] if stop else []
                for place in wide:
                    high = lanes[place * LANES + 1]
                    arguments[place] = (arguments[place] & _U32) | high << 32
                result = function(*arguments)
                if has_result:
                    lanes[0] = result
                fuel.give()
                return None
            except ProtocolError as error:
                self.raised = GuestStopped(Outcome.PROTOCOL, str(error))
            except BaseException as error:
                self.raised = error
            return trap()

        return call


def trap() -> int:
    """What a host function returns to unwind the guest."""
    made: int = native.new_trap(b"stopped", 7)
    return made


class Crossing(Protocol):
    """How the host calls into one guest."""

    def instantiate(self, linker: Linker, module: Module) -> Instance:
        """Make the instance and run its start function.

        Raises:
            Trap: the guest trapped.
            WasmtimeError: it cannot be instantiated.
            BaseException: what a host function raised.
        """

    def export(self, function: Func) -> Export:
        """An export as a function. It raises as `instantiate`."""


class _Entrance:
    """What both ways have in common: how a call ends."""

    def __init__(self, store: Store, host: HostCalls, fuel: Fuel) -> None:
        self._store = store
        self._context = native.address(store._context())
        self._host = host
        self._fuel = fuel
        self._failure = native.Failure()
        self._kept: list[Any] = []  # What addresses were taken of.

    def _left(self, error: int | None) -> None:
        """The guest has returned or was unwound: raise what unwound it."""
        raised, self._host.raised = self._host.raised, None
        failed = self._failure.take(error)
        if raised is not None:
            raise raised  # The host has the fuel since the call that raised.
        self._fuel.take()
        if failed is not None:
            raise failed


class DirectCrossing(_Entrance):
    """The guest runs until it returns."""

    def instantiate(self, linker: Linker, module: Module) -> Instance:
        """As `Crossing.instantiate`."""
        made = ffi.wasmtime_instance_t()
        self._fuel.give()
        error = native.instantiate(
            *(native.address(linker.ptr()), self._context, native.address(module.ptr())),
            *(ctypes.addressof(made), self._failure.trap_at),
        )
        self._left(error)
        return Instance._from_raw(made)

    def export(self, function: Func) -> Export:
        """As `Crossing.export`."""
        lanes = (ctypes.c_int32 * (ARGUMENTS_MAX * LANES))()
        at, lanes_at = ctypes.addressof(function._func), ctypes.addressof(lanes)

        def call(*arguments: int) -> int:
            lanes[0] = 0
            for place, argument in enumerate(arguments):
                lanes[place * LANES] = argument
            self._fuel.give()
            error = native.call(self._context, at, lanes_at, ARGUMENTS_MAX, self._failure.trap_at)
            self._left(error)
            return lanes[0]

        self._kept += (function, lanes)
        return call


class PausedCrossing(_Entrance):
    """The guest is paused at every so manieth unit of fuel, so that it can be told how far it is.

    It runs on a stack of its own; where it is paused no Python code is under way on that. Pausing
    changes nothing that the guest can see: fuel is counted through, and its code is the same.

    Args:
        pausing: The functions for it.
        interval: Fuel between two pauses, if there is no host call between them.
    """

    def __init__(
        self, store: Store, host: HostCalls, fuel: Fuel, pausing: native.Pausing, interval: int
    ) -> None:
        super().__init__(store, host, fuel)
        self._pausing = pausing
        if pausing.set_interval(self._context, interval):
            raise LockstepBug(f"wasmtime refused to pause a guest every {interval} units of fuel")

    def instantiate(self, linker: Linker, module: Module) -> Instance:
        """As `Crossing.instantiate`."""
        made = ffi.wasmtime_instance_t()
        self._fuel.give()
        self._run(
            self._pausing.instantiate(
                *(native.address(linker.ptr()), self._context, native.address(module.ptr())),
                *(ctypes.addressof(made), self._failure.trap_at, self._failure.error_at),
            )
        )
        return Instance._from_raw(made)

    def export(self, function: Func) -> Export:
        """As `Crossing.export`."""
        kind = function.type(self._store)
        counts = len(kind.params), len(kind.results)
        values = (ffi.wasmtime_val_t * (ARGUMENTS_MAX + 1))()
        for value in values:
            value.kind = ffi.WASMTIME_I32
        size = ctypes.sizeof(ffi.wasmtime_val_t)
        at, values_at = ctypes.addressof(function._func), ctypes.addressof(values)
        lanes = (ctypes.c_int32 * (len(values) * size // 4)).from_buffer(values)
        first, step = ffi.wasmtime_val_t.of.offset // 4, size // 4
        # The result lies behind the arguments.
        result, result_at = first + ARGUMENTS_MAX * step, values_at + ARGUMENTS_MAX * size

        def call(*arguments: int) -> int:
            lanes[result] = 0
            for place, argument in enumerate(arguments):
                lanes[first + place * step] = argument
            self._fuel.give()
            self._run(
                self._pausing.call(
                    *(self._context, at, values_at, counts[0], result_at, counts[1]),
                    *(self._failure.trap_at, self._failure.error_at),
                )
            )
            found: int = lanes[result]
            return found

        self._kept += (function, lanes)
        return call

    def _run(self, future: int) -> None:
        """Run what was begun to its end; at each pause, publish."""
        poll, pausing, fuel = self._pausing.poll, self._pausing, self._fuel
        try:
            while not poll(future):
                fuel.peek()
        finally:
            pausing.delete(future)
        self._left(None)
