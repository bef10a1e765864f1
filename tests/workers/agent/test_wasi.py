"""WASI preview 1 as a guest sees it: logical time, keyed randomness, log lines, nothing else."""

import ctypes
import struct
from types import ModuleType

import pytest

from lockstep.engine import keyed
from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import Kind, Outcome, decode
from lockstep.workers.agent.clock import US_MAX, GuestClock
from lockstep.workers.agent.memory import GuestMemory
from lockstep.workers.agent.signatures import WASI_FUNCTIONS
from lockstep.workers.agent.spec import GuestStopped
from lockstep.workers.agent.turn import TurnRecords
from lockstep.workers.agent.wasi import Wasi

pytestmark = pytest.mark.usefixtures("crossings")

SIZE = 1 << 18
EPOCH = 946_684_800_000_000
EBADF, EINVAL, ENOSYS, ENOTDIR, ENOTSOCK, ESPIPE = 8, 28, 52, 54, 57, 70


class World:
    """The functions over a block of bytes in place of a guest."""

    def __init__(self, h: ModuleType, name: str = "agent", seed: int = 7, **limits: int) -> None:
        self._block = ctypes.create_string_buffer(SIZE)
        self.base, self.size = ctypes.addressof(self._block), SIZE
        self.paid = 0
        self.memory = GuestMemory(lambda: self, self._pay)
        self.clock = GuestClock(EPOCH, 1000)
        self.records = TurnRecords(h.spec(b"", **limits))
        self.call = Wasi(name, seed, self.memory, self.clock, self.records).functions()

    def _pay(self, amount: int) -> None:
        self.paid += amount

    def put(self, at: int, data: bytes) -> None:
        ctypes.memmove(self.base + at, data, len(data))

    def get(self, at: int, size: int) -> bytes:
        return ctypes.string_at(self.base + at, size)

    def u32(self, at: int) -> int:
        return int.from_bytes(self.get(at, 4), "little")

    def u64(self, at: int) -> int:
        return int.from_bytes(self.get(at, 8), "little")

    def write(self, descriptor: int, *pieces: bytes) -> int | None:
        at = 4096
        for place, piece in enumerate(pieces):
            self.put(at, piece)
            self.put(1024 + 8 * place, struct.pack("<II", at, len(piece)))
            at += len(piece)
        return self.call["fd_write"](descriptor, 1024, len(pieces), 0)


@pytest.fixture
def world(h: ModuleType) -> World:
    return World(h)


def test_all_functions_of_the_interface_are_there(world: World) -> None:
    assert list(world.call) == list(WASI_FUNCTIONS)


def test_clock_shows_tag_time_and_a_microsecond_more_per_read(world: World) -> None:
    def read(clock: int) -> int:
        assert world.call["clock_time_get"](clock, 0, 0) == 0
        return world.u64(0)

    assert [read(clock) for clock in range(4)] == [(EPOCH + n) * 1000 for n in range(4)]
    world.clock.begin_turn(5)
    assert [read(0), read(1)] == [(EPOCH + 5000) * 1000, (EPOCH + 5001) * 1000]
    world.clock.begin_turn(5)
    assert read(0) == (EPOCH + 5002) * 1000
    assert world.call["clock_res_get"](0, 0) == 0
    assert world.u64(0) == 1000
    assert world.call["clock_time_get"](4, 0, 0) == EINVAL
    assert world.call["clock_res_get"](-1, 0) == EINVAL


def test_random_is_the_next_draw_of_the_agents_own_stream(h: ModuleType) -> None:
    def draws(name: str, seed: int) -> list[bytes]:
        world, found = World(h, name, seed), []
        for size in (8, 100, 0, 70_000):
            assert world.call["random_get"](0, size) == 0
            found.append(world.get(0, size))
        return found

    stream = keyed.key(7, "guest", "agent")
    parts = [keyed.fill(stream, 0, 8), keyed.fill(stream, 1, 100), b""]
    parts.append(keyed.fill(stream, 2, 65536) + keyed.fill(stream, 3, 70_000 - 65536))
    assert draws("agent", 7) == parts
    assert draws("agent", 7) == parts
    assert draws("other", 7)[0] != parts[0]
    assert draws("agent", 8)[0] != parts[0]


