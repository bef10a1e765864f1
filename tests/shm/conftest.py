"""Processes for the tests of shared memory: each is forked, joined and never left behind."""

import os
import resource
import signal
import struct
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack

# Before numpy is imported: a forking process has one thread (docs of `lockstep.shm`).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import memories
import pytest

from lockstep.shm import Memory, cursor, side

WATCHDOG_S = 120  # A lost wake-up must fail the run, not hold it.


class Child:
    """A forked process that runs one function and leaves by ``os._exit``."""

    def __init__(self, body: Callable[[], None]) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(WATCHDOG_S)
                body()
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)

    def join(self) -> int:
        """Exit code; minus the signal if it was killed by one."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def kill(self) -> int:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.join()


def make_record(payload: bytes, kind: int = 3) -> bytes:
    """A record as engine/record.py lays it out, written down here once more on purpose."""
    size = 32 + len(payload)
    head = struct.pack("<IHHQQII", size, kind, 0, 0, 0, 0, 0)
    return head + payload + bytes(-size % 8)


MemoryOf = Callable[[int], Memory]
WEAK = "sealed memfd, weak CPU"


@pytest.fixture(params=[*memories.KINDS, WEAK])
def memory_of(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MemoryOf]:
    """Makes writable buffers of one kind after the other: who asks for it runs over all kinds."""
    kind = request.param
    if kind == WEAK:
        kind = "sealed memfd"
        for module in (cursor, side):
            monkeypatch.setattr(module, "STRONG", False)
    with ExitStack() as stack:
        yield lambda size: stack.enter_context(memories.KINDS[kind](size))


@pytest.fixture(params=memories.SHARED)
def shared_memory_of(request: pytest.FixtureRequest) -> Iterator[MemoryOf]:
    """As `memory_of`, of the kinds that a forked child shares."""
    with ExitStack() as stack:
        yield lambda size: stack.enter_context(memories.SHARED[request.param](size))


@pytest.fixture(scope="session")
def record() -> Callable[..., bytes]:
    return make_record


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], None]], Child]]:
    children: list[Child] = []

    def start(body: Callable[[], None]) -> Child:
        children.append(Child(body))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    def bark(_number: int, _frame: object) -> None:
        raise AssertionError(f"test still running after {WATCHDOG_S} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(WATCHDOG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = memories.ours()
    yield
    assert memories.ours() == before
