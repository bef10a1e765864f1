"""Interrupting: Ctrl-C at the command line at the moment when a process of its run is at a point.

``python -P -m interrupting PLAN ARGS...`` is ``lockstep ARGS...`` whose supervisors are killing's.
Who is at the point sends the signal, and goes on when the supervisor has it, so that the moment is
that one whatever the machine does.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

VICTIM = "LOCKSTEP_TESTS_COMMAND_LINE"  # Its pid, in the environment of all that it starts.
HEARD = "heard"  # A FIFO in the plan's folder.


def prepare(folder: Path) -> None:
    """Make what `interrupt` waits for."""
    os.mkfifo(folder / HEARD)


def interrupt(folder: str) -> None:
    """Send the signal; come back when the supervisor was told to stop."""
    # Opened first: who writes finds a reader.
    ear = os.open(f"{folder}/{HEARD}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.kill(int(os.environ[VICTIM]), signal.SIGINT)
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    poll.poll()
    os.close(ear)


def tell(folder: str) -> None:
    """Let the supervisor, which is this process, say when it counts a signal."""
    from lockstep.workers import signals

    kind = signals.Signals
    count = kind._count

    def counted(self: signals.Signals, number: int, frame: object) -> None:
        count(self, number, frame)
        try:
            mouth = os.open(f"{folder}/{HEARD}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # Nobody waits for it: a signal of another origin.
            return
        os.write(mouth, b"!")
        os.close(mouth)

    kind._count = counted  # type: ignore[method-assign]


def main() -> int:
    """Entry of the process."""
    from killing import Plan, under

    from lockstep.cli.main import main as lockstep

    os.environ[VICTIM] = str(os.getpid())
    with under(Plan.from_json(sys.argv[1])):
        return lockstep(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
