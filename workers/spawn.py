"""Forking children, by the discipline that keeps a fork safe.

The supervisor forks all run long, so it stays single-threaded all run long. A child resets
signals, dies with its parent, closes every descriptor that is not its own, and leaves by
``os._exit``: it never returns into its parent's code.
"""

import ctypes
import gc
import mmap
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lockstep.engine.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    LockstepBug,
    LockstepError,
    RunStopped,
    UsageError,
)

if TYPE_CHECKING:
    from lockstep.shm import Loan  # Brings numpy, which not everybody wants who forks.

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
_DEFAULT, _IGNORE = 0, 1  # SIG_DFL and SIG_IGN of C.
_KILL = int(signal.SIGKILL)
# Interrupts go to whole groups; what they mean is the supervisor's to decide, and children die
# with it.
_DISPOSITIONS = (
    *(
        (int(each), _DEFAULT)
        for each in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPROF)
    ),
    *((int(each), _IGNORE) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
)
# C functions, called with Python's lock held. What Python adds to them costs an agent process
# memory: a page that a child writes to, be it a reference count, is its own from then on, and so
# is one that the parent writes to before its next fork. `os.fork` gives the modules `threading` and
# `random` new locks and a new state, which a process of one thread that draws nothing does not
# need (0.4 MB); `signal.signal` makes enumerations of everything (0.4 MB).
_LIBC = ctypes.PyDLL(None)
_LIBC.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_LIBC.signal.restype = ctypes.c_void_p
TASKS = Path("/proc/self/task")
LOOK_S = 0.2  # While waiting for a child that prepares: how often to look whether to give up.


