"""WASI preview 1 without a world behind it: everything a guest can learn here is logical.

The clocks show the tag's time, random is a hash of (run seed, agent name, draw), the standard
streams are log records, and there is nothing else: no file, no socket, no environment. So the
same history gives the same answers on any machine. Pointers go through `GuestMemory` only.
"""

import struct
from collections.abc import Callable

from lockstep.engine import keyed
from lockstep.engine.record import Outcome
from lockstep.workers.agent.clock import GuestClock
from lockstep.workers.agent.memory import GuestMemory, unsigned
from lockstep.workers.agent.poll import CLOCKS, POLLS_MAX, poll
from lockstep.workers.agent.signatures import WASI_FUNCTIONS
from lockstep.workers.agent.spec import GuestStopped
from lockstep.workers.agent.turn import STDERR, STDOUT, TurnRecords

SUCCESS = 0
EBADF = 8
EINVAL = 28
ENOSYS = 52
ENOTDIR = 54
ENOTSOCK = 57
ENOTSUP = 58
ESPIPE = 70
ENOTCAPABLE = 76

STDIN = 0
IOVECS_MAX = 1024
RANDOM_DRAW_BYTES = 65_536  # A longer request takes several draws.
CLOCK_RESOLUTION_NS = 1_000

_IOVEC = struct.Struct("<II")
_CHARACTER_DEVICE = 2
_RIGHT_READ, _RIGHT_WRITE, _RIGHT_POLL = 1 << 1, 1 << 6, 1 << 27
_FDSTAT = struct.Struct("<BxHxxxxQQ")  # file type, flags, rights, rights to inherit
_FILESTAT = struct.Struct("<QQB7xQQQQQ")  # device, inode, file type, links, size, three times

# What is not served: the error for a standard stream; any other descriptor is EBADF.
_UNSERVED = {
    "fd_advise": ESPIPE,
    "fd_allocate": ENOTSUP,
    "fd_datasync": EINVAL,
    "fd_fdstat_set_flags": ENOTSUP,
    "fd_fdstat_set_rights": ENOTCAPABLE,
    "fd_filestat_set_size": EINVAL,
    "fd_filestat_set_times": ENOTCAPABLE,
    "fd_pread": ESPIPE,
    "fd_prestat_get": EBADF,  # No folder is open in advance.
    "fd_prestat_dir_name": EBADF,
    "fd_pwrite": ESPIPE,
    "fd_readdir": ENOTDIR,
    "fd_renumber": ENOTSUP,
    "fd_seek": ESPIPE,
    "fd_sync": EINVAL,
    "fd_tell": ESPIPE,
    "path_create_directory": ENOTDIR,
    "path_filestat_get": ENOTDIR,
    "path_filestat_set_times": ENOTDIR,
    "path_link": ENOTDIR,
    "path_open": ENOTDIR,
    "path_readlink": ENOTDIR,
    "path_remove_directory": ENOTDIR,
    "path_rename": ENOTDIR,
    "path_symlink": ENOTDIR,
    "path_unlink_file": ENOTDIR,
    "sock_accept": ENOTSOCK,
    "sock_recv": ENOTSOCK,
    "sock_send": ENOTSOCK,
    "sock_shutdown": ENOTSOCK,
}
_DESCRIPTOR_AT = {"path_symlink": 2}  # Position of the descriptor where it is not the first.


