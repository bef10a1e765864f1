"""Guest memory that cannot fail quietly: a linear memory of our own.

Wasmtime's own memory answers ``memory.grow`` with -1 when the kernel refuses pages, and the guest
sees it: free memory of the machine would decide what a guest computes. Here such a refusal is
kept in ``failed``; the process looks at it before a turn may end and leaves instead (an accident,
rule 10). A grow beyond the declared limit is refused by the store's limits before it comes here,
in every run alike.

Only this module knows how wasmtime's C structures of a memory look. The memory never moves.
"""

import ctypes
import os
from typing import Any

from wasmtime import _ffi as ffi

from lockstep.engine.errors import LockstepBug

PAGE_BYTES = 65536

_PROT_NONE = 0
_PROT_READ_WRITE = 3
_MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x4022
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.mprotect.restype = ctypes.c_int
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class LinearMemory:
    """One reservation: ``size`` bytes of it can be used, the rest faults (the guest's trap)."""

    def __init__(self, size: int, capacity: int, guard: int) -> None:
        self.size = 0
        self.capacity = capacity
        self._mapped = capacity + guard
        base = _libc.mmap(None, self._mapped, _PROT_NONE, _MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
        if base is None or base == _MAP_FAILED:
            raise _os_error(f"reserving {self._mapped} bytes of addresses for guest memory")
        self.base = int(base)
        self.grow(size)

    def grow(self, size: int) -> None:
        """Make the first ``size`` bytes usable; they are zero.

        Raises:
            OSError: the kernel has no memory for them.
        """
        # Never past the reservation: mprotect would go on into whatever is mapped behind it.
        if size > self.capacity:
            raise LockstepBug(f"guest memory of {size} bytes in {self.capacity} reserved ones")
        if size > self.size and _libc.mprotect(self.base, size, _PROT_READ_WRITE):
            raise _os_error(f"growing guest memory from {self.size} to {size} bytes")
        self.size = max(self.size, size)

    def free(self) -> None:
        """Give the addresses back. Nothing may look at the memory afterwards."""
        _libc.munmap(self.base, self._mapped)


class MemoryCreator:
    """Makes the memories of one engine and keeps what went wrong with them.

    Attributes:
        failures: Refusals of the kernel and exceptions of the callbacks, oldest first. The guest
            may have seen a -1; nothing it does from then on may be believed.
        memories: The memories there are now, by address.
    """

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.memories: dict[int, LinearMemory] = {}

    def only(self) -> LinearMemory:
        """The one memory there is; a guest has exactly one, made before any of its code runs."""
        (memory,) = self.memories.values()
        return memory

    def install(self, config: Any) -> None:
        """Let ``config`` make its memories here. Needs ``memory_init_cow = False``: with it, the
        combination ends the process."""
        number = len(_creators) + 1
        _creators[number] = self
        creator = ffi.wasmtime_memory_creator_t(number, _on_new, _NO_FINALIZER)
        ffi.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(creator))

    def fail(self, error: BaseException) -> int:
        """Keep ``error``; the address of an error object for wasmtime.

        An exception that leaves a ctypes callback is swallowed and 0 returned, which means
        success here: so every path of a callback that may fail ends in this.
        """
        self.failures.append(error)
        refusal = ffi.wasmtime_error_new(b"no memory for the guest")
        return ctypes.cast(refusal, ctypes.c_void_p).value or 1


# Wasmtime calls these as long as an engine or a store is alive, and the collector may free those
# after anything of ours: so the callbacks belong to the module, live for ever, and find their
# creator by its number and their memory by its address.
_creators: dict[int, MemoryCreator] = {}
_owners: dict[int, MemoryCreator] = {}


def _new_memory(
    number: int, kind: Any, least: int, most: int, reserved: int, guard: int, result: Any
) -> int:
    del kind, most
    creator = _creators[number]
    try:
        memory = LinearMemory(least, reserved, guard)
        creator.memories[memory.base] = memory
        _owners[memory.base] = creator
        made = result.contents
        made.env = memory.base
        made.get_memory = _on_get
        made.grow_memory = _on_grow
        made.finalizer = _on_free
        return 0
    except BaseException as error:
        return creator.fail(error)


def _get_memory(base: int, size: Any, capacity: Any) -> int:
    memory = _owners[base].memories[base]
    size[0] = memory.size
    capacity[0] = memory.capacity
    return memory.base


def _grow_memory(base: int, size: int) -> int:
    creator = _owners[base]
    try:
        creator.memories[base].grow(size)
        return 0
    except BaseException as error:
        return creator.fail(error)


def _free_memory(base: int) -> None:
    _owners.pop(base).memories.pop(base).free()


_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_NO_FINALIZER = ctypes.cast(0, _FINALIZER)
_on_new = ffi.wasmtime_new_memory_callback_t(_new_memory)
_on_get = ffi.wasmtime_memory_get_callback_t(_get_memory)
_on_grow = ffi.wasmtime_memory_grow_callback_t(_grow_memory)
_on_free = _FINALIZER(_free_memory)
for _callback in (_on_new, _on_get, _on_grow, _on_free):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))  # Past the interpreter's end, too.


def _os_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
