"""The Python API: run a fleet, verify a run. The command line is a thin caller of it."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.compare import Difference, ended, first_difference
from lockstep.engine.errors import (
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    RunStopped,
    UsageError,
)
from lockstep.engine.journal import format as journal_format
from lockstep.workers import folder as folders
from lockstep.workers.identity import environment_differences, read_journal, read_manifest
from lockstep.workers.job import Job
from lockstep.workers.journal_file import LEVELS
from lockstep.workers.launch import Interrupted, Listener, launch


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
        text = (self.folder / folders.OUTPUT).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@dataclass(frozen=True)
class Verification:
    """What running a run again showed.

    Attributes:
        equal: Every entry of the recorded history came out again.
        whole: The recorded run had ended; otherwise only what it had was compared.
        recorded: Digest of the recorded history.
        again: Summary of the second execution.
        difference: The first one, when not equal.
        notes: What differs between then and now besides the run: versions, CPU, provider.
    """

    equal: bool
    whole: bool
    recorded: str
    again: dict[str, Any]
    difference: Difference | None
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_OK if self.equal else EXIT_DIVERGED


def run(
    fleet: str | Path,
    input: str | Path | None = None,
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    durability: str = "async",
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
        listen: Called with ("run" | "note" | "progress", value).

    Raises:
        LockstepError: see `launch`; each has an ``exit_code``.
    """
    if durability not in LEVELS:
        raise UsageError(f"durability is {durability!r}, expected {' or '.join(LEVELS)}")
    summary = launch(
        Job(
            fleet=_absolute(fleet),
            base=str(Path.cwd()),
            input=_absolute(input),
            output=_absolute(output),
            seed=seed,
            run_dir=_absolute(run_dir),
            durability=durability,
        ),
        listen,
    )
    return Run(Path(summary["run"]), summary)


def verify(
    run: str | Path, *, models: dict[str, str] | None = None, listen: Listener | None = None
) -> Verification:
    """Run a run again from its folder and compare the histories, entry by entry.

    Args:
        run: A run folder; it is only read.
        models: Model folders by name, where they moved.
        listen: As in `run`.

    Raises:
        UsageError: no run, or it is still running.
        Interrupted, RunStopped: the second execution did not come to its end.
        Diverged: what is in the folder is not what was run.
        ModelRejected: a model changed.
    """
    path = Path(run).resolve()
    journal = read_journal(path)
    holder = folders.holder_of(path)
    if holder is not None:
        raise UsageError(f"{path}: process {holder} is still running it")
    _, environment = read_manifest(journal, path)
    recorded = list(journal.bodies(journal_format.HISTORY))
    whole = ended(recorded)
    moved = {name: _absolute(folder) for name, folder in (models or {}).items()}
    scratch = Path(tempfile.mkdtemp(prefix="lockstep-verify-"))
    try:
        again = launch(
            Job(
                fleet=str(path / folders.FLEET),
                base=str(scratch),
                input=str(path / folders.INPUT) if environment["has_input"] else "",
                seed=environment["seed"],
                run_dir=str(scratch / "run"),
                durability="memory",
                modules_at=str(path / "modules"),
                models_at={**environment["models"], **moved},
                verify_of=str(path),
                entries_max=0 if whole else len(recorded),
            ),
            listen,
        )
        second = read_journal(scratch / "run")
        _, now = read_manifest(second, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = list(second.bodies(journal_format.HISTORY))
    difference = first_difference(recorded, found, prefix=not whole)
    if difference is not None and found == recorded[: len(found)] and not ended(found):
        # It did not come as far: that says nothing about equality.
        reason = f"the second execution stopped: {again['reason']}"
        raise Interrupted(reason) if again["exit_code"] == EXIT_INTERRUPTED else RunStopped(reason)
    digest = hashlib.sha256(b"".join([journal.frames[0].body, *recorded])).hexdigest()
    notes = tuple(environment_differences(environment, now))
    return Verification(difference is None, whole, digest, again, difference, notes)


def _absolute(path: str | Path | None) -> str:
    return "" if path is None else str(Path(path).absolute())
