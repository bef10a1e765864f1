"""The status of a service: what its clients and whoever watches are told of it."""

from typing import Any

from lockstep.workers.service.desk import Desk
from lockstep.workers.service.offers import offers
from lockstep.workers.service.options import Options
from lockstep.workers.service.runs import Runs


def of_desk(desk: Desk, options: Options) -> dict[str, Any]:
    """What was asked for, what waits, what may wait."""
    return {
        "fleet": str(options.fleet),
        "state_dir": str(options.state),
        "waiting": desk.occupancy.total,
        "waiting_max": options.limits.waiting_max,
        "client_waiting_max": options.limits.client_max,
        "clients": desk.occupancy.clients(),
        "accepted": desk.accepted_count,
        "answered": desk.answered_count,
    }


def of_runs(runs: Runs) -> dict[str, Any]:
    """The runs that go on, what they did, what they offer."""
    current, load = runs.current, runs.load()
    folder = current.folder if current is not None else None
    offered = {}
    if current is not None and folder is not None:
        offered = offers(folder, current.done.progress.get("moved", {}))
    return {
        "run": str(folder) if current is not None else None,
        "runs": [lane.row() for lane in runs.lanes],
        "runs_begun": runs.begun,
        "done": runs.done(),
        "load": load.now() if load is not None else {},
        "unreadable": runs.unreadable,
        "offers": offered,
    }
