"""Comparing what runs are, and what they ran on, before anything is executed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lockstep.engine.errors import (
    Diverged,
    JournalCorrupt,
    ModelRejected,
    ProtocolError,
)
from lockstep.engine.fleet_file import ORDERS
from lockstep.engine.journal import Frame
from lockstep.engine.journal import format as journal_format
from lockstep.engine.journal.format import SegmentHeader
from lockstep.engine.record import Kind, decode
from lockstep.engine.strict_json import loads
from lockstep.workers.journal_reading import kept_records as kept_records
from lockstep.workers.journal_reading import read_journal as read_journal

UNPROVEN = "none"  # As workers/inference/selftest.py has it, which the supervisor cannot import.
Manifest = tuple[dict[str, Any], dict[str, Any]]  # Identity, environment.


class Opening(Protocol):
    """The first frames of a journal, and the header of its first segment."""

    @property
    def frames(self) -> Sequence[Frame]:
        """Two of them, or more."""

    @property
    def header(self) -> SegmentHeader | None:
        """Of the first segment."""


def read_manifest(journal: Opening, run: Path) -> Manifest:
    """(identity, environment) as the journal holds them: checksummed, unlike manifest.json.

    Raises:
        JournalCorrupt: the first two frames are something else, or what they hold is not what
            the rest of us takes from them.
    """
    kinds = [frame.kind for frame in journal.frames[:2]]
    if kinds != [journal_format.IDENTITY, journal_format.ENVIRONMENT]:
        raise JournalCorrupt(f"{run}: the journal does not begin with identity and environment")
    identity = _object(journal.frames[0], Kind.IDENTITY, run)
    environment = _object(journal.frames[1], Kind.ENVIRONMENT, run)
    seed, models = environment.get("seed"), environment.get("models")
    flags = identity.get("logic_flags")
    good = {
        "identity: fleet": isinstance(identity.get("fleet"), dict),
        "identity: order": identity.get("order") in ORDERS,
        # The header's were checked: a run whose rules are not known was refused.
        "identity: logic_flags": flags == (journal.header.flags if journal.header else None),
        "environment: seed": isinstance(seed, int) and not isinstance(seed, bool),
        "environment: fleet_sha256": isinstance(environment.get("fleet_sha256"), str),
        "environment: has_input": isinstance(environment.get("has_input"), bool),
        "environment: models": isinstance(models, dict)
        and all(isinstance(path, str) for path in models.values()),
    }
    for key, fits in good.items():
        if not fits:
            raise JournalCorrupt(f"{run}: the journal's {key} is missing or of a wrong type")
    return identity, environment


def _object(frame: Frame, kind: Kind, run: Path) -> dict[str, Any]:
    """The JSON object of a frame that holds one record of a kind."""
    what = f"{run}: the journal's {kind.name.lower()}"
    try:
        records = list(decode(frame.body))
        value = loads(records[0].payload) if len(records) == 1 else None
    except (ProtocolError, ValueError) as error:
        raise JournalCorrupt(f"{what} cannot be read: {error}") from None
    if not isinstance(value, dict) or records[0].kind != kind:
        raise JournalCorrupt(f"{what} is not one record with a JSON object")
    return value


def check_identity(
    run: Path, recorded: Manifest, identity: dict[str, Any], environment: dict[str, Any]
) -> list[str]:
    """Refuse to execute something else than what is recorded.

    Args:
        run: The folder, for messages.
        recorded: As `read_manifest` gives it.
        identity: Of what is to be executed.
        environment: On what.

    Returns:
        What differs of the machine and the versions since: equal bits are not to be expected then.

    Raises:
        ModelRejected: a model's files changed since; both hashes are shown.
        Diverged: anything else of the identity differs; the first keys are named.
    """
    expected, then = recorded
    found = differences(expected, identity)
    if not found:
        return environment_differences(then, environment)
    models = [line for line in found if line.startswith("fleet.models")]
    if models:
        raise ModelRejected(
            f"{run}: a model on disk is not the one the run used: {'; '.join(models[:3])}"
        )
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise Diverged(
        f"{run}: what is in the folder is not what was run (recorded -> found): "
        f"{'; '.join(found[:3])}{more}"
    )


def environment_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of platform, CPU, versions and providers differs, and what never was reproducible."""
    keys = ("platform", "cpu", "versions", "providers")
    found = [line for key in keys for line in differences(then.get(key), now.get(key), key)]
    return found + _unproven(then.get("classes"), now.get("classes"))


def _unproven(then: Any, now: Any) -> list[str]:
    """Models whose self-test failed, then or now; a record from before there was one has none."""
    classes = [value if isinstance(value, dict) else {} for value in (then, now)]
    return [
        f"class of {name}: {classes[0].get(name)} -> {classes[1].get(name)}"
        for name in sorted({**classes[0], **classes[1]})
        if UNPROVEN in (classes[0].get(name), classes[1].get(name))
    ]


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """``key: left -> right`` for each leaf that differs, in key order."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({**left, **right})
        return [
            line
            for key in keys
            for line in differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [
            line
            for n, (a, b) in enumerate(zip(left, right, strict=True))
            for line in differences(a, b, f"{path}[{n}]")
        ]
    return [] if left == right else [f"{path}: {_short(left)} -> {_short(right)}"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 70 else f"{text[:34]}...{text[-33:]}"
