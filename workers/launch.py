"""Launching a supervisor process and listening to it, from whatever program calls the API.

The supervisor gets an interpreter of its own: it has to stay single-threaded, and a caller
(a notebook, a test) may have any number of threads. It is in a session of its own, too, so that
Ctrl-C reaches the caller only, which passes it on once.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from lockstep.engine.errors import (
    EXIT_INTERRUPTED,
    EXIT_UNFINISHED,
    Diverged,
    LockstepBug,
    LockstepError,
    RunStopped,
    UsageError,
)
from lockstep.workers.job import Job

# What a library may read when it is loaded, before any code of ours could say so.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy's BLAS would start threads; forks need one.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
}
ERRORS = {UsageError.exit_code: UsageError, Diverged.exit_code: Diverged,
          LockstepBug.exit_code: LockstepBug}  # fmt: skip

Listener = Callable[[str, Any], None]


class Interrupted(LockstepError):
    """A person stopped it before there was a run."""

    exit_code = EXIT_INTERRUPTED


def launch(job: Job, listen: Listener | None = None) -> dict[str, Any]:
    """Run a job in a supervisor process.

    Args:
        job: What to run.
        listen: Called with ("run" | "note" | "progress", value) as they come.

    Returns:
        The summary. KeyboardInterrupt while waiting is passed on: the first lets the run stop
        cleanly, the next ends it at once.

    Raises:
        UsageError, Diverged, LockstepBug: what the supervisor refused; nothing was made.
        Interrupted: stopped by a person before there was a run.
        RunStopped: the supervisor died.
    """
    process = subprocess.Popen(
        # -P: what lies in the working folder must not shadow a module.
        [sys.executable, "-P", "-m", "lockstep.workers.supervisor"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    run = ""
    interrupts = 0
    started = False
    final: dict[str, Any] = {}
    try:
        with process.stdin, process.stdout:
            process.stdin.write(job.to_json().encode() + b"\n")
            process.stdin.flush()
            while True:
                try:
                    line = process.stdout.readline()
                    if not line:
                        break
                    ((what, value),) = json.loads(line).items()
                    if what in ("summary", "error"):
                        final = {what: value}
                    elif what == "started":
                        started = True
                        if interrupts:
                            process.send_signal(signal.SIGINT)
                    else:
                        run = value if what == "run" else run
                        if listen is not None:
                            listen(what, value)
                except KeyboardInterrupt:
                    interrupts += 1
                    if interrupts > 1:
                        process.kill()
                    elif started:  # Before that the signal would meet a starting interpreter.
                        process.send_signal(signal.SIGINT)
    finally:
        # Its standard input is closed now, which stops it, should we leave by an error.
        process.wait()
    if "summary" in final:
        summary: dict[str, Any] = final["summary"]
        return summary
    raise _failure(final.get("error"), process.returncode, run, interrupts)


def _failure(error: dict[str, Any] | None, status: int, run: str, interrupts: int) -> LockstepError:
    if error is not None:
        code, message = int(error["exit_code"]), str(error["message"])
        if code == EXIT_INTERRUPTED:
            return Interrupted("interrupted; there was no run yet")
        if code == EXIT_UNFINISHED:
            return RunStopped(message)
        return ERRORS.get(code, LockstepBug)(message)
    if interrupts > 1:
        return Interrupted(f"stopped at once; the journal in {run} is whole up to its last record")
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    where = f"; the journal in {run} is whole up to its last record" if run else ""
    return RunStopped(f"the supervisor process ended with {how}{where}")
