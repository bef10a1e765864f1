"""lockstep-pull.json: where a model folder came from, and the sha256 of each file of it.

While files are on their way the same object, without hashes and time, is the plan.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError

RECEIPT = "lockstep-pull.json"
FORMAT = 1
BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Taken:
    """One file: its path, its bytes, its sha256 (of a plan: empty) and the hub's own digest."""

    file: str
    bytes: int
    sha256: str
    hub: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was pulled.

    Attributes:
        repository: OWNER/NAME.
        revision: As it was asked for.
        commit: What that was then, 40 hex digits.
        endpoint: The hub that vouches for the digests.
        chosen: Name of the model in the repository.
        model: Folder that a fleet file names, relative to the receipt.
        pulled: When it was complete, UTC; of a plan: empty.
        files: In the order in which they came.
    """

    repository: str
    revision: str
    commit: str
    endpoint: str
    chosen: str
    model: str
    pulled: str
    files: tuple[Taken, ...]

    def __str__(self) -> str:
        what = "" if self.chosen == "." else f"{self.chosen} of "
        return f"{what}{self.repository} at {self.commit[:12]}"

    def same(self, other: "Receipt") -> bool:
        """Whether both are one model, whatever it was called when it was asked for."""
        mine = (self.repository, self.commit, self.chosen)
        return mine == (other.repository, other.commit, other.chosen)

    def write(self, path: Path, by: Path) -> None:
        """Write it whole or not at all, by way of a file on the same disk."""
        with open(by, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file, indent=2, ensure_ascii=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        by.replace(path)


def read_receipt(path: Path) -> Receipt | None:
    """What a file says; None when there is none.

    Raises:
        UsageError: it is something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        return _parsed(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(
            f"{path}: no record of a pull ({type(error).__name__}: {error}); nothing was changed"
        ) from None


def _parsed(value: Any) -> Receipt:
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']!r:.40}, expected {FORMAT}")
    files = tuple(Taken(**file) for file in value["files"])
    texts = {
        key: value[key]
        for key in Receipt.__dataclass_fields__
        if key != "files" and isinstance(value[key], str)
    }
    return Receipt(files=files, **texts)
