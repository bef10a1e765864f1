"""A sweep, from its plan to its table; what was interrupted goes on where it was."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNFINISHED,
    LockstepError,
    UsageError,
)
from lockstep.engine.strict_json import dumps
from lockstep.workers import folder as folders
from lockstep.workers.job import Job
from lockstep.workers.journal_file import LEVELS
from lockstep.workers.prepare import sha256
from lockstep.workers.sweeps import table
from lockstep.workers.sweeps.capacity import capacity
from lockstep.workers.sweeps.grid import Point
from lockstep.workers.sweeps.place import Place, clear
from lockstep.workers.sweeps.plan import Plan, plan
from lockstep.workers.sweeps.plots import plots
from lockstep.workers.sweeps.pool import Outcome, Pool
from lockstep.workers.sweeps.stops import Stops
from lockstep.workers.sweeps.table import Row

CSV, JSON_LINES, PAGE = "results.csv", "results.jsonl", "results.html"

# Called with (what, run's number or 0, value); what: "sweep" (its folder, runs, those that are
# finished already, jobs and why so many), "start" (the point), "progress" and "note" as of
# `workers.launch`, "row".
Listener = Callable[[str, int, Any], None]


@dataclass(frozen=True)
class Sweep:
    """A sweep that ended.

    Attributes:
        folder: Its folder, with ``results.csv``, ``results.jsonl`` and ``results.html``.
        rows: Of the runs that ended, in order of the grid.
        columns: Names of what a row has, in order.
        runs: How many there are in all.
        interrupted: A person stopped it; the same call goes on with it.
    """

    folder: Path
    rows: list[Row]
    columns: list[str]
    runs: int
    interrupted: bool

    @property
    def failed(self) -> list[Row]:
        """Runs that did not go well."""
        return [row for row in self.rows if row["exit_code"] != EXIT_OK]

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_UNFINISHED if self.failed else EXIT_OK


def sweep(
    fleet: str | Path,
    input: str | Path | None = None,
    *,
    seeds: str = "",
    sets: Sequence[str] = (),
    jobs: int = 0,
    out: str | Path | None = None,
    order: str = "",
    durability: str = "async",
    listen: Listener | None = None,
) -> Sweep:
    """Run a fleet with each of many seeds and values, and make one table of it.

    Args:
        fleet: The fleet file.
        input: JSON Lines, one item each.
        seeds: ``0..99``, ``1,5,9``; empty: the fleet's own.
        sets: ``KEY=V1,V2`` each: a key of the fleet file and its values.
        jobs: Runs at a time; 0: as many as there is room for (sweeps/capacity.py).
        out: The sweep's folder; default ``sweeps/<fleet>-<n>``. One that holds this same sweep goes
            on: finished runs are not made again, others are resumed.
        order: "strict" or "arrival" in place of the fleet's; empty: the fleet's.
        durability: As of `run`.
        listen: Called with what comes.

    Returns:
        The sweep, also one in which runs failed: they are named in its rows. The first
        SIGINT, SIGTERM or SIGHUP lets runs stop cleanly, the second ends them at once.

    Raises:
        UsageError: something is missing or not valid, or the folder holds something else; nothing
            was started.
    """
    if durability not in LEVELS:
        raise UsageError(f"durability is {durability!r}, expected {' or '.join(LEVELS)}")
    if jobs < 0:
        raise UsageError(f"jobs is {jobs}, expected 1 or more, or 0 for what there is room for")
    made = plan(
        Path(fleet),
        None if input is None else Path(input),
        seeds=seeds,
        sets=sets,
        order=order,
        durability=durability,
    )
    place = Place(None if out is None else Path(out), made)
    try:
        return _Work(made, place, listen or _deaf).until_the_end(jobs)
    finally:
        place.close()


class _Work:
    """What is done about a plan in its place."""

    def __init__(self, plan: Plan, place: Place, listen: Listener) -> None:
        self._plan, self._place, self._listen = plan, place, listen
        self._points = {point.number: point for point in plan.points}
        self._rows: dict[int, Row] = dict(place.finished)

    def until_the_end(self, jobs: int) -> Sweep:
        plan, place = self._plan, self._place
        count = len(plan.points)
        room = capacity(plan.fleets, plan.fleet.resolve().parent, count - len(self._rows), jobs)
        told = {"folder": str(place.path), "runs": count, "finished": len(self._rows)}
        self._listen("sweep", 0, {**told, "jobs": room.jobs, "why": room.text})
        with Stops() as self._stops:
            Pool(room.jobs, self._stops, self._heard, self._ended).run(self._jobs())
            interrupted = self._stops.count > 0
        rows = [self._rows[number] for number in sorted(self._rows)]
        for text in table.changed_models(rows, plan.axes):
            self._listen("note", 0, text)
        names = table.columns(plan.axes)
        place.write(CSV, table.as_csv(names, rows))
        place.write(JSON_LINES, table.as_json_lines(names, rows))
        place.write(PAGE, plots(place.path.name, rows, plan.axes, count))
        return Sweep(place.path, rows, names, count, interrupted and len(rows) < count)

    def _jobs(self) -> Iterator[tuple[int, Job]]:
        """What is left to do, in order of the grid."""
        for point in self._plan.points:
            if point.number in self._place.finished:
                continue
            try:
                job = self._job(point)
            except LockstepError as error:
                self._ended(point.number, error)
                continue
            if job is not None:
                self._listen("start", point.number, point)
                yield point.number, job

    def _job(self, point: Point) -> Job | None:
        """How a run is begun or gone on with; None: it has come to its end already."""
        run = self._place.run(point)
        if not clear(run):
            return self._plan.job(point, run)
        from lockstep.workers.recorded import recorded

        past = recorded(run)
        booked = past.booked()
        if booked is not None:
            self._ended(point.number, booked)
            return None
        return past.job(
            Path.cwd(), mode="resume", past=str(run), run_dir=str(run), durability=past.durability
        )

    def _heard(self, number: int, what: str, value: Any) -> None:
        if what != "run":
            self._listen(what, number, value)

    def _ended(self, number: int, outcome: Outcome) -> None:
        point = self._points[number]
        run = self._place.run(point)
        folder = str(run.relative_to(self._place.path))
        if isinstance(outcome, LockstepError):
            row, ended = table.row_without(point, folder, outcome), False
        else:
            row = table.row_of(point, folder, _models(run), outcome)
            ended = row["state"] == "finished" or _has_ended(run)
        if row["exit_code"] == EXIT_INTERRUPTED and self._stops.count:
            return  # It goes on when the sweep does.
        self._rows[number] = row
        if ended:
            self._place.finish(row)
        self._listen("row", number, row)


def _has_ended(run: Path) -> bool:
    """Whether a run that stopped came to an end of its own: it would come to it again."""
    from lockstep.workers.recorded import has_ended

    try:
        return has_ended(run)
    except LockstepError:
        return False


def _models(run: Path) -> str:
    """Hash of the files of a run's models, of which the identity has the hashes."""
    manifest = json.loads((run / folders.MANIFEST).read_bytes())
    return sha256(dumps([model["path"] for model in manifest["identity"]["fleet"]["models"]]))[:16]


def _deaf(_what: str, _number: int, _value: Any) -> None:
    """Nobody listens."""
