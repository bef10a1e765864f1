"""Session: groups in one go, each measured again until its runs agree. What was measured stays.

    DIR/session.json     what was asked, and of which machine and version
    DIR/runs/GROUP-N.json   a run of a group, written when it is over
    DIR/report.json, report.txt, report.html

A session that was interrupted goes on where it stood: whole runs are kept, the one that was
broken off is made again. Runs of two machines or of two versions are never mixed.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count, takewhile
from pathlib import Path
from traceback import extract_tb
from typing import Any

from lockstep.bench import machine
from lockstep.bench.combined import WINDOW, Json, combined, is_group, spread_percent
from lockstep.bench.groups import GROUPS, Tell
from lockstep.engine.errors import UsageError
from lockstep.engine.version import VERSION
from lockstep.workers.inference.proofs import devices
from lockstep.workers.pictures.scale import is_number

FORMAT = 1
SESSION, RUNS = "session.json", "runs"
REPORT, TEXT, PAGE = "report.json", "report.txt", "report.html"
RUNS_MAX, RUNS_MAX_QUICK = 6, 1
STABLE_PERCENT = 5.0
# What a run takes on two cores, about: seconds of one with --quick, and of a whole one.
EXPECTED_S = {
    "shm": (40, 180),
    "agents": (45, 240),
    "tax": (420, 1_200),
    "journal": (180, 900),
    "decode": (45, 420),
    "serve": (420, 1_800),
    "service": (120, 420),
    "guests": (30, 60),
    "gpu": (120, 600),
    "profile": (60, 200),
}
LOAD = "load_1m"  # The one line of a machine that may differ between runs of a session.


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants.

    Attributes:
        quick: Fewer repetitions within a run.
        runs_max: Of a group.
        stable_percent: A group is done when its last `WINDOW` runs lie so close to their middle.
    """

    quick: bool = False
    runs_max: int = RUNS_MAX
    stable_percent: float = STABLE_PERCENT


