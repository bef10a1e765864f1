"""Making: the files of a profile, from the tracks that a run left: again whenever it is wanted.

``profile.json``    figures (docs/profiling.md)
``trace.json.gz``   for Perfetto
``report.html``     pictures of the figures
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lockstep.engine.errors import LockstepError, UsageError
from lockstep.workers import advice
from lockstep.workers.folder import FLEET, PROFILE, SUMMARY
from lockstep.workers.prepare import read_fleet
from lockstep.workers.profile import figures, latency, series
from lockstep.workers.profile.limits import limits
from lockstep.workers.profile.node_events import by_operator, node_events
from lockstep.workers.profile.perfetto import TRACE, write_trace
from lockstep.workers.profile.spans import State
from lockstep.workers.profile.tracks import STOPS, Tracks, read

FIGURES, REPORT = "profile.json", "report.html"
FORMAT = 1
PICTURES = "lockstep.workers.pictures"
IDLE_SHARE = 0.5  # Of its time: a model that was asked nothing for longer is not the limit.
ROWS_SHARE = 0.5  # Of the rows there are: a step with fewer on average has room.
PASS = ("take in", "decide", "do")
BUSY_SHARE = 0.8  # Of the run: a supervisor that is busier holds the others up.

Object = dict[str, Any]
Told = Callable[[str, float], None]


def make(
    run: Path,
    machine: Mapping[str, Any],
    told: Told = lambda what, share: None,
    report: bool = True,
) -> Object:
    """Write the files of a profile into a run folder.

    Args:
        run: The folder.
        machine: What it ran on, as `bench.machine` says it.
        told: Hears what is made and how far it is, from 0 to 1.
        report: Whether to draw, too.

    Returns:
        The object of ``profile.json``, with ``files`` and ``trace`` (`perfetto.write_trace`).

    Raises:
        UsageError: it was not profiled, what was recorded is damaged, or the files cannot be
            written.
    """
    try:
        return _make(run, machine, told, report)
    except OSError as error:
        raise UsageError(
            f"{run}: cannot write the profile: {error.strerror or error}; the tracks are in "
            f"{run / PROFILE}, and `lockstep profile {run}` makes it again"
        ) from None
    except (LookupError, OverflowError, ValueError, MemoryError) as error:
        raise UsageError(
            f"{run}: no profile can be made of what is in {run / PROFILE} and {SUMMARY}: "
            f"{type(error).__name__}: {error}; are they damaged? The run itself was not touched"
        ) from error


def _make(run: Path, machine: Mapping[str, Any], told: Told, report: bool) -> Object:
    tracks = read(run)
    told("figures", 0.0)
    profile = profile_of(run, tracks, machine)
    files = {"profile": run / FIGURES, "trace": run / TRACE}
    about = {"run": str(run), "fleet": profile["fleet"], "wall_s": profile["wall_s"]}
    trace = write_trace(files["trace"], tracks, about, told, node_events(run))
    _write(files["profile"], json.dumps(profile) + "\n")
    if report and find_spec(PICTURES) is not None:
        told("report", 0.0)
        files["report"] = run / REPORT
        _write(files["report"], import_module(PICTURES).profile_page(profile))
    return {**profile, "files": {k: str(path) for k, path in files.items()}, "trace": trace}


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def profile_of(run: Path, tracks: Tracks, machine: Mapping[str, Any]) -> Object:
    """The object of ``profile.json``."""
    booked = _booked(run)
    models, fleet = _fleet(run)
    requests = latency.Requests.of(tracks)
    agents = figures.agents(tracks, requests, booked.get("agents", ()))
    found: Object = {
        "format": FORMAT,
        "fleet": fleet,
        "run": {key: value for key, value in booked.items() if key != "agents"},
        "machine": dict(machine),
        "wall_s": (tracks.end_ns - tracks.zero_ns) / 1e9,
        "processes": figures.processes(tracks),
        "phases": figures.phases(tracks),
        "agents": agents,
        "series": series.series(tracks),
        "distributions": latency.distributions(tracks, requests),
        "batch": figures.batches(tracks, models),
        "timeline": series.timeline(tracks),
        "stalls": figures.stalls(tracks),
    }
    nodes = by_operator(run, [name for name, _ in models])
    if nodes:
        found["nodes"] = nodes
    found["limits"] = limits(tracks, found["processes"], [name for name, _ in models])
    found["advice"] = _advice(found, tracks, run / PROFILE)
    return found


def _booked(run: Path) -> Object:
    """The run's summary; nothing, of one that was killed."""
    try:
        value: Object = json.loads((run / SUMMARY).read_bytes())
    except (OSError, ValueError):
        return {}
    return value


def _fleet(run: Path) -> tuple[list[tuple[str, int]], str]:
    """Names and rows of its models, and its own name."""
    try:
        fleet, _ = read_fleet(run / FLEET, None)
    except LockstepError:
        return [], run.name
    return [(model.name, model.rows_max) for model in fleet.models], fleet.name


def _advice(profile: Mapping[str, Any], tracks: Tracks, folder: Path) -> list[str]:
    """What would help, or has to be known; the most important first."""
    full = STOPS[State.NO_ROOM]
    found = [
        f"{figures.shown(track)} was recorded until it met {track.stopped}"
        f"{f' of {folder}' * (track.stopped == full)}; what came later is not in these figures"
        for track in tracks.all
        if track.stopped
    ]
    if tracks.unread:
        found.append(f"{len(tracks.unread)} files are no tracks: {', '.join(tracks.unread[:3])}")
    wall_s, run = profile["wall_s"] or 1.0, profile["run"]
    turns = sum(agent["turns"] for agent in profile["agents"])
    if run.get("turns", 0) > turns + len(profile["agents"]):  # The last ones may not be there.
        found.append(f"{turns} of {run['turns']} turns were recorded: these figures are of a part")
    rows = [row for row in run.get("stalls", ()) if row.get("agent")]
    # Of the part that was recorded: the summary of a run that went on is of all of it.
    if rows and sum(row["s"] for row in profile["stalls"]) > advice.STALL_SHARE * wall_s:
        found.append(advice.advice(rows[0]))
    phases = {phase["name"]: phase["s"] for phase in profile["phases"]}
    idle = phases.get("waiting: nothing asked", 0.0) / (sum(phases.values()) or 1.0)
    asked = profile["distributions"]["request_ms"]["count"]
    if asked and idle > IDLE_SHARE:
        found.append(f"the model was asked nothing for {idle:.0%} of its time: agents, or the "
                     "order in which they wait for one another, are the limit")  # fmt: skip
    busy_s = sum(part["s"] for part in profile["processes"][0]["busy"] if part["name"] in PASS)
    if busy_s > BUSY_SHARE * wall_s:
        found.append(f"the supervisor was busy for {min(busy_s / wall_s, 1.0):.0%} of the run: "
                     "fewer turns and messages, or larger ones, would cost less")  # fmt: skip
    return [*found, *_room(profile)]


def _room(profile: Mapping[str, Any]) -> list[str]:
    """Models whose steps had room for more rows while nothing waited for one."""
    if any(profile["series"]["tickets_waiting"]):
        return []
    return [
        f"steps of {name} had {batch['rows_mean']:.1f} rows of {batch['rows_max']} on average: "
        "more agents, or a larger items_in_flight_max, would share a step's cost"
        for name, batch in profile["batch"].items()
        if batch["rows_mean"] and batch["rows_mean"] < ROWS_SHARE * batch["rows_max"]
    ]
