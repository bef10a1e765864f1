"""Verification: execute a run again from its folder and compare, entry by entry."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lockstep.engine.compare import Difference, ended, first_difference
from lockstep.engine.errors import (
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Diverged,
    RunStopped,
    UsageError,
)
from lockstep.engine.journal import format as journal_format
from lockstep.workers import folder as folders
from lockstep.workers.api import absolute
from lockstep.workers.identity import (
    environment_differences,
    kept_records,
    read_journal,
    read_manifest,
)
from lockstep.workers.job import Job
from lockstep.workers.launch import Interrupted, Listener, launch
from lockstep.workers.prepare import sha256


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
    identity, environment = read_manifest(journal, path)
    kept_records(journal, path)  # Refused here rather than in another process.
    recorded = list(journal.bodies(journal_format.HISTORY))
    whole = ended(recorded)
    digest = hashlib.sha256(b"".join([journal.frames[0].body, *recorded])).hexdigest()
    _check_folder(path, environment, digest)
    if not recorded:
        raise UsageError(f"{path}: the record ends before anything happened: nothing to verify")
    scratch = Path(tempfile.mkdtemp(prefix="lockstep-verify-"))
    try:
        job = _second(path, environment, models or {}, scratch)
        job = replace(job, order=identity["order"], entries_max=0 if whole else len(recorded))
        again = launch(job, listen)
        second = read_journal(scratch / "run")
        output = (scratch / "run" / folders.OUTPUT).read_bytes()
        _, now = read_manifest(second, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = list(second.bodies(journal_format.HISTORY))
    difference = first_difference(recorded, found, prefix=not whole)
    if difference is not None and found == recorded[: len(found)] and not ended(found):
        # It did not come as far: that says nothing about equality.
        reason = f"the second execution stopped: {again['reason']}"
        raise Interrupted(reason) if again["exit_code"] == EXIT_INTERRUPTED else RunStopped(reason)
    if difference is None:
        difference = _output_difference((path / folders.OUTPUT).read_bytes(), output, whole)
    notes = environment_differences(environment, now)
    if journal.torn_bytes:
        notes.append(f"the record ends in {journal.torn_bytes} bytes of a torn frame, not counted")
    return Verification(difference is None, whole, digest, again, difference, tuple(notes))


def _second(run: Path, environment: dict[str, Any], models: dict[str, str], scratch: Path) -> Job:
    """The job that executes a run again: from its folder, into a scratch folder."""
    moved = {name: absolute(folder) for name, folder in models.items()}
    return Job(
        fleet=str(run / folders.FLEET),
        base=str(scratch),
        input=str(run / folders.INPUT) if environment["has_input"] else "",
        seed=environment["seed"],
        run_dir=str(scratch / "run"),
        durability="memory",
        modules_at=str(run / "modules"),
        models_at={**environment["models"], **moved},
        verify_of=str(run),
    )


def _check_folder(path: Path, environment: dict[str, Any], digest: str) -> None:
    """Refuse a folder whose parts are not of one run.

    Raises:
        Diverged: the fleet file was changed, or the journal is not the one that was closed.
    """
    try:
        fleet = sha256((path / folders.FLEET).read_bytes())
        closed = path / folders.SUMMARY
        booked = json.loads(closed.read_bytes())["digest"] if closed.exists() else digest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: the run folder is not whole: {error}") from None
    if fleet != environment["fleet_sha256"]:
        raise Diverged(
            f"{path / folders.FLEET}: is not the file that was run: its sha256 is {fleet}, "
            f"recorded was {environment['fleet_sha256']}"
        )
    if booked != digest:
        raise Diverged(
            f"{path}: the journal holds a history of digest {digest}, the run was closed with "
            f"{booked}: frames are missing at its end, or it is another run's"
        )


def _output_difference(recorded: bytes, again: bytes, whole: bool) -> Difference | None:
    """Whether the output file is what the history says; of a stopped run, its beginning."""
    if recorded == again or (not whole and again.startswith(recorded)):
        return None
    lines = zip_longest(recorded.split(b"\n"), again.split(b"\n"), fillvalue=b"")
    number, (left, right) = next((n, pair) for n, pair in enumerate(lines, 1) if len(set(pair)) > 1)
    place = f"line {number} of {folders.OUTPUT}"
    return Difference(-1, place, left[:120].decode("utf-8", "replace"),
                      right[:120].decode("utf-8", "replace"))  # fmt: skip
