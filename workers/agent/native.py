"""The C functions of wasmtime that a turn goes through, without the wrappers of its Python package.

A call through the package costs 7 to 19 us, one from here below 1 us. No lock is let go of around
them (`ctypes.PyDLL`): an agent process has one thread. Addresses are plain integers; whoever passes
one keeps what lies there alive.
"""

import ctypes
import sys
from ctypes import POINTER, byref, c_bool, c_char, c_char_p, c_int32, c_size_t, c_uint64, c_void_p
from typing import Any, NoReturn

from wasmtime import Store, Trap, WasmtimeError
from wasmtime import _ffi as ffi

from lockstep.engine.errors import LockstepBug

# From 3.14 on the interpreter takes any stack but its thread's own for an overflow and ends the
# process; the host calls of a guest that can be paused run on a stack of wasmtime's.
PAUSABLE_BELOW = (3, 14)

WORD_BYTES = 16  # Room of one argument or result (wasmtime_val_raw_t).
LANES = WORD_BYTES // 4  # A callback sees its arguments as i32, every so manieth is one.

# A host function: (our environment, caller, arguments and then results, how many) -> trap or 0.
CALLBACK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, POINTER(c_int32), c_size_t)

# The same where arguments and results are given by their address alone, which costs less.
BARE_CALLBACK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_size_t)

_library = ctypes.PyDLL(ffi.dll._name)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = _library[name]  # Not an attribute: those are shared, and so would the types be.
    found.restype, found.argtypes = result, arguments
    return found


# Called in every turn, so with references made beforehand: a number takes as long to convert as the
# call takes, and of a declared type every argument is looked at.
get_fuel = _function("wasmtime_context_get_fuel", c_void_p)  # Context, where to put a u64.
set_fuel = _function("wasmtime_context_set_fuel", c_void_p)  # Context, u64.
define = _function(
    "wasmtime_linker_define_func_unchecked",
    c_void_p,
    *(c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, CALLBACK, c_void_p, c_void_p),
)
new_trap = _function("wasmtime_trap_new", c_void_p, c_char_p, c_size_t)
instantiate = _function(
    "wasmtime_linker_instantiate",
    c_void_p,
    *(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
)
call = _function(
    "wasmtime_func_call_unchecked",
    c_void_p,
    *(c_void_p, c_void_p, c_void_p, c_size_t, c_void_p),
)


class Pausing:
    """The functions of a guest that can be paused at every so manieth unit of fuel.

    Raises:
        AttributeError: this build of wasmtime lacks one.
    """

    def __init__(self) -> None:
        self.set_interval = _function(
            "wasmtime_context_fuel_async_yield_interval", c_void_p, c_void_p, c_uint64
        )
        self.instantiate = _function(
            "wasmtime_linker_instantiate_async",
            c_void_p,
            *(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
        )
        self.call = _function(
            "wasmtime_func_call_async",
            c_void_p,
            *(c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p),
        )
        self.poll = _function("wasmtime_call_future_poll", c_bool, c_void_p)
        self.delete = _function("wasmtime_call_future_delete", None, c_void_p)


def pausing() -> Pausing | None:
    """What it takes to pause a guest, or None where that cannot be done."""
    if sys.version_info >= PAUSABLE_BELOW:
        return None
    try:
        return Pausing()
    except AttributeError:
        return None


def address(pointer: Any) -> int:
    """Where a ctypes pointer of wasmtime's package points to."""
    found = ctypes.cast(pointer, c_void_p).value
    if not found:
        raise LockstepBug("a null pointer from wasmtime")
    return found


class Tank:
    """The fuel in a store. Exact inside a host call: generated code stores it before it calls out,
    and loads it again afterwards."""

    def __init__(self, store: Store) -> None:
        self._context = byref(c_char.from_address(address(store._context())))
        self._left, self._wanted = c_uint64(), c_uint64()
        self._at = byref(self._left)

    def get_fuel(self) -> int:
        """Fuel left; 0 if the guest has burnt more than there was."""
        if error := get_fuel(self._context, self._at):
            _refuse(error)
        return self._left.value

    def set_fuel(self, fuel: int) -> None:
        """Replace the fuel left."""
        self._wanted.value = fuel
        if error := set_fuel(self._context, self._wanted):
            _refuse(error)


class Failure:
    """Where wasmtime writes why a call did not return: a trap or an error, ours to free."""

    def __init__(self) -> None:
        self._trap, self._error = c_void_p(), c_void_p()
        self.trap_at = ctypes.addressof(self._trap)
        self.error_at = ctypes.addressof(self._error)

    def take(self, error: int | None = None) -> Exception | None:
        """What came of the last call, as the exceptions of wasmtime's package; None: it returned.

        Args:
            error: The result of a function that returns its error.
        """
        trap, found = self._trap.value, error or self._error.value
        if not trap and not found:
            return None
        self._trap.value = self._error.value = None
        failed: Exception
        if found:
            failed = WasmtimeError._from_ptr(ctypes.cast(found, POINTER(ffi.wasmtime_error_t)))
        else:
            pointer = ctypes.cast(c_void_p(trap), POINTER(ffi.wasm_trap_t))
            failed = Trap._from_ptr(pointer)
        return failed


def _refuse(error: int) -> NoReturn:
    """Fuel is on in every engine of ours, so that neither call can fail."""
    raise WasmtimeError._from_ptr(ctypes.cast(error, POINTER(ffi.wasmtime_error_t)))
