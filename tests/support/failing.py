"""Failing: a provider that computes for a while and then fails.

`FIRST` is a provider by name. With the wheel onnxruntime-openvino it is OpenVINO's, on this CPU.
Else it is made of ONNX Runtime's CPU one: real sessions, with other options than the CPU's own (no
weights are packed, no graph is optimised). Its bits are others, both ways. It fails as a device
does: the run of a session raises ONNX Runtime's own error, or the process dies of it, or the next
process finds no such provider. What is launched `under` it knows that; the product has no switch
for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SUPPORT = Path(__file__).resolve().parent
# Told without loading it: the supervisor never does.
REAL = any(metadata.distributions(name="onnxruntime-openvino"))
FIRST = "OpenVINOExecutionProvider" if REAL else "FirstExecutionProvider"
NEVER = 2**40
# How it fails: its run raises; its process is killed, each time; its process is killed and there is
# no such provider any more; there is none from the beginning; its run raises, and the first process
# on the CPU is killed in the middle of what it executes again.
RAISES, DIES, LOST, GONE, TORN = "raises", "dies", "lost", "gone", "torn"
TORN_AT = 3  # Of the runs that are executed again.


def prelude(step: int = NEVER, how: str = RAISES, mark: str = "") -> str:
    """Python that a supervisor executes first: from ``step`` on it fails. ``mark``: a file."""
    path = f"import sys; sys.path.insert(0, {str(SUPPORT)!r})"
    return f"{path}; import failing; failing.install({step}, {how!r}, {mark!r})"


@contextmanager
def under(step: int = NEVER, how: str = RAISES, mark: str = "") -> Iterator[None]:
    """What is launched meanwhile has the provider."""
    from living import SUPERVISOR

    from lockstep.workers import launch

    def popen(command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        assert command[-1] == "lockstep.workers.supervisor", command
        code = f"{prelude(step, how, mark)}\n{SUPERVISOR}"
        return subprocess.Popen([sys.executable, "-P", "-c", code], **more)

    changed: Any = launch
    before = changed.subprocess
    changed.subprocess = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE)
    try:
        yield
    finally:
        changed.subprocess = before


def install(step: int, how: str, mark: str) -> None:
    """In a supervisor: its inference processes have the provider."""
    from lockstep.workers import spawn

    fork = spawn.fork

    def named(name: str, body: Callable[[], int], keep: Any) -> Any:
        def begin() -> int:
            if name == "inference":
                _provide(how, mark)
                _fail(step, how, mark)
            return body()

        return fork(name, begin, keep)

    changed: Any = spawn
    changed.fork = named


def _provide(how: str, mark: str) -> None:
    from lockstep.workers.inference import decoder, provider

    changed: Any = decoder
    real, options = provider.open_session, provider._options

    def plain(*given: Any) -> Any:
        made = options(*given)
        made.add_session_config_entry("session.disable_prepacking", "1")
        made.graph_optimization_level = provider.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return made

    def opened(folder: Any, asked: Any, require: Any, *more: Any) -> Any:
        if FIRST not in asked:
            return real(folder, asked, require, *more)
        if how == GONE or (how == LOST and Path(mark).exists()):
            session, report = real(folder, ("cpu",), None, *more)
            missing = provider.Missing(FIRST, "it fell off the bus", "put it back")
            return session, replace(report, asked=tuple(asked), missing=(missing,))
        if REAL:
            return real(folder, asked, require, *more)
        module: Any = provider
        module._options = plain
        try:
            session, report = real(folder, ("cpu",), None, *more)
        finally:
            module._options = options
        return session, replace(report, asked=tuple(asked), got=(FIRST, "cpu"), missing=())

    changed.open_session = opened


def _fail(step: int, how: str, mark: str) -> None:
    from lockstep.workers.inference import decoder
    from lockstep.workers.inference.ort import ort

    changed: Any = decoder.Decoder
    rows = changed.rows

    def failing(self: Any, plan: Any, at: int | None = None, short: Any = ()) -> Any:
        if at is not None and at >= step and self.report.running != "cpu":
            if how in (DIES, LOST):
                if mark:
                    Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            self._options = ort.RunOptions()
            self._options.terminate = True  # ONNX Runtime's own run raises its own error.
        return rows(self, plan, at, short)

    changed.rows = failing
    if how == TORN:
        _tear(mark)


def _tear(mark: str) -> None:
    from lockstep.workers.inference import relive

    changed: Any = relive
    plan, again = changed._plan, []

    def torn(*given: Any) -> Any:
        again.append(given)
        if len(again) == TORN_AT and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plan(*given)

    changed._plan = torn
