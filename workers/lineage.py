"""Lineage: a fork's past is its parent's record up to the cut, and lies there.

A fork's identity says what was shared: the parent's run id, the step, how many entries, and their
hash, so that another run in the parent's place, or a changed one, is refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import Diverged, JournalCorrupt, UsageError
from lockstep.engine.journal import format as journal_format
from lockstep.engine.past import Past
from lockstep.workers.identity import Manifest, kept_records, read_journal, read_manifest

DEPTH_MAX = 100  # Forks of forks.
FORK, PARENT = "fork", "parent"  # Keys of identity and environment.


@dataclass(frozen=True, slots=True)
class Cut:
    """From a step on the fleet is another one.

    Attributes:
        step: The first with the changes.
        changes: ``key=value`` of the fleet file (engine/changes.py).
    """

    step: int
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Lineage:
    """A run's whole past.

    Attributes:
        run_id: Hex.
        identity: Of the run itself.
        environment: Likewise.
        first: Environment of the run that it all began with.
        past: Entries of everybody, eldest first.
        shared: What of it lies in other runs' journals.
        cuts: Where forks were made, eldest first; empty: the run is no fork.
    """

    run_id: str
    identity: dict[str, Any]
    environment: dict[str, Any]
    first: dict[str, Any]
    past: Past
    shared: Past
    cuts: tuple[Cut, ...]

    @property
    def manifest(self) -> Manifest:
        """Identity and environment."""
        return self.identity, self.environment

    def fork(self, at: int, changes: tuple[str, ...]) -> tuple[Past, dict[str, Any]]:
        """What a fork of this run shares, and what its identity says of it."""
        shared = self.past.before((at, 0))
        return shared, {
            "run_id": self.run_id,
            "at": at,
            "entries": len(shared.entries),
            "past": hash_of(shared),
            "changes": list(changes),
        }


def read(run: Path, depth: int = 0) -> Lineage:
    """The lineage of a run folder.

    Raises:
        UsageError: no run there, or a parent is not where it was.
        JournalCorrupt, JournalVersion: damage.
        Diverged: a parent is not what was shared.
    """
    journal = read_journal(run)
    identity, environment = read_manifest(journal, run)
    own = Past(list(journal.bodies(journal_format.HISTORY)), kept_records(journal, run))
    run_id = journal.header.run_id.hex()
    fork = identity.get(FORK)
    if fork is None:
        return Lineage(run_id, identity, environment, environment, own, Past([]), ())
    if depth == DEPTH_MAX:
        raise UsageError(f"{run}: more than {DEPTH_MAX} forks of forks")
    where = parent_of(run, fork, environment)
    parent = read(where, depth + 1)
    if parent.run_id != fork["run_id"]:
        raise Diverged(
            f"{where}: is run {parent.run_id}, {run} was forked from run {fork['run_id']}"
        )
    shared = parent.past.before((fork["at"], 0))
    if len(shared.entries) != fork["entries"] or hash_of(shared) != fork["past"]:
        raise Diverged(
            f"{where}: its {len(shared.entries)} entries before step {fork['at']} are not the "
            f"{fork['entries']} that {run} was forked from"
        )
    past = Past([*shared.entries, *own.entries], [*shared.kept, *own.kept])
    before = [cut for cut in parent.cuts if cut.step <= fork["at"]]
    cuts = (*before, Cut(fork["at"], tuple(fork["changes"])))
    return Lineage(run_id, identity, environment, parent.first, past, shared, cuts)


def hash_of(past: Past) -> str:
    """Hex SHA-256 of the entries of a past, each after its length."""
    total = hashlib.sha256()
    for body in past.entries:
        total.update(len(body).to_bytes(8, "little"))
        total.update(body)
    return total.hexdigest()


def parent_of(run: Path, fork: Any, environment: dict[str, Any]) -> Path:
    """Where the parent's run folder lies.

    Args:
        run: Folder of the fork.
        fork: What its identity says of it.
        environment: Its own.

    Raises:
        JournalCorrupt: what the record says of the fork cannot be read.
        UsageError: it is not there any more.
    """
    kinds = {"run_id": str, "at": int, "entries": int, "past": str, "changes": list}
    where = environment.get(PARENT)
    if (
        not isinstance(fork, dict)
        or not isinstance(where, str)
        or not all(isinstance(fork.get(key), kind) for key, kind in kinds.items())
    ):
        raise JournalCorrupt(f"{run}: what the journal says of the fork cannot be read")
    # A parent that was moved together with its forks is found beside them.
    for path in (Path(where), run.resolve().parent / Path(where).name):
        if path.is_dir():
            return path
    raise UsageError(
        f"{run}: its past lies in {where}, where run {fork['run_id']} is not any more; "
        "put it back there, or beside the fork"
    )
