"""The plan of a sweep: everything that decides its runs, read and checked before one is started."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.version import LOGIC_FLAGS, VERSION
from lockstep.workers import prepare
from lockstep.workers.job import Job
from lockstep.workers.sweeps.grid import Axis, Point, axes_of, combinations, points, seeds_of

FORMAT = 1
# What two plans are compared by, and what each is called.
SAME = {
    "format": "format of the sweep",
    "logic_flags": "rules of this version",
    "fleet_sha256": "fleet file",
    "input_sha256": "input",
    "modules": "modules",
    "seeds": "--seeds",
    "sets": "--set",
    "order": "--order",
}


@dataclass(frozen=True)
class Plan:
    """What a sweep is.

    Attributes:
        fleet: The fleet file, absolute.
        input: The input, absolute; None: there is none.
        order: In place of the fleet's; empty: the fleet's.
        durability: Of every run.
        axes: What is varied, besides the seed.
        points: The runs.
        fleets: As they will run, one for each combination of values.
        record: What decides the runs, JSON-able.
    """

    fleet: Path
    input: Path | None
    order: str
    durability: str
    axes: list[Axis]
    points: list[Point]
    fleets: list[Fleet]
    record: dict[str, Any]

    def job(self, point: Point, run: Path) -> Job:
        """A run from its beginning, in a folder of its own."""
        return Job(
            fleet=str(self.fleet),
            base=str(Path.cwd()),
            input=str(self.input or ""),
            seed=point.seed,
            order=self.order,
            settings=point.texts,
            run_dir=str(run),
            durability=self.durability,
        )


def plan(
    fleet: Path,
    input_: Path | None,
    *,
    seeds: str,
    sets: Sequence[str],
    order: str,
    durability: str,
) -> Plan:
    """Read and check everything that a sweep is made of.

    Args:
        fleet: The fleet file.
        input_: JSON Lines; None: there is none.
        seeds: As `seeds_of` takes them; empty: the fleet's own.
        sets: As `axes_of` takes them.
        order: In place of the fleet's; empty: the fleet's.
        durability: Of every run.

    Raises:
        UsageError: something is missing, malformed, or not a value that its key takes.
    """
    fleet = fleet.absolute()
    axes = axes_of(sets)
    if not seeds and not axes:
        raise UsageError("nothing to sweep: give --seeds FIRST..LAST or --set KEY=V1,V2")
    prepared = prepare.prepare(fleet, input_, None, order=order)
    given = seeds_of(seeds) if seeds else [prepared.fleet.seed]
    given_input = prepared.input_bytes
    combined = combinations(axes)
    grid = points(combined, given)
    fleets = [
        prepare.read_fleet(fleet, None, order, settings=tuple(map(str, settings)))[0]
        for settings in combined
    ]
    _check_models(fleet.resolve().parent, fleets)
    record = {
        "format": FORMAT,
        "lockstep": VERSION,
        "logic_flags": LOGIC_FLAGS,
        "fleet": str(fleet),
        "fleet_sha256": prepare.sha256(prepared.fleet_bytes),
        "input_sha256": None if given_input is None else prepare.sha256(given_input),
        "modules": _modules(fleet.resolve().parent, fleets),
        "seeds": given,
        "sets": [[str(setting) for setting in axis.values] for axis in axes],
        "order": order,
    }
    absolute = input_.absolute() if input_ is not None else None
    return Plan(fleet, absolute, order, durability, axes, grid, fleets, record)


def differences(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    """What two plans do not have in common, for people; empty: they are of one sweep."""
    return [
        f"{what} (was {_short(then.get(key))}, is {_short(now[key])})"
        for key, what in SAME.items()
        if now[key] != then.get(key)
    ]


def model_folders(base: Path, fleet: Fleet) -> list[Path]:
    """Folders of a fleet's models."""
    return [base / model.path for model in fleet.models]


def _check_models(base: Path, fleets: Iterable[Fleet]) -> None:
    for path in dict.fromkeys(path for fleet in fleets for path in model_folders(base, fleet)):
        if not path.is_dir():
            raise UsageError(f"{path}: no such model folder")


def _modules(base: Path, fleets: Iterable[Fleet]) -> dict[str, str]:
    """Hashes of the modules of all fleets, by path."""
    hashes: dict[str, str] = {}
    for fleet in fleets:
        for group in fleet.groups:
            if group.module not in hashes:
                what = f"module of [agents.{group.name}]"
                data = prepare.read_file(base / group.module, what, fleet.module_bytes_max)
                hashes[group.module] = prepare.sha256(data)
    return hashes


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"
