"""Arriving: a signal that comes to the command line at a named moment of its own process.

``python -P -m arriving EVENT PART NUMBER ARGS...`` is ``lockstep ARGS...``. At the first audit
event EVENT (docs of ``sys.addaudithook``) whose first argument has PART in it the process sends
itself the signal NUMBER, so that the moment is that one whatever the machine does.
"""

from __future__ import annotations

import os
import signal
import sys


def arrive(event: str, part: str, number: int) -> None:
    """Let the signal come, once."""
    waiting = [number]

    def hook(name: str, args: tuple[object, ...]) -> None:
        if name == event and waiting and part in str(args[0]):
            os.kill(os.getpid(), waiting.pop())

    sys.addaudithook(hook)


def main() -> int:
    """Entry of the process."""
    from lockstep.cli.main import main as lockstep

    signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job ignores it.
    arrive(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    return lockstep(sys.argv[4:])


if __name__ == "__main__":
    sys.exit(main())
