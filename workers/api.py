"""The Python API: run a fleet and hold what it came to. The command line is a thin caller.

`verify` is in workers/verification.py, `diff` in workers/comparison.py.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.engine.changes import change
from lockstep.engine.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNFINISHED,
    Diverged,
    LockstepBug,
    LockstepError,
    RunStopped,
    UsageError,
)
from lockstep.engine.settings import nearest
from lockstep.engine.tag import Tag
from lockstep.engine.tag import text as tag_text
from lockstep.workers import folder as folders
from lockstep.workers.job import Job
from lockstep.workers.journal_file import LEVELS
from lockstep.workers.launch import Interrupted, Listener, launch
from lockstep.workers.scratch import RUN, Scratch

if TYPE_CHECKING:
    from lockstep.workers.recorded import Recorded

_TAG = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?")


@dataclass(frozen=True)
class Run:
    """A run that ended.

    Attributes:
        folder: The run folder.
        summary: Figures as in the JSON object of the command line.
    """

    folder: Path
    summary: dict[str, Any]

    @property
    def digest(self) -> str:
        """Hash of identity and logical history: what two runs are compared by."""
        return str(self.summary["digest"])

    @property
    def digest_text(self) -> str:
        """Hash of messages, token ids and outputs only."""
        return str(self.summary["digest_text"])

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return int(self.summary["exit_code"])

    @property
    def output(self) -> list[dict[str, Any]]:
        """Lines of the output file, in item order."""
        data = (self.folder / folders.OUTPUT).read_bytes()
        return [json.loads(line) for line in data.split(b"\n") if line]


def run(
    fleet: str | Path,
    input: str | Path | None = None,
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    durability: str = "async",
    order: str = "",
    stdin: int | None = 0,
    profile: str = "",
    listen: Listener | None = None,
) -> Run:
    """Run a fleet to its end.

    Args:
        fleet: The fleet file.
        input: JSON Lines, one item each.
        output: A copy of the run's output file.
        seed: In place of the fleet's.
        run_dir: The run's folder; default ``runs/<fleet>-<n>``.
        durability: "memory", "async" or "sync" (workers/journal_file.py).
        order: "strict" or "arrival" in place of the fleet's; empty: the fleet's.
        stdin: Descriptor that a source of that kind reads; None: such a source has ended at once.
        profile: As in `Job` (docs/profiling.md).
        listen: Called with ("run" | "note" | "progress", value).

    Returns:
        The run, also one that stopped or has failed items or agents: look at ``exit_code`` (0 when
        all went well), ``summary["state"]`` and ``summary["reason"]``.

    Raises:
        Interrupted: Ctrl-C; ``summary`` has the run as far as it came.
        LockstepError: see `launch`; each has an ``exit_code``.
    """
    if durability not in LEVELS:
        raise UsageError(f"durability is {durability!r}, expected {' or '.join(LEVELS)}")
    summary = launch(
        Job(
            fleet=absolute(fleet),
            base=str(Path.cwd()),
            input=absolute(input),
            output=absolute(output),
            seed=seed,
            run_dir=absolute(run_dir),
            durability=durability,
            order=order,
            profile=profile,
        ),
        listen,
        stdin,
    )
    return _ended(summary)


def resume(
    run: str | Path,
    *,
    output: str | Path | None = None,
    models: dict[str, str] | None = None,
    stdin: int | None = 0,
    listen: Listener | None = None,
) -> Run:
    """Finish a run that was interrupted, stopped by an accident, or lost its processes.

    A run that has come to its end is not touched: it is given back as it was booked, and the
    listener hears ("told", text).

    Args:
        run: A run folder that nobody holds.
        output: A copy of the run's output file: one that was asked for when it began is not
            written again by itself.
        models: Model folders by name, where they moved.
        stdin: As in `run`.
        listen: As in `run`.

    Returns:
        The run, as of `run`; its digest is that of the undisturbed run. ``summary["restarts"]``
        counts what was brought back.

    Raises:
        UsageError: no run, or a process is still running it.
        JournalCorrupt, JournalVersion: the record is damaged; nothing was changed.
        Diverged: what is executed again is not what is recorded.
        Interrupted: as in `run`.
    """
    past = _recorded(run)
    past.check_models(models)
    if output is not None:
        folders.check_output(Path(output), [past.path / folders.FLEET, past.path / folders.INPUT])
    booked = past.booked()
    if booked is not None:
        if output is not None:
            try:
                folders.copy_output(past.path, Path(output))
            except OSError as error:
                raise UsageError(f"{output}: cannot write the output: {error.strerror}") from None
        if listen is not None:
            listen("told", f"{past.path}: the run has come to its end; nothing was touched")
        return Run(past.path, {"restarts": 0, **booked, "run": str(past.path)})
    job = past.job(
        Path.cwd(),
        models,
        mode="resume",
        past=str(past.path),
        output=absolute(output),
        run_dir=str(past.path),
        durability=past.durability,
    )
    del past  # As large as the journal: not for the length of a run.
    return _ended(launch(job, listen, stdin))


def replay(
    run: str | Path,
    *,
    agent: str | None = None,
    until: str | None = None,
    trace: bool = False,
    listen: Listener | None = None,
) -> Run:
    """Execute a run's agents again from its record, without the model, and compare each turn.

    Nothing is left behind, and the folder is only read.

    Args:
        run: A run folder that nobody holds.
        agent: Only this one is executed; None: all.
        until: Stop before this tag, ``STEP`` or ``STEP.MICROSTEP``; None: at the end.
        trace: The listener hears ("trace", line) of each turn: its events and effects.
        listen: As in `run`.

    Returns:
        The recorded run with the figures of the replay.

    Raises:
        UsageError: no run, a process is still running it, or there is no such agent.
        JournalCorrupt, JournalVersion: the record is damaged, or another version's.
        Diverged: a turn came out in another way; it is named.
        Interrupted, RunStopped: it did not come to its end.
    """
    stop = tag_text(tag_of(until, "until")) if until is not None else ""
    past = _recorded(run)
    past.check()
    if agent is not None:
        _check_agent(past, agent)
    with Scratch() as scratch:
        job = past.job(
            scratch.path,
            mode="replay",
            past=str(past.path),
            run_dir=str(scratch.path / RUN),
            durability="memory",
            until=stop,
            only=agent or "",
            trace=trace,
        )
        summary = launch(job, listen)
    _check_replayed(summary, past)
    # Of the recorded run, not of the folder that is gone; its failures are not the replay's.
    output = str(past.path / folders.OUTPUT)
    return Run(past.path, summary | {"run": str(past.path), "output": output, "exit_code": EXIT_OK})


def fork(
    run: str | Path,
    at: int,
    changes: Mapping[str, object] | None = None,
    *,
    run_dir: str | Path | None = None,
    models: dict[str, str] | None = None,
    stdin: int | None = 0,
    listen: Listener | None = None,
) -> Run:
    """Begin a new run with the past of another one, and finish it.

    Args:
        run: A run folder that nobody holds; it is only read.
        at: The past is everything before this step.
        changes: Dotted keys of the fleet file and their values from there on
            (`engine.changes.MAY_CHANGE`). They are recorded.
        run_dir: The new run's folder; default ``runs/<fleet>-<n>``.
        models: Model folders by name, where they moved.
        stdin: As in `run`.
        listen: As in `run`.

    Returns:
        The new run, as of `run`.

    Raises:
        UsageError: no run, a process is still running it, the step is not in its past, or a key
            cannot change in the middle of a run (the reason is named).
        JournalCorrupt, JournalVersion: the record is damaged, or another version's.
        Interrupted: as in `run`.
    """
    settings = tuple(f"{key}={value}" for key, value in (changes or {}).items())
    past = _recorded(run)
    past.check()
    _, made = change(past.fleet(), settings)  # Refused here, before anything is started.
    _check_step(past, at)
    job = past.job(
        Path.cwd(),
        models,
        mode="fork",
        past=str(past.path),
        run_dir=absolute(run_dir),
        durability=past.durability,
        at=at,
        # As they are recorded: however they were typed, the same changes make the same run.
        changes=tuple(f"{one.key}={one.new}" for one in made),
    )
    del past  # As in `resume`.
    return _ended(launch(job, listen, stdin))


def _recorded(run: str | Path) -> "Recorded":
    # Reading a record takes numpy; running a fleet leaves that to other processes.
    from lockstep.workers.recorded import recorded

    return recorded(run)


def _check_replayed(summary: dict[str, Any], past: "Recorded") -> None:
    """Raise what a replay ended with, unless it came as far as it was to come."""
    code, reason = summary["exit_code"], summary["reason"]
    if code == EXIT_INTERRUPTED:
        raise Interrupted("the replay was interrupted")
    for error in (Diverged, LockstepBug):
        if code == error.exit_code:
            raise error(reason)
    # A run may have been stopped by its own rules: then that is its end, and its reason recorded.
    if summary["state"] != "finished" and reason not in ("", past.stop_reason):
        raise RunStopped(f"the replay stopped: {reason}")


def _check_agent(past: "Recorded", agent: str) -> None:
    names = [one.name for one in past.fleet().agents]
    if agent not in names:
        raise UsageError(f"{past.path}: no agent {agent!r}{nearest(agent, names)}")


def _check_step(past: "Recorded", at: int) -> None:
    last = past.last_step
    if at < 1 or last < 0:
        raise UsageError(f"{past.path}: nothing is before step {at}: `lockstep run` begins there")
    # What comes after the end of a whole run is no future to change.
    if at > (last if past.whole else last + 1):
        state = "ended" if past.whole else "was stopped"
        raise UsageError(f"{past.path}: the run {state} in step {last}; there is no step {at}")


def _ended(summary: dict[str, Any]) -> Run:
    """The run that a summary is of.

    Raises:
        Interrupted: a person stopped it.
    """
    run = Path(summary["run"])
    if summary["state"] == "stopped":
        accident = summary["exit_code"] in (EXIT_UNFINISHED, EXIT_INTERRUPTED)
        summary.setdefault("resumable", accident and _resumable(run))
    if summary["exit_code"] == EXIT_INTERRUPTED:
        raise Interrupted(f"interrupted; {run} has what was done", summary)
    return Run(run, summary)


def _resumable(run: Path) -> bool:
    """Whether the record of a stopped run can go on: a logical end is in it, an accident is not."""
    from lockstep.workers.recorded import has_ended

    try:
        return not has_ended(run)
    except LockstepError:
        return False


def tag_of(text: str, what: str) -> Tag:
    """A tag as people type it: ``12.3``, or ``12`` for ``12.0``.

    Raises:
        UsageError: it is none.
    """
    found = _TAG.fullmatch(text)
    if found is None:
        raise UsageError(f"{what} is {text!r}, expected STEP or STEP.MICROSTEP, such as 12.3")
    return int(found[1]), int(found[2] or 0)


def absolute(path: str | Path | None) -> str:
    """A path as a `Job` takes it; empty for None."""
    return "" if path is None else str(Path(path).absolute())