def test_output_is_logged_and_paid_by_the_byte(world: World) -> None:
    assert world.write(1, b"one ", b"line\nand") == 0
    assert world.u32(0) == 12
    assert world.paid == 16 + 12 + 4
    assert world.write(2, b"oops\n") == 0
    data, count = world.records.finish(Outcome.BLOCKED)
    assert count == 3
    assert [(r.kind, r.id, r.peer, r.payload) for r in decode(data)] == [
        (Kind.LOG, 1, 1, b"one line"),
        (Kind.LOG, 3, 2, b"oops"),
        (Kind.LOG, 1, 1, b"and"),
    ]


def test_log_bomb_is_refused_before_it_is_read(h: ModuleType) -> None:
    world = World(h, log_bytes_max=100_000)
    world.put(1024, struct.pack("<II", 0, SIZE) * 1000)
    with pytest.raises(GuestStopped, match="log_bytes_max = 100000") as stop:
        world.call["fd_write"](1, 1024, 1000, 0)
    assert stop.value.outcome == Outcome.OVER_LIMIT
    assert world.paid == 8000


def test_standard_input_is_at_its_end(world: World) -> None:
    world.put(0, b"\xff" * 4)
    assert world.call["fd_read"](0, 1024, 1, 0) == 0
    assert world.u32(0) == 0
    assert world.call["fd_read"](1, 1024, 1, 0) == EBADF


def test_closed_stream_is_gone(world: World) -> None:
    assert world.call["fd_close"](1) == 0
    assert world.write(1, b"x") == EBADF
    assert world.call["fd_close"](1) == EBADF
    assert world.write(2, b"x") == 0
    assert [world.write(fd, b"x") for fd in (0, 3, -1)] == [EBADF] * 3


def test_name_is_the_only_argument_and_there_is_no_environment(h: ModuleType) -> None:
    world = World(h, "solver.3")
    assert world.call["args_sizes_get"](0, 8) == 0
    assert (world.u32(0), world.u32(8)) == (1, 9)
    assert world.call["args_get"](0, 100) == 0
    assert (world.u32(0), world.get(100, 9)) == (100, b"solver.3\0")
    assert world.call["environ_sizes_get"](0, 8) == 0
    assert (world.u32(0), world.u32(8)) == (0, 0)
    assert world.call["environ_get"](0, 0) == 0


def test_streams_are_character_devices_with_no_times(world: World) -> None:
    assert world.call["fd_fdstat_get"](0, 0) == 0
    assert world.get(0, 24) == struct.pack("<BxHxxxxQQ", 2, 0, 1 << 27 | 2, 0)
    assert world.call["fd_fdstat_get"](2, 0) == 0
    assert world.get(0, 24) == struct.pack("<BxHxxxxQQ", 2, 0, 1 << 27 | 64, 0)
    assert world.call["fd_filestat_get"](1, 0) == 0
    assert struct.unpack("<8Q", world.get(0, 64)) == (0, 1, 2, 1, 0, 0, 0, 0)
    assert world.call["fd_fdstat_get"](3, 0) == EBADF
    assert world.call["fd_filestat_get"](3, 0) == EBADF


def test_what_is_not_served_says_so(world: World) -> None:
    for name, (params, _) in WASI_FUNCTIONS.items():
        if name.startswith(("path_", "sock_", "fd_")):
            nowhere = world.call[name](*([77] * len(params)))
            assert nowhere == EBADF, name
    assert world.call["fd_prestat_get"](0, 0) == EBADF
    assert world.call["fd_prestat_get"](3, 0) == EBADF
    assert world.call["path_open"](0, 0, 0, 0, 0, 0, 0, 0, 0) == ENOTDIR
    assert world.call["path_symlink"](99, 0, 0, 0, 0) == ENOTDIR
    assert world.call["sock_send"](0, 0, 0, 0, 0) == ENOTSOCK
    assert world.call["fd_seek"](1, 0, 0, 0) == ESPIPE
    assert world.call["proc_raise"](9) == ENOSYS
    assert world.call["sched_yield"]() == 0


def test_exit_unwinds(world: World) -> None:
    for code, outcome, reason in [
        (0, Outcome.RETURNED, ""),
        (3, Outcome.EXITED, "proc_exit(3)"),
        (-1, Outcome.EXITED, "proc_exit(-1)"),
    ]:
        with pytest.raises(GuestStopped) as stop:
            world.call["proc_exit"](code)
        assert (stop.value.outcome, stop.value.reason) == (outcome, reason)


