"""Verification: execute a run again from its folder and compare, entry by entry."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lockstep.engine.compare import Difference, ended, first_difference
from lockstep.engine.errors import (
    EXIT_BUG,
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Diverged,
    LockstepBug,
    LockstepError,
    RunStopped,
    UsageError,
)
from lockstep.workers import folder as folders
from lockstep.workers.expectation import Beforehand, Expectation
from lockstep.workers.identity import environment_differences
from lockstep.workers.launch import Interrupted, Listener, launch
from lockstep.workers.recorded import Recorded, read, recorded
from lockstep.workers.scratch import RUN, Scratch

# What a second execution that did not come as far is told as, by its exit code.
_STOPPED: dict[int, type[LockstepError]] = {
    EXIT_INTERRUPTED: Interrupted,
    EXIT_DIVERGED: Diverged,
    EXIT_BUG: LockstepBug,
}


@dataclass(frozen=True)
class Verification:
    """What running a run again showed.

    Attributes:
        equal: Every entry of the recorded history came out again.
        whole: The recorded run had ended; otherwise only what it had was compared.
        recorded: Digest of the recorded history.
        again: Summary of the second execution, which stops where it differs.
        difference: The first one, when not equal.
        notes: What differs between then and now besides the run: versions, CPU, provider.
        expectation: Which equality that leaves; told before anything was executed.
        equal_text: Whether messages, token ids and outputs are equal (`digest_text`); None: one
            of the two executions did not come to its end.
    """

    equal: bool
    whole: bool
    recorded: str
    again: dict[str, Any]
    difference: Difference | None
    notes: tuple[str, ...]
    expectation: Expectation
    equal_text: bool | None

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_OK if self.equal else EXIT_DIVERGED


@dataclass(frozen=True)
class _Second:
    """What the second execution left."""

    summary: dict[str, Any]
    history: list[bytes]
    output: bytes
    environment: dict[str, Any]


def verify(
    run: str | Path, *, models: dict[str, str] | None = None, listen: Listener | None = None
) -> Verification:
    """Run a run again from its folder and compare the histories, entry by entry.

    Args:
        run: A run folder; it is only read.
        models: Model folders by name, where they moved.
        listen: As in `run`; also called with ("expect", text): which equality can be expected,
            before anything is executed.

    Raises:
        UsageError: no run, or it is still running.
        Interrupted, RunStopped: the second execution did not come to its end.
        Diverged: what is in the folder is not what was run.
        ModelRejected: a model changed.
    """
    first = recorded(run)
    first.check()
    if not first.history:
        raise UsageError(
            f"{first.path}: the record ends before anything happened: nothing to verify"
        )
    beforehand = Beforehand(listen)
    second = _again(first, models, beforehand)
    difference = first_difference(
        first.history, second.history, prefix=not first.whole, names=first.agents
    )
    came = second.history == first.history[: len(second.history)]
    if difference is not None and came and not ended(second.history):
        # It did not come as far: that says nothing about equality.
        reason = f"the second execution stopped: {second.summary['reason']}"
        raise _STOPPED.get(second.summary["exit_code"], RunStopped)(reason)
    if difference is None:
        output = (first.path / folders.OUTPUT).read_bytes()
        difference = _output_difference(output, second.output, first.whole)
    return Verification(
        equal=difference is None,
        whole=first.whole,
        recorded=first.digest,
        again=second.summary,
        difference=difference,
        notes=_notes(first, second),
        expectation=beforehand.expectation,
        equal_text=_equal_text(first, second),
    )


def _again(first: Recorded, models: dict[str, str] | None, listen: Listener) -> _Second:
    """Execute it in a scratch folder, of which nothing is left."""
    with Scratch() as scratch:
        run = scratch.path / RUN
        job = first.job(
            scratch.path,
            models,
            run_dir=str(run),
            durability="memory",
            verify_of=str(first.path),
            **first.fork,
            entries_max=0 if first.whole else len(first.history),
        )
        summary = launch(job, listen)
        again = read(run)
        output = (run / folders.OUTPUT).read_bytes()
        return _Second(summary, again.history, output, again.environment)


def _notes(first: Recorded, second: _Second) -> tuple[str, ...]:
    notes = environment_differences(first.environment, second.environment)
    if first.torn_bytes:
        notes.append(f"the record ends in {first.torn_bytes} bytes of a torn frame, not counted")
    return tuple(notes)


def _equal_text(first: Recorded, second: _Second) -> bool | None:
    booked = first.summary()
    if booked is None or not first.whole or not ended(second.history):
        return None
    return bool(booked.get("digest_text") == second.summary["digest_text"])


def _output_difference(recorded: bytes, again: bytes, whole: bool) -> Difference | None:
    """Whether the output file is what the history says; of a stopped run, its beginning."""
    if recorded == again or (not whole and again.startswith(recorded)):
        return None
    lines = zip_longest(recorded.split(b"\n"), again.split(b"\n"), fillvalue=b"")
    number, (left, right) = next((n, pair) for n, pair in enumerate(lines, 1) if len(set(pair)) > 1)
    place = f"line {number} of {folders.OUTPUT}"
    return Difference(-1, place, left[:120].decode("utf-8", "replace"),
                      right[:120].decode("utf-8", "replace"))  # fmt: skip
