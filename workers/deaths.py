"""Deaths in one line: how a process ended, and what an error was that nobody expected."""

import signal
import traceback
from pathlib import Path

CAUSES = {
    "SIGKILL": "by the kernel, probably for memory, or by a person",
    # The inference process alone has such a timer (workers/inference/process.py).
    "SIGPROF": "by itself: a step took more CPU time than [recovery] step_s",
}


def how(status: int) -> str:
    """How a process ended that should have lived; ``status`` as `Child.reap` gives it."""
    if status >= 0:
        return f"left with exit status {status} in the middle of the run"
    name = signal.Signals(-status).name
    cause = f" ({CAUSES[name]})" if name in CAUSES else ""
    return f"was killed by {name}{cause}"


def told(error: Exception) -> str:
    """An exception that nobody expected, in one line with its place.

    Its traceback goes to standard error, of which the command line makes a file (cli/quiet.py).
    """
    traceback.print_exception(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
