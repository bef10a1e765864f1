"""Difference: two recorded runs beside each other, without executing anything.

What they are is compared first (seed, fleet, modules, models), then what they did, entry by
entry in logical order. Journals are only read; those of living runs as far as they go.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.compare import Difference, first_difference
from lockstep.engine.errors import EXIT_DIVERGED, EXIT_OK, UsageError
from lockstep.workers.identity import differences
from lockstep.workers.recorded import Recorded, read

# What makes runs different is told in this order; the rest of the identity comes behind it.
_RANKS = (
    "fleet.seed",
    "fork",
    "order",
    "input",
    "fleet.schedule",
    "fleet.groups",
    "fleet.models",
    "fleet",
)


@dataclass(frozen=True)
class Comparison:
    """What comparing two runs showed.

    Attributes:
        left: The first run.
        right: The second.
        identity: ``key: left -> right`` of what they are, the seed first; empty: the same run.
        difference: The first entry of history that differs; None: there is none.
    """

    left: Recorded
    right: Recorded
    identity: tuple[str, ...]
    difference: Difference | None

    @property
    def equal(self) -> bool:
        """The same run with the same history: their digests are equal."""
        return not self.identity and self.difference is None

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_OK if self.equal else EXIT_DIVERGED

    def as_json(self) -> dict[str, Any]:
        """The object of ``--json``."""
        found = self.difference
        sides = (self.left, self.right)
        # Runs that did the same and are not the same differ by their digests, at no tag.
        texts = [f"digest {side.digest}" for side in sides]
        if found is not None:
            texts = [found.left, found.right]
        return {
            "equal": self.equal,
            "tag": found.tag if found is not None else None,
            "left": None if self.equal else texts[0],
            "right": None if self.equal else texts[1],
            "entry": found.entry if found is not None else None,
            "before": list(found.before) if found is not None else [],
            "identity": list(self.identity),
            "runs": [str(side.path) for side in sides],
            "digests": [side.digest for side in sides],
            "whole": [side.whole for side in sides],
            "exit_code": self.exit_code,
        }


def diff(left: str | Path, right: str | Path) -> Comparison:
    """Find the first tag at which two runs differ, and what differs there.

    Args:
        left: A run folder.
        right: Another one.

    Raises:
        UsageError: there is no run.
        JournalCorrupt, JournalVersion: a journal is damaged, or another version's.
    """
    return compare(_record(Path(left)), _record(Path(right)))


def compare(left: Recorded, right: Recorded) -> Comparison:
    """As `diff`, of runs that were read."""
    return Comparison(
        left,
        right,
        tuple(sorted(differences(left.identity, right.identity), key=_rank)),
        _told(first_difference(left.history, right.history, names=left.agents), left, right),
    )


def _record(path: Path) -> Recorded:
    if not path.is_dir():
        raise UsageError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    return read(path)


def _rank(line: str) -> tuple[int, str]:
    found = [n for n, key in enumerate(_RANKS) if line.startswith(key)]
    return (found[0] if found else len(_RANKS), line)


def _told(found: Difference | None, left: Recorded, right: Recorded) -> Difference | None:
    """A record that only stops says so: that is no other history."""
    if found is None or found.entry < min(len(left.history), len(right.history)):
        return found
    shorter = left if len(left.history) < len(right.history) else right
    if shorter.whole:
        return found
    stops = "the record stops here, before the end of the run"
    ours = stops if shorter is left else found.left
    theirs = stops if shorter is right else found.right
    return Difference(found.entry, found.tag, ours, theirs, found.before)
