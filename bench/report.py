"""Report: what a group measured, as the object of ``--json`` and as a table for people.

Absolutes are in ``results`` only, ratios in ``ratios`` only: a ratio comes from interleaved pairs
of one run, and above 1 means that Lockstep is better.
"""

from dataclasses import dataclass, field
from typing import Any

from lockstep.bench.pairs import Ratio

DIGITS = 4  # Significant digits of a figure: more would be noise.


@dataclass(slots=True)
class Report:
    """Figures of one group.

    Attributes:
        group: Its name.
        machine: What it ran on (bench/machine.py).
        results: Name to (value, unit).
        ratios: Name to ratio.
        skipped: (name, why, how to get it).
        notes: For people: versions of peers, sizes.
    """

    group: str
    machine: dict[str, Any]
    results: dict[str, tuple[float, str]] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of ``--json``."""
        return {
            "group": self.group,
            "machine": self.machine,
            "results": {
                name: {"value": rounded(value), "unit": unit}
                for name, (value, unit) in self.results.items()
            },
            "ratios": {
                name: {key: rounded(value) for key, value in ratio._asdict().items()}
                for name, ratio in self.ratios.items()
            },
            "skipped": [
                {"name": name, "reason": reason, "get": get} for name, reason, get in self.skipped
            ],
            "notes": self.notes,
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """(name, figure, remark) for a table: ratios, then results, then what was skipped."""
        rows = [
            (name, f"{rounded(r.median):g} x", f"95 %: {rounded(r.low):g} to {rounded(r.high):g}")
            for name, r in self.ratios.items()
        ]
        rows += [(n, f"{rounded(v):,.10g} {u}", "") for n, (v, u) in self.results.items()]
        rows += [(name, "skipped", f"{why}: {get}") for name, why, get in self.skipped]
        rows += [(name, "", note) for name, note in self.notes.items()]
        return rows


def rounded(value: float) -> float:
    """``value`` with `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")
