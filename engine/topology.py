"""Topology: the edges of a fleet, checked before anything starts. Errors name the path."""

from collections.abc import Iterator

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.settings import nearest


def check_topology(fleet: Fleet, where: str) -> None:
    """Refuse a fleet whose names or edges cannot work.

    Raises:
        UsageError: an unknown name (the nearest known one is told), a cycle (its path).
    """
    names = [group.name for group in fleet.groups]
    after = {group.name: group.after for group in fleet.groups}
    for group in fleet.groups:
        place = f"{where}: [agents.{group.name}]"
        if group.after and fleet.schedule.policy != "dag":
            raise UsageError(f'{place}: after needs [schedule] policy = "dag"')
        for name in group.after:
            if name not in names:
                raise UsageError(f"{place}: after names {name!r}, no such agent"
                                 f"{nearest(name, names)}")  # fmt: skip
    if fleet.schedule.policy == "round-robin":
        for group in fleet.groups:
            if group.input:
                raise UsageError(
                    f"{where}: [agents.{group.name}]: input is {group.input!r}, but round-robin "
                    "gives the input to the first agent"
                )
    _refuse_cycle(after, where)


def _refuse_cycle(after: dict[str, tuple[str, ...]], where: str) -> None:
    # Depth-first with marking, or a layered graph would be walked once per path; without
    # recursion, or a long chain would overflow Python's stack.
    clear: dict[str, None] = {}  # Everything before these was walked.
    for first in after:
        path: dict[str, Iterator[str]] = {first: iter(after[first])}
        while path:
            name, rest = next(reversed(path.items()))
            predecessor = next((p for p in rest if p not in clear), None)
            if predecessor is None:
                clear[name] = None
                del path[name]
            elif predecessor in path:
                names = list(path)
                cycle = [*names[names.index(predecessor) :], predecessor]
                raise UsageError(f"{where}: after makes a cycle: {' -> '.join(reversed(cycle))}")
            else:
                path[predecessor] = iter(after[predecessor])
