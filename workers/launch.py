"""Launching a supervisor process and listening to it, from whatever program calls the API.

The supervisor gets an interpreter of its own: it has to stay single-threaded, and a caller
(a notebook, a test) may have any number of threads. It is in a session of its own, too, so that
Ctrl-C reaches the caller only, which passes it on once.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
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
    "LD_BIND_NOW": "1",  # Names of the C library are looked up once, not in every agent (40 kB).
}
SUPERVISOR = "lockstep.workers.supervisor"
PROFILED = "lockstep.workers.profile.supervising"
PLATFORM = "LOCKSTEP_PLATFORM"  # Which one a run uses (docs/not-run-here.md).
ERRORS = {UsageError.exit_code: UsageError, Diverged.exit_code: Diverged,
          LockstepBug.exit_code: LockstepBug}  # fmt: skip

Listener = Callable[[str, Any], None]


class Interrupted(LockstepError):
    """A person stopped it.

    Attributes:
        summary: Of the run as far as it came; None when there was no run, or it was ended at once.
    """

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str, summary: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.summary = summary


def launch(job: Job, listen: Listener | None = None, stdin: int | None = None) -> dict[str, Any]:
    """Run a job in a supervisor process.

    Args:
        job: What to run.
        listen: Called with ("run" | "note" | "progress", value) as they come; with
            ("stopping", text) when a person interrupts it.
        stdin: Descriptor handed down for a source of that kind; None: there is none.

    Returns:
        The summary. KeyboardInterrupt while waiting is passed on: the first lets the run stop
        cleanly, the next ends it at once.

    Raises:
        UsageError, Diverged, LockstepBug: what the supervisor refused; nothing was made.
        Interrupted: stopped by a person before there was a run, or at once.
        RunStopped: the supervisor died.
    """
    return Conversation(job, listen, stdin).until_the_end()


def process_of(handed: Sequence[int], module: str = SUPERVISOR) -> "subprocess.Popen[bytes]":
    """A supervisor process that waits for its job on its standard input.

    Args:
        handed: Descriptors that it inherits.
        module: The program.
    """
    return subprocess.Popen(
        # -P: what lies in the working folder must not shadow a module.
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
        pass_fds=handed,
    )


def completed(job: Job) -> Job:
    """A job with what the caller's environment says of it, unless it says so itself."""
    cache, platform = job.cache or cache_folder(), job.platform or os.environ.get(PLATFORM, "")
    return replace(job, cache=cache, platform=platform)


def cache_folder() -> str:
    """Where this user's programs keep what they can make again; empty: nowhere.

    It is looked up here, where the caller's environment ends. No bit of a run depends on it.
    """
    home = os.environ.get("HOME", "")
    base = os.environ.get("XDG_CACHE_HOME", "") or (f"{home}/.cache" if home else "")
    return f"{base}/lockstep" if base.startswith("/") else ""


class Conversation:
    """One supervisor process and what it says.

    Who has several of them calls `begin` once, `hear` when `descriptor` is readable, and when there
    is no more to hear `close` and `summary`.
    """

    def __init__(self, job: Job, listen: Listener | None, stdin: int | None) -> None:
        self._listen = listen
        self._run = ""
        self._repeats = bool(job.verify_of) or job.mode == "replay"
        self._nothing = "" if self._repeats else "; there was no run yet"
        self._interrupts = 0
        self._told = False  # What a first interrupt does.
        self._started = False  # Before that a signal would meet a starting interpreter.
        self._final: dict[str, Any] = {}
        self._heard = b""
        # Its own standard input is the job's: ours goes down under another number.
        handed = _duplicate(stdin)
        job = replace(completed(job), stdin=handed)
        self._line = job.to_json().encode() + b"\n"
        module = PROFILED if job.profile else SUPERVISOR
        self._process = process_of(() if handed < 0 else (handed,), module)
        if handed >= 0:
            os.close(handed)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.descriptor = self._stdout.fileno()

    def until_the_end(self) -> dict[str, Any]:
        """As `launch`."""
        try:
            self.begin()
            while True:
                try:
                    self._tell_stopping()
                    if not self.hear():
                        break
                except KeyboardInterrupt:
                    self.interrupt()
        finally:
            self.close()
        return self.summary()

    def begin(self) -> None:
        """Tell it what to do."""
        with suppress(BrokenPipeError):  # It died at once, which its end will tell.
            self._stdin.write(self._line)

    def hear(self) -> bool:
        """Take what it says, waiting for it; False: it says no more."""
        # Read and kept at once: an interrupt may come between any two lines of ours, and what a
        # buffered reader holds at that moment would be lost.
        data = os.read(self.descriptor, 1 << 16)
        self._heard += data
        while b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            ((what, value),) = json.loads(line).items()
            self._take(what, value)
        return bool(data)

    def _take(self, what: str, value: Any) -> None:
        if what in ("summary", "error"):
            self._final = {what: value}
        elif what == "started":
            self._started = True
            if self._interrupts:
                self._process.send_signal(signal.SIGINT)
        else:
            if what == "run" and not self._repeats:  # Else a scratch folder.
                self._run = value
            if self._listen is not None:
                self._listen(what, value)

    def interrupt(self) -> None:
        """Let the run stop cleanly; the second time, end it at once."""
        self._interrupts += 1
        if self._interrupts > 1:
            self._process.kill()
        elif self._started:
            self._process.send_signal(signal.SIGINT)

    def _tell_stopping(self) -> None:
        """Once: a person who pressed Ctrl-C sees that it was heard."""
        if self._interrupts and not self._told:
            self._told = True
            if self._listen is not None:
                self._listen("stopping", "as soon as it can, with all kept; a second time: at once")

    def close(self) -> None:
        """Wait for its end. Its standard input is closed, which stops it if it goes on."""
        for stream in (self._stdin, self._stdout):
            stream.close()
        while True:
            try:
                self._process.wait()
            except KeyboardInterrupt:
                self._process.kill()
            else:
                return

    def summary(self) -> dict[str, Any]:
        """What it came to, as `launch` gives it and raises, once it is closed."""
        if "summary" in self._final:
            found: dict[str, Any] = self._final["summary"]
            return found
        raise self._failure(self._final.get("error"), self._process.returncode)

    def _failure(self, error: dict[str, Any] | None, status: int) -> LockstepError:
        if error is not None:
            code, message = int(error["exit_code"]), str(error["message"])
            if code == EXIT_INTERRUPTED:
                return Interrupted(f"interrupted{self._nothing}")
            if code == EXIT_UNFINISHED:
                return RunStopped(message)
            return ERRORS.get(code, LockstepBug)(message)
        where = f"; the journal in {self._run} is whole up to its last record" if self._run else ""
        if self._interrupts > 1:
            return Interrupted(f"stopped at once{where or self._nothing}")
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return RunStopped(f"the supervisor process ended with {how}{where}")


def _duplicate(descriptor: int | None) -> int:
    """Another number for it, above the standard ones; -1: there is none, or it is closed."""
    try:
        return -1 if descriptor is None else fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return -1
