"""Fresh processes: children that are started and not forked, and the beginning of their lives.

``python -m lockstep.workers.fresh NAME``: what to do comes pickled as standard input, an unnamed
file, so that nobody waits for anybody while interpreters load. Nothing asks the kernel to kill such
a child with its parent: it learns from its doorbell, of which only the parent has the other end.
"""

import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lockstep.engine.errors import EXIT_BUG, EXIT_OK, RunStopped
from lockstep.shm import PeerDied
from lockstep.workers.spawn import Child

# What goes to whole groups is the supervisor's to decide, as in `spawn`.
GROUP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Started(Child):
    """A process that was not forked: its descriptor is a pipe of which it alone has the other end.

    Attributes:
        process: Whose pid stays its own until it is reaped.
    """

    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """As `Child`."""
        self.process.kill()

    def reap(self) -> int:
        """As `Child`."""
        os.close(self.descriptor)
        return self.process.wait()


def start(name: str, body: Callable[[], int], keep: Sequence[int]) -> Child:
    """Start a process that runs ``body`` and leaves with what it returns.

    Args:
        name: For messages.
        body: Can be pickled. Runs with standard input and output on /dev/null.
        keep: Descriptors that the child gets under the same numbers, besides standard error.

    Raises:
        RunStopped: the system has no room for one more process.
    """
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryFile() as task:
            pickle.dump(body, task)
            task.seek(0)
            # Blocked until it has said what it ignores: it would die of an interrupt before that.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "lockstep.workers.fresh", name],
                    stdin=task,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[*keep, writing],
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except OSError as error:
        os.close(reading)
        raise RunStopped(f"start of {name}: {error.strerror}") from None
    finally:
        os.close(writing)
    return Started(name, process.pid, reading, process)


def main(name: str) -> int:
    """The child, from what it was given to its exit status."""
    for number in GROUP:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open(0, "rb", closefd=False) as task:
            body: Callable[[], int] = pickle.load(task)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        return body()
    except PeerDied:
        return EXIT_OK  # The supervisor is gone: nobody is left to be told anything.
    except BaseException as error:
        sys.stderr.write(f"lockstep: {name}: {type(error).__name__}: {error}\n")
        return EXIT_BUG


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(status)  # As forked children leave: what is left here is nobody's.