class Wasi:
    """The 46 functions for one agent.

    Args:
        name: The agent's name: its only argument, and part of its randomness.
        seed: Run seed.
        memory: The guest's memory.
        clock: Logical time.
        records: Where standard output and error go.
    """

    def __init__(
        self, name: str, seed: int, memory: GuestMemory, clock: GuestClock, records: TurnRecords
    ) -> None:
        self.become(name, seed)
        self._draws = 0
        self._memory = memory
        self._clock = clock
        self._records = records
        self._open = {STDIN, STDOUT, STDERR}

    def become(self, name: str, seed: int) -> None:
        """Serve another agent from now on, before its guest has run."""
        self._argument = name.encode() + b"\0"
        self._random = keyed.key(seed, "guest", name)

    def state(self) -> tuple[int, frozenset[int]]:
        """What lasts from turn to turn: draws so far, and streams that are open."""
        return self._draws, frozenset(self._open)

    def restore(self, draws: int, streams: frozenset[int]) -> None:
        """Go on where `state` was."""
        self._draws, self._open = draws, set(streams)

    def functions(self) -> dict[str, Callable[..., int | None]]:
        """Every function of the interface by its name."""
        return {name: self._function(name) for name in WASI_FUNCTIONS}

    def args_sizes_get(self, count: int, size: int) -> int:
        """One argument: the agent's name."""
        self._memory.write_u32(count, 1, "args_sizes_get: count")
        self._memory.write_u32(size, len(self._argument), "args_sizes_get: size")
        return SUCCESS

    def args_get(self, pointers: int, buffer: int) -> int:
        """Write the argument and the pointer to it."""
        self._memory.write(buffer, self._argument, "args_get: buffer")
        self._memory.write_u32(pointers, unsigned(buffer), "args_get: pointers")
        return SUCCESS

    def environ_sizes_get(self, count: int, size: int) -> int:
        """There are no environment variables."""
        self._memory.write_u32(count, 0, "environ_sizes_get: count")
        self._memory.write_u32(size, 0, "environ_sizes_get: size")
        return SUCCESS

    def environ_get(self, pointers: int, buffer: int) -> int:
        """There is nothing to write."""
        del pointers, buffer
        return SUCCESS

    def clock_res_get(self, clock: int, result: int) -> int:
        """One microsecond."""
        if unsigned(clock) not in CLOCKS:
            return EINVAL
        self._memory.write_u64(result, CLOCK_RESOLUTION_NS, "clock_res_get: result")
        return SUCCESS

    def clock_time_get(self, clock: int, precision: int, result: int) -> int:
        """Nanoseconds of logical time; all four clocks are the same one."""
        del precision
        if unsigned(clock) not in CLOCKS:
            return EINVAL
        self._memory.span(result, 8, "clock_time_get: result")
        self._memory.write_u64(result, self._clock.read_us() * 1000, "clock_time_get: result")
        return SUCCESS

    def random_get(self, buffer: int, count: int) -> int:
        """Bytes of the agent's next draws."""
        start, left = self._memory.span(buffer, count, "random_get: buffer")
        while left:
            size = min(left, RANDOM_DRAW_BYTES)
            data = keyed.fill(self._random, self._draws, size)
            self._memory.write(start, data, "random_get: buffer")
            self._draws += 1
            start, left = start + size, left - size
        return SUCCESS

    def sched_yield(self) -> int:
        """Nothing else runs in here."""
        return SUCCESS

    def proc_exit(self, code: int) -> None:
        """End the agent; this call does not return."""
        if code == 0:
            raise GuestStopped(Outcome.RETURNED, "")
        raise GuestStopped(Outcome.EXITED, f"proc_exit({code})")

    def proc_raise(self, signal: int) -> int:
        """There are no signals."""
        del signal
        return ENOSYS

    def fd_close(self, descriptor: int) -> int:
        """Close a standard stream; later writes to it fail."""
        if unsigned(descriptor) not in self._open:
            return EBADF
        self._open.remove(unsigned(descriptor))
        return SUCCESS

    def fd_fdstat_get(self, descriptor: int, result: int) -> int:
        """A character device without seek: libraries take it for a terminal, line by line."""
        if unsigned(descriptor) not in self._open:
            return EBADF
        rights = _RIGHT_POLL | (_RIGHT_READ if descriptor == STDIN else _RIGHT_WRITE)
        stat = _FDSTAT.pack(_CHARACTER_DEVICE, 0, rights, 0)
        self._memory.write(result, stat, "fd_fdstat_get: result")
        return SUCCESS

    def fd_filestat_get(self, descriptor: int, result: int) -> int:
        """No device, inode = descriptor, no size, times 0."""
        number = unsigned(descriptor)
        if number not in self._open:
            return EBADF
        stat = _FILESTAT.pack(0, number, _CHARACTER_DEVICE, 1, 0, 0, 0, 0)
        self._memory.write(result, stat, "fd_filestat_get: result")
        return SUCCESS

    def fd_read(self, descriptor: int, iovecs: int, count: int, result: int) -> int:
        """Standard input is at its end."""
        if descriptor != STDIN or STDIN not in self._open:
            return EBADF
        self._iovecs(iovecs, count, "fd_read")
        self._memory.write_u32(result, 0, "fd_read: result")
        return SUCCESS

    def fd_write(self, descriptor: int, iovecs: int, count: int, result: int) -> int:
        """Log what is written to standard output or error."""
        if descriptor not in (STDOUT, STDERR) or descriptor not in self._open:
            return EBADF
        if unsigned(count) > IOVECS_MAX:
            return EINVAL
        spans = self._iovecs(iovecs, count, "fd_write")
        self._memory.span(result, 4, "fd_write: result")
        total = sum(size for _, size in spans)
        self._records.check_log_room(total)  # Before reading: pieces may overlap and repeat.
        data = b"".join(self._memory.read(*span, "fd_write: data") for span in spans)
        self._records.log(descriptor, data)
        self._memory.write_u32(result, total, "fd_write: result")
        return SUCCESS

    def poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Sleep: logical time jumps to the earliest deadline, and the call returns at once."""
        if not 0 < unsigned(count) <= POLLS_MAX:
            return EINVAL
        return poll(
            self._memory, self._clock, self._open, subscriptions, events, unsigned(count), result
        )

    def _function(self, name: str) -> Callable[..., int | None]:
        error = _UNSERVED.get(name)
        if error is None:
            served: Callable[..., int | None] = getattr(self, name)
            return served
        position, found = _DESCRIPTOR_AT.get(name, 0), error

        def unserved(*arguments: int) -> int:
            return found if unsigned(arguments[position]) in self._open else EBADF

        return unserved

    def _iovecs(self, pointer: int, count: int, what: str) -> list[tuple[int, int]]:
        """Start and size of each piece, every one checked."""
        number = min(unsigned(count), IOVECS_MAX)
        data = self._memory.read(pointer, number * _IOVEC.size, f"{what}: iovecs")
        pairs = _IOVEC.iter_unpack(data)
        return [self._memory.span(start, size, f"{what}: data") for start, size in pairs]