def clock_sub(userdata: int, timeout_ns: int, *, absolute: bool = False, clock: int = 1) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, clock, timeout_ns, 0, absolute)


def fd_sub(userdata: int, kind: int, descriptor: int) -> bytes:
    return struct.pack("<QB7xI28x", userdata, kind, descriptor)


def polled(world: World, *subs: bytes) -> list[tuple[int, int, int]]:
    world.put(1024, b"".join(subs))
    assert world.call["poll_oneoff"](1024, 8192, len(subs), 0) == 0
    found = [struct.unpack("<QHB21x", world.get(8192 + 32 * n, 32)) for n in range(world.u32(0))]
    return [(userdata, errno, kind) for userdata, errno, kind in found]


def test_sleep_returns_at_once_and_moves_the_clock(world: World) -> None:
    assert polled(world, clock_sub(1, 5_000_000), clock_sub(2, 1_500), clock_sub(3, 1_001)) == [
        (2, 0, 0),
        (3, 0, 0),
    ]
    assert world.clock.read_us() == EPOCH + 3  # Two for the sleep, one for this read.
    assert polled(world, clock_sub(9, (EPOCH + 100) * 1000, absolute=True)) == [(9, 0, 0)]
    assert world.clock.read_us() == EPOCH + 101
    assert polled(world, clock_sub(9, 0, absolute=True)) == [(9, 0, 0)]
    assert world.clock.read_us() == EPOCH + 103


def test_stream_is_ready_and_time_stands_still(world: World) -> None:
    subs = (clock_sub(1, 10**9), fd_sub(2, 1, 0), fd_sub(3, 2, 1), fd_sub(4, 2, 9), fd_sub(5, 1, 2))
    assert polled(world, *subs) == [(2, 0, 1), (3, 0, 2), (4, EBADF, 2), (5, EBADF, 1)]
    assert world.clock.read_us() == EPOCH + 1
    assert polled(world, clock_sub(1, 5, clock=7)) == [(1, EINVAL, 0)]


def test_polls_that_make_no_sense(world: World) -> None:
    poll = world.call["poll_oneoff"]
    assert [poll(1024, 8192, count, 0) for count in (0, 1025, -1)] == [EINVAL] * 3
    world.put(1024, fd_sub(1, 7, 0))
    assert poll(1024, 8192, 1, 0) == EINVAL


def test_sleep_to_the_end_of_time_stays_there(world: World) -> None:
    polled(world, clock_sub(1, 2**64 - 1))
    polled(world, clock_sub(1, 2**64 - 1))
    assert world.clock.read_us() == US_MAX
    assert world.call["clock_time_get"](0, 0, 0) == 0


BAD_CALLS = [
    ("args_get", (0, SIZE - 3)),
    ("args_get", (SIZE - 3, 0)),
    ("args_sizes_get", (-1, 0)),
    ("environ_sizes_get", (0, SIZE)),
    ("clock_time_get", (0, 0, SIZE - 7)),
    ("clock_res_get", (0, -8)),
    ("random_get", (0, -1)),
    ("random_get", (-1, 1)),
    ("random_get", (SIZE - 10, 11)),
    ("fd_write", (1, SIZE - 7, 1, 0)),
    ("fd_write", (1, 1024, 1, SIZE - 3)),
    ("fd_write", (1, 1032, 1, 0)),
    ("fd_read", (0, 1024, 1, -4)),
    ("fd_read", (0, 1032, 1, 0)),
    ("fd_fdstat_get", (1, SIZE - 23)),
    ("fd_filestat_get", (1, SIZE - 63)),
    ("poll_oneoff", (SIZE - 47, 0, 1, 0)),
    ("poll_oneoff", (0, SIZE - 31, 1, 0)),
    ("poll_oneoff", (0, 0, 1, SIZE - 3)),
]


@pytest.mark.parametrize(("name", "arguments"), BAD_CALLS)
def test_pointer_outside_is_a_protocol_error(
    world: World, name: str, arguments: tuple[int, ...]
) -> None:
    world.put(1032, struct.pack("<II", SIZE - 1, 2))
    before = world.clock.read_us()
    with pytest.raises(ProtocolError, match=f"{name}: .* the memory has {SIZE}"):
        world.call[name](*arguments)
    assert world.clock.read_us() == before + 1
    assert world.records.finish(Outcome.BLOCKED) == (b"", 0)
