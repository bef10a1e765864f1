"""A recorded run: its folder as it was read, and the jobs that are made from it.

Only read: whoever goes on with a run opens its journal anew (workers/ledger.py).
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lockstep.engine.changes import as_recorded
from lockstep.engine.compare import ended
from lockstep.engine.digest import identity_record
from lockstep.engine.errors import Diverged, JournalCorrupt, ProtocolError, UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import Kind, decode, decode_at
from lockstep.engine.strict_json import dumps, loads
from lockstep.workers import folder as folders
from lockstep.workers import lineage
from lockstep.workers.export import Names
from lockstep.workers.identity import read_manifest
from lockstep.workers.job import Job
from lockstep.workers.journal_file import LEVELS
from lockstep.workers.journal_reading import kept_records, read_journal, scan_journal
from lockstep.workers.prepare import read_fleet, sha256


@dataclass(frozen=True)
class Recorded:
    """A run that nobody holds.

    Attributes:
        path: Its folder, absolute.
        identity: What decides every bit of it.
        environment: What it ran on.
        history: Bodies of its entries, in order; of a fork, those that it shares come first.
        torn_bytes: At the end of its journal, which do not count.
    """

    path: Path
    identity: dict[str, Any]
    environment: dict[str, Any]
    history: list[bytes]
    torn_bytes: int

    @property
    def whole(self) -> bool:
        """Whether it had come to its end."""
        return ended(self.history)

    @cached_property
    def digest(self) -> str:
        """Of what is recorded."""
        total = hashlib.sha256(identity_record(self.identity))
        for body in self.history:
            total.update(body)
        return total.hexdigest()

    @property
    def stop_reason(self) -> str:
        """Why it was stopped by its own rules (`turns_max`, a deadlock); empty: it was not."""
        if not self.whole:
            return ""
        stops = [r.payload for r in decode(self.history[-1]) if r.kind == Kind.STOP]
        return stops[-1].decode("utf-8", "replace")

    @property
    def last_step(self) -> int:
        """Step of the last entry; -1: there is none."""
        try:
            return decode_at(self.history[-1], 0)[0].id if self.history else -1
        except ProtocolError:
            return -1

    @property
    def agents(self) -> list[str]:
        """Names of the agents, as the identity has them."""
        return Names(self.identity).agents

    @property
    def durability(self) -> str:
        """The level that it was run with; the default where an older version did not say."""
        level = self.environment.get("durability", "")
        return level if level in LEVELS else "async"

    def fleet(self) -> Fleet:
        """The fleet at its end: the folder's file, and what was given or changed in place of it.

        Raises:
            UsageError: the file cannot be read.
            JournalCorrupt: the identity has no such fleet.
        """
        path = self.path / folders.FLEET
        seed, order = self.environment["seed"], self.identity["order"]
        fleet, _ = read_fleet(path, seed, order, self.identity["logic_flags"])
        try:
            return as_recorded(fleet, self.identity["fleet"])
        except (KeyError, TypeError) as error:
            raise JournalCorrupt(f"{self.path}: the journal's fleet has no {error}") from None

    @property
    def fork(self) -> dict[str, Any]:
        """Of a fork, the fields of a `Job` that repeat how it was made; else nothing."""
        fork = self.identity.get(lineage.FORK)
        if fork is None:
            return {}
        past = lineage.parent_of(self.path, fork, self.environment)
        changes = tuple(fork["changes"])
        return {"mode": "fork", "past": str(past), "at": fork["at"], "changes": changes}

    def summary(self) -> dict[str, Any] | None:
        """What the run came to, if that was booked.

        Raises:
            UsageError: the file is there and cannot be read.
        """
        path = self.path / folders.SUMMARY
        if not path.exists():
            return None
        try:
            value = json.loads(path.read_bytes())
            good = isinstance(value, dict) and isinstance(value["digest"], str)
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{self.path}: the run folder is not whole: {error}") from None
        if not good:
            raise UsageError(f"{path}: is not the summary of a run")
        return dict(value)

    def booked(self) -> dict[str, Any] | None:
        """The summary of a run that came to its end and was closed; None: something is left to do.

        Raises:
            UsageError, Diverged: as `check`.
        """
        summary = self.summary() if self.whole else None
        if summary is None:
            return None
        # An interrupt between the last entry and the closing is booked as one.
        if summary.get("state") != "finished" and summary.get("reason") != self.stop_reason:
            return None
        self.check()
        summary.pop("agents", None)  # For `top`: no figure of a run.
        return summary

    def check(self) -> None:
        """Refuse a folder whose parts are not of one run.

        Raises:
            UsageError: a part is missing.
            Diverged: the fleet file says something else, or the journal is not the one that was
                closed.
        """
        self._check_fleet()
        booked = (self.summary() or {"digest": self.digest})["digest"]
        if booked != self.digest:
            raise Diverged(
                f"{self.path}: the journal holds a history of digest {self.digest}, the run was "
                f"closed with {booked}: frames are missing at its end, or it is another run's"
            )

    def _check_fleet(self) -> None:
        """The fleet file by its meaning: [recovery] is physical, and comments are anybody's."""
        path = self.path / folders.FLEET
        try:
            found = sha256(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{self.path}: the run folder is not whole: {error}") from None
        if found == self.environment["fleet_sha256"]:
            return
        try:
            same = meaning(self.fleet().settings()) == meaning(self.identity["fleet"])
        except UsageError:
            same = False
        if not same:
            raise Diverged(
                f"{path}: is not the file that was run: its sha256 is {found}, recorded was "
                f"{self.environment['fleet_sha256']}, and it says something else"
            )

    def check_models(self, models: dict[str, str] | None) -> None:
        """Raise UsageError for a name that none of the run's models has."""
        known = self.environment["models"]
        for name in models or {}:
            if name not in known:
                names = ", ".join(known) or "none"
                raise UsageError(f"model {name!r} is not in the fleet, only: {names}")

    def job(self, base: Path, models: dict[str, str] | None = None, **more: Any) -> Job:
        """What the run was made from, as a job.

        Args:
            base: Working folder.
            models: Model folders by name, where they moved.
            more: Fields of `Job` besides.
        """
        moved = {name: str(Path(folder).absolute()) for name, folder in (models or {}).items()}
        return Job(
            fleet=str(self.path / folders.FLEET),
            base=str(base),
            input=str(self.path / folders.INPUT) if self.environment["has_input"] else "",
            seed=self.environment["seed"],
            order=self.identity["order"],
            modules_at=str(self.path / "modules"),
            models_at={**self.environment["models"], **moved},
            logic_flags=self.identity["logic_flags"],
            **more,
        )


def recorded(run: str | Path) -> Recorded:
    """Read the record of a run.

    Raises:
        UsageError: no run, or it is still running (the holder is named).
        JournalCorrupt, JournalVersion: the record is damaged, or another version's.
    """
    path = Path(run)
    if not path.is_dir():
        raise UsageError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    path = path.resolve()
    holder = folders.living_holder_of(path)
    if holder is not None:
        raise UsageError(f"{path}: process {holder} is still running it")
    return read(path)


def has_ended(run: Path) -> bool:
    """Whether the record of a run has its end, read frame by frame.

    Raises:
        UsageError, JournalCorrupt, JournalVersion: as `recorded`.
    """
    last = b""
    for frame in scan_journal(run).frames():
        if frame.kind == journal_format.HISTORY:
            last = frame.body
    return ended([last])


def read(path: Path) -> Recorded:
    """As `recorded`, also of a run that is running now: as far as its record goes."""
    journal = read_journal(path)
    identity, environment = read_manifest(journal, path)
    kept_records(journal, path)  # Refused here rather than in another process.
    history = list(journal.bodies(journal_format.HISTORY))
    if lineage.FORK in identity:
        history = list(lineage.read(path).past.entries)
    return Recorded(path.resolve(), identity, environment, history, journal.torn_bytes)


def meaning(settings: dict[str, Any]) -> Any:
    """Settings of a fleet but for what an identity has hashes in place of: modules and models."""
    plain = loads(dumps(settings))
    for group in plain["groups"]:
        del group["module"]
    for model in plain["models"]:
        del model["path"]
    return plain