class Session:
    """One folder of runs.

    Attributes:
        folder: Of the session.
        failed: Group to why it could not be measured this time.
    """

    def __init__(self, folder: Path, asked: Asked, tell: Tell) -> None:
        """Begin, or go on.

        Raises:
            UsageError: the folder holds something else, or runs of another machine, another
                version or the other kind of run. Nothing in it was touched.
        """
        self.folder = folder
        self.asked = asked
        self.failed: dict[str, str] = {}
        self._tell = tell
        self._origin = {
            "format": FORMAT,
            "quick": asked.quick,
            "lockstep": VERSION,
            "commit": machine.commit(),
            "machine": machine.describe(),
        }
        path = folder / SESSION
        if path.exists():
            self._origin = self._same(_read(path))
            return
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder}: is not empty, and holds no {SESSION}; nothing was touched")
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        _write(path, _json(self._origin))

    def measure(self, groups: Sequence[str]) -> None:
        """Measure groups until each is done. One that cannot be measured is noted and left out.

        Raises:
            KeyboardInterrupt: somebody has had enough; whole runs are on the disk.
        """
        for place, group in enumerate(groups):
            while not self._done(group):
                self._say_next(group, groups[place + 1 :])
                if not self._run(group):
                    break
            self._say_done(group)

    def runs(self, group: str) -> list[Json]:
        """What there is of a group.

        Raises:
            UsageError: a file is damaged; nothing was touched.
        """
        paths = (self._path(group, number) for number in count(1))
        return [_read_run(path) for path in takewhile(Path.exists, paths)]

    def report(self) -> Json:
        """The object of report.json: all groups that have a run."""
        found = {group: self.runs(group) for group in GROUPS}
        groups = {
            group: combined(runs) | {"stable": self._stable(runs)}
            for group, runs in found.items() if runs
        }  # fmt: skip
        return {
            **self._origin,
            "stable_percent": self.asked.stable_percent,
            "window": WINDOW,
            "groups": groups,
            "failed": self.failed,
        }

    def write(self, report: Json, text: str, html: str) -> None:
        """The report in its three forms."""
        _write(self.folder / REPORT, _json(report))
        _write(self.folder / TEXT, text)
        _write(self.folder / PAGE, html)

    def _run(self, group: str) -> bool:
        """One more run of a group; whether it could be made."""
        begun = time.monotonic()
        try:
            report = import_module(f"lockstep.bench.groups.{group}").run(
                self.asked.quick, lambda text: self._tell(f"{group}: {text}")
            )
        except Exception as error:  # Whatever a machine has that nobody thought of: others go on.
            why = str(error) if isinstance(error, UsageError) else _unforeseen(error)
            self.failed[group] = why
            self._tell(f"{group}: not measured: {why}")
            return False
        wall_s = round(time.monotonic() - begun, 1)
        _write(
            self._path(group, len(self.runs(group)) + 1),
            _json(report.to_json() | {"wall_s": wall_s}),
        )
        return True

    def _done(self, group: str) -> bool:
        runs = self.runs(group)
        return len(runs) >= self._runs_max(runs) or bool(self._stable(runs))

    def _stable(self, runs: Sequence[Json]) -> bool | None:
        """Whether the last runs agree; None: too few were made, or there are no ratios."""
        spread = spread_percent(runs)
        return None if spread is None else spread <= self.asked.stable_percent

    def _say_next(self, group: str, later: Sequence[str]) -> None:
        runs = self.runs(group)
        left_s = sum(self._left_s(each) for each in (group, *later))
        self._tell(
            f"{group}: run {len(runs) + 1} of at most {self._runs_max(runs)}, about "
            f"{_minutes(self._run_s(group, runs))}; all that is left: at most {_minutes(left_s)}"
        )

    def _say_done(self, group: str) -> None:
        runs = self.runs(group)
        spread = spread_percent(runs)
        if spread is not None:
            self._tell(f"{group}: the last {WINDOW} of {len(runs)} runs lie within {spread:g} %")

    def _runs_max(self, runs: Sequence[Json]) -> int:
        """Figures without ratios are no better for being made again."""
        return 1 if runs and not runs[-1]["ratios"] else self.asked.runs_max

    def _run_s(self, group: str, runs: Sequence[Json]) -> float:
        quick, whole = EXPECTED_S[group]
        expected = quick if self.asked.quick else whole
        return float(max((run["wall_s"] for run in runs), default=expected))

    def _left_s(self, group: str) -> float:
        runs = self.runs(group)
        return self._run_s(group, runs) * max(self._runs_max(runs) - len(runs), 0)

    def _path(self, group: str, number: int) -> Path:
        return self.folder / RUNS / f"{group}-{number}.json"

    def _same(self, origin: Json) -> Json:
        """What is in the folder, if runs of now may stand beside it."""
        for key, now in self._origin.items():
            was = origin.get(key)
            if _steady(was) != _steady(now):
                raise UsageError(
                    f"{self.folder / SESSION}: this session was begun with {key} "
                    f"{_difference(was, now)}: runs of both are not mixed. Nothing was touched; "
                    "--out another folder"
                )
        return origin


def here(groups: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Groups that this machine has the parts for, and why not the others."""
    missing = (
        {} if devices() else {"gpu": "no GPU is here; lockstep bench gpu on a machine with one"}
    )
    found = list(groups)
    return (
        [group for group in found if group not in missing],
        {group: why for group, why in missing.items() if group in found},
    )


def next_folder(base: Path) -> Path:
    """``bench-N``, the first that is not there."""
    number = 1
    while (base / f"bench-{number}").exists():
        number += 1
    return base / f"bench-{number}"


def _steady(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != LOAD} if isinstance(value, Mapping) else value


def _difference(was: Any, now: Any) -> str:
    """The parts that differ, in words."""
    if not (isinstance(was, Mapping) and isinstance(now, Mapping)):
        return f"{was}, and is asked for with {now}"
    keys = [k for k in {**was, **now} if k != LOAD and was.get(k) != now.get(k)]
    return "; ".join(f"{key} {was.get(key)}, and is asked for with {now.get(key)}" for key in keys)


def _unforeseen(error: Exception) -> str:
    """What it is, and where it was met."""
    place = extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"{type(error).__name__}: {error} ({where}; please report it)"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _write(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1) + "\n"


def _read(path: Path) -> Json:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; nothing was touched") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: holds no object; nothing was touched")
    return value


def _read_run(path: Path) -> Json:
    value = _read(path)
    if not (is_group(value) and is_number(value.get("wall_s"))):
        raise UsageError(f"{path}: is no run of a group; nothing was touched")
    return value
