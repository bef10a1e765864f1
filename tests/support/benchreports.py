"""Reports of benchmark groups, made up; and a group that measures nothing."""

from typing import Any

from lockstep.bench import machine
from lockstep.bench.pairs import Ratio
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError


class FakeGroup:
    """A group whose runs give these medians, one after another; None: it cannot be measured."""

    def __init__(self, name: str, medians: list[float | None]) -> None:
        self.name = name
        self.medians = medians
        self.calls = 0
        self.interrupted = False

    def run(self, quick: bool, tell: Any) -> Report:
        if self.interrupted:
            raise KeyboardInterrupt
        middle = self.medians[min(self.calls, len(self.medians) - 1)]
        self.calls += 1
        tell(f"quick {quick}")
        if middle is None:
            raise UsageError("the model cannot be built: pip install something")
        report = Report(self.name, machine.describe())
        if middle > 0:
            report.ratios["peer"] = Ratio(middle, middle * 0.98, middle * 1.02)
        report.results["rate"] = (abs(middle) * 1000, "1/s")
        report.skipped.append(("other", "is not there", "lockstep bench setup"))
        report.notes["peer"] = "version 1"
        return report


def group(ratios: dict[str, tuple[float, float, float]], **results: float) -> dict[str, Any]:
    """The object of one group in a report."""
    return {
        "ratios": {n: {"low": low, "median": m, "high": h} for n, (low, m, h) in ratios.items()},
        "results": {n: {"value": v, "unit": "us", "low": v, "high": v} for n, v in results.items()},
        "skipped": [],
        "notes": {},
        "runs": 3,
        "wall_s": [1.0, 1.0, 1.0],
        "spread_percent": 2.0,
        "stable": True,
    }


def report(groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The object of a session."""
    described = {
        "cpu": "A",
        "cores": 2,
        "memory_gib": 8.0,
        "load_1m": 0.1,
        "system": "Linux 6",
        "python": "3.11.2",
        "form": "pure Python",
        "packages": {"numpy": "2.2"},
    }
    groups = {name: {"group": name, **one} for name, one in groups.items()}
    return {"format": 1, "quick": False, "lockstep": "0.1", "commit": "abc", "machine": described,
            "stable_percent": 5.0, "window": 3, "failed": {}, "groups": groups, **more}  # fmt: skip