@dataclass(slots=True)
class Child:
    """A process that was started.

    Attributes:
        name: For messages.
        pid: Its pid, its own until it is reaped.
        descriptor: Readable once it has ended. A pidfd: it names this process for as long as it is
            open, whatever pids do.
    """

    name: str
    pid: int
    descriptor: int

    def kill(self) -> None:
        """SIGKILL, to this very process; harmless if it has ended."""
        try:
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def reap(self) -> int:
        """Wait for its end; its exit status as `os.waitstatus_to_exitcode` gives it."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)


class Birth(NamedTuple):
    """A child to be forked.

    Attributes:
        name: As of `fork`.
        body: Likewise.
        keep: Likewise.
        loan: Shared memory that it alone inherits.
    """

    name: str
    body: Callable[[], int]
    keep: Sequence[int]
    loan: "Loan"


Start = Callable[[str, Callable[[], int], Sequence[int]], Child]  # As `fork`.


def fork(name: str, body: Callable[[], int], keep: Sequence[int]) -> Child:
    """Fork a child that runs ``body`` and leaves with what it returns.

    Args:
        name: For messages.
        body: Runs in the child, with standard input and output on /dev/null.
        keep: Descriptors that the child keeps, besides standard error.

    Raises:
        LockstepBug: this process has more than one thread.
        RunStopped: the kernel has no room for one more process.
    """
    parent = _before_fork(name)
    pid = _LIBC.fork()
    if pid < 0:
        raise _no_room(name)
    if pid == 0:
        _be_child(name, parent, body, keep)
    return Child(name, pid, os.pidfd_open(pid))


def fork_all(births: Sequence[Birth], born: list[Child]) -> None:
    """`fork` many, one right after the other.

    Every page that the parent writes to between two forks, be it a reference count, is one page
    more of each child. So nothing is done there but what has to be.

    Args:
        births: In the order of the forks.
        born: Gets them, those before an error, too.

    Raises:
        LockstepBug, RunStopped: as `fork`.
    """
    parent, split, pids = _before_fork(births[0].name), _LIBC.fork, list[int]()
    lend, take_back = mmap.MADV_DOFORK, mmap.MADV_DONTFORK
    try:
        for name, body, keep, (advise, start, length) in births:
            advise(lend, start, length)
            pid = split()
            if pid == 0:
                _be_child(name, parent, body, keep)
            advise(take_back, start, length)
            if pid < 0:
                raise _no_room(name)
            pids.append(pid)
    finally:
        for birth, pid in zip(births, pids, strict=False):
            born.append(Child(birth.name, pid, os.pidfd_open(pid)))


def _before_fork(name: str) -> int:
    """Refuse to fork a process of several threads; our pid."""
    # A folder has two links and one more for each folder in it.
    if TASKS.stat().st_nlink != 3:
        threads = list(TASKS.iterdir())
        names = sorted((thread / "comm").read_text().strip() for thread in threads)
        raise LockstepBug(
            f"fork of {name}: {len(threads)} threads ({', '.join(names)}), expected 1"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    return os.getpid()


def _no_room(name: str) -> RunStopped:
    return RunStopped(f"fork of {name}: the kernel has no room for one more process")


def settle_memory() -> None:
    """Before forking many: what is here now is never collected, so children share its pages."""
    gc.collect()
    _LIBC.malloc_trim(0)
    gc.freeze()


def confine() -> None:
    """For an agent, once its module is loaded: no new privileges, no processes of its own."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _be_child(name: str, parent: int, body: Callable[[], int], keep: Sequence[int]) -> None:
    code = EXIT_BUG
    try:
        signal.set_wakeup_fd(-1)  # Its number is the parent's: soon another file has it here.
        for number, disposition in _DISPOSITIONS:
            _LIBC.signal(number, disposition)
        _LIBC.prctl(PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(EXIT_BUG)  # The parent died before the death signal was armed.
        _close_others(keep)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = body()
    except BaseException as error:
        sys.stderr.write(f"lockstep: {name}: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _close_others(keep: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    first = 3
    for descriptor in sorted(keep):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


class GivenUp(LockstepError):
    """A person stopped it while something was being prepared."""

    exit_code = EXIT_INTERRUPTED


def call(
    name: str,
    body: Callable[[], bytes],
    deadline_s: float,
    data_bytes_max: int,
    stop: Callable[[], bool] = lambda: False,
    start: Start = fork,
) -> bytes:
    """Run ``body`` in a child and return its bytes. For work on untrusted input.

    Args:
        name: For messages.
        body: Raises a `LockstepError` to refuse; its text comes back as a `UsageError`. Where
            children are not forked it can be pickled.
        deadline_s: Wall time after which the child is killed.
        data_bytes_max: Memory that it may allocate.
        stop: Asked while waiting: whether to give up.
        start: Starts the child.

    Raises:
        UsageError: the child refused, or was ended by one of the limits (which is named).
        RunStopped: somebody else killed it.
        GivenUp: ``stop`` said so.
    """
    reading, writing = os.pipe()
    child = start(name, partial(_answer, name, body, data_bytes_max, writing), [writing])
    os.close(writing)
    try:
        answer = read_all(reading, stop, deadline_s)
    finally:
        os.close(reading)
        child.kill()  # It has answered, or is not waited for any more.
        status = child.reap()
    if answer is None:
        raise UsageError(f"{name}: took longer than {deadline_s:g} s and was ended")
    if not answer and status == -_KILL:
        raise RunStopped(f"{name}: its process was killed by SIGKILL (by somebody, or for memory)")
    if not answer:
        raise UsageError(f"{name}: its process ended with status {status} "
                         f"(limit: {data_bytes_max >> 20} MiB)")  # fmt: skip
    if answer[:1] == b"-":
        raise UsageError(answer[1:].decode("utf-8", "replace"))
    return answer[1:]


def _answer(name: str, body: Callable[[], bytes], data_bytes_max: int, writing: int) -> int:
    """In the child: what it made behind a "+", or behind a "-" why not."""
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes_max, data_bytes_max))
    try:
        answer = b"+" + body()
    except LockstepError as error:
        answer = b"-" + str(error).encode()
    except MemoryError:
        answer = f"-{name}: more than {data_bytes_max >> 20} MiB of memory".encode()
    with open(writing, "wb") as pipe:
        pipe.write(answer)
    return 0


def read_all(
    descriptor: int, stop: Callable[[], bool], deadline_s: float = float("inf")
) -> bytes | None:
    """Everything until end of file; None when the deadline came first.

    Raises:
        GivenUp: ``stop`` said so.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + deadline_s
    parts: list[bytes] = []
    while True:
        if stop():
            raise GivenUp("interrupted; there was no run yet")
        left_s = end - time.monotonic()
        if left_s <= 0:
            return None
        if not poll.poll(min(left_s, LOOK_S) * 1000):
            continue
        part = os.read(descriptor, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
