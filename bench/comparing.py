"""Comparing: what changed from one report to another beyond noise.

A ratio has changed when its two intervals do not touch. What changes with the machine is not
compared across machines: absolutes are set side by side only where both reports are of one.
An interval of one run knows the noise within it alone (bench/combined.py), and the words say so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lockstep.bench.combined import Json, is_group
from lockstep.bench.report import rounded
from lockstep.bench.session import REPORT
from lockstep.engine.errors import UsageError

BETTER, WORSE, NOISE, NEW, GONE = "better", "worse", "within noise", "new", "gone"
ORDER = (WORSE, BETTER, NOISE, NEW, GONE)
MACHINE = ("cpu", "cores", "memory_gib")  # Another one of these is another machine.
SOFTWARE = ("system", "python", "form", "packages")
REPORT_BYTES_MAX = 64 << 20


class Change(NamedTuple):
    """One ratio of either report.

    Attributes:
        group: Of the ratio.
        name: Of the ratio.
        before: ``median``, ``low``, ``high``; None: it is not there.
        after: Likewise.
        verdict: One of `ORDER`.
        factor: After over before; None without both.
    """

    group: str
    name: str
    before: Json | None
    after: Json | None
    verdict: str
    factor: float | None


class Absolute(NamedTuple):
    """A result in both reports of one machine. No verdict: no interval could be trusted."""

    group: str
    name: str
    before: float
    after: float
    unit: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two reports side by side.

    Attributes:
        names: Of both.
        changes: Of ratios, the worst first.
        absolutes: Of results, empty across machines.
        machines: How they differ; empty: they do not.
        others: What else differs: versions, sizes of runs, peers.
    """

    names: tuple[str, str]
    changes: list[Change]
    absolutes: list[Absolute]
    machines: list[str]
    others: list[str]

    def counts(self) -> dict[str, int]:
        """Verdict to how many ratios have it."""
        return {v: sum(change.verdict == v for change in self.changes) for v in ORDER}

    def to_json(self) -> Json:
        """The object of ``--json``."""
        return {
            "before": self.names[0],
            "after": self.names[1],
            **{v.replace(" ", "_"): count for v, count in self.counts().items()},
            "changes": [change._asdict() for change in self.changes],
            "absolutes": [absolute._asdict() for absolute in self.absolutes],
            "same_machine": not self.machines,
            "differences": [*self.machines, *self.others],
        }


def load(path: Path) -> Json:
    """A report: a folder of `bench all`, its report.json, or what `bench GROUP --json` printed.

    Raises:
        UsageError: it is none of these.
    """
    file = path / REPORT if path.is_dir() else path
    value: Any
    try:
        with file.open("rb") as opened:
            value = json.loads(opened.read(REPORT_BYTES_MAX))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{file}: is no report: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("group"), str):
        value = {**value, "groups": {value["group"]: {**value, "runs": 1}}}
    if not _is_report(value):
        raise UsageError(f"{file}: is no report of `lockstep bench all` or of `bench GROUP --json`")
    report: Json = value
    return report


def compare(before: Json, after: Json, names: tuple[str, str]) -> Comparison:
    """Two reports (`load`), by name.

    Args:
        before: The one that is compared with.
        after: The one that is judged.
        names: Of both, for people.
    """
    machines = list(_differences(before["machine"], after["machine"], MACHINE))
    changes = sorted(_changes(before, after), key=lambda change: ORDER.index(change.verdict))
    absolutes = [] if machines else list(_absolutes(before, after))
    return Comparison(names, changes, absolutes, machines, list(_others(before, after)))


def verdict(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What became of a ratio; more is better."""
    if after["low"] > before["high"]:
        return BETTER
    return WORSE if after["high"] < before["low"] else NOISE


def _changes(before: Json, after: Json) -> Iterator[Change]:
    for group, name in _names(before, after, "ratios"):
        was, now = _find(before, group, "ratios", name), _find(after, group, "ratios", name)
        if was is None or now is None:
            yield Change(group, name, was, now, NEW if was is None else GONE, None)
            continue
        factor = rounded(now["median"] / was["median"]) if was["median"] else None
        yield Change(group, name, was, now, verdict(was, now), factor)


def _absolutes(before: Json, after: Json) -> Iterator[Absolute]:
    for group, name in _names(before, after, "results"):
        was, now = _find(before, group, "results", name), _find(after, group, "results", name)
        if was is not None and now is not None:
            yield Absolute(group, name, was["value"], now["value"], str(now.get("unit", "")))


def _names(before: Json, after: Json, kind: str) -> list[tuple[str, str]]:
    """(group, name) in either report, in its order."""
    found = dict.fromkeys(
        (group, name)
        for report in (before, after)
        for group, held in report["groups"].items()
        for name in held[kind]
    )
    return list(found)


def _find(report: Json, group: str, kind: str, name: str) -> Json | None:
    found: Json | None = report["groups"].get(group, {}).get(kind, {}).get(name)
    return found


def _differences(was: Json, now: Json, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        if was.get(key) != now.get(key):
            yield f"{key}: {_said(was.get(key))} -> {_said(now.get(key))}"


def _others(before: Json, after: Json) -> Iterator[str]:
    yield from _differences(before["machine"], after["machine"], SOFTWARE)
    # What one group printed by itself does not say these.
    known = [key for key in ("lockstep", "commit", "quick") if key in before and key in after]
    yield from _differences(before, after, known)
    for group, held in after["groups"].items():
        was, now = before["groups"].get(group, held)["notes"], held["notes"]
        yield from (f"{group}, {line}" for line in _differences(was, now, [*now]))
    once = [
        f"{group} of {name}"
        for name, report in (("the first", before), ("the second", after))
        for group, held in report["groups"].items()
        if held.get("runs", 1) == 1 and held["ratios"]
    ]
    if once:
        said = "measured once, so that noise between runs is not in its intervals"
        yield f"{said}: {', '.join(once)}"


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {held}" for key, held in value.items())
    return "nothing" if value in (None, "") else str(value)


def _is_report(value: object) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("machine"), dict)):
        return False
    groups = value.get("groups")
    return isinstance(groups, dict) and all(map(is_group, groups.values()))
