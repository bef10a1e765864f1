"""Combined: what several runs of one group say together.

A run's interval knows the noise between its pairs, not the noise between runs: where processes
lie in memory, which core they began on, what else the machine did that minute. So a ratio of
several runs is the median of theirs, from the lowest end of their intervals to the highest, and
no number of runs makes that narrower than they are.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from lockstep.bench.report import rounded
from lockstep.workers.pictures.scale import is_number

Json = dict[str, Any]

WINDOW = 3  # Runs that have to agree, the last ones.


def combined(runs: Sequence[Json]) -> Json:
    """The object of a group, made of those of its runs (`Report.to_json`, with ``wall_s``).

    Args:
        runs: At least one, in the order in which they were made.
    """
    last = runs[-1]
    return {
        "group": last["group"],
        "runs": len(runs),
        "wall_s": [run["wall_s"] for run in runs],
        "spread_percent": spread_percent(runs),
        "ratios": {name: _ratio(found) for name, found in _each(runs, "ratios").items()},
        "results": {name: _result(found) for name, found in _each(runs, "results").items()},
        "skipped": last["skipped"],
        "notes": last["notes"],
    }


def spread_percent(runs: Sequence[Json]) -> float | None:
    """How far the medians of the last `WINDOW` runs lie from their middle, of the worst ratio.

    None: there are fewer runs, or the group has no ratios.
    """
    if len(runs) < WINDOW or not runs[-1]["ratios"]:
        return None
    return max(_spread(found) for found in _each(runs[-WINDOW:], "ratios").values())


def _each(runs: Sequence[Json], kind: str) -> dict[str, list[Json]]:
    """Name to what each run says of it, those that do."""
    names = dict.fromkeys(name for run in runs for name in run[kind])
    return {name: [run[kind][name] for run in runs if name in run[kind]] for name in names}


def _spread(found: Sequence[Json]) -> float:
    medians = [one["median"] for one in found]
    middle = median(medians)
    return rounded(100 * max(abs(each - middle) for each in medians) / middle)


def _ratio(found: Sequence[Json]) -> Json:
    return {
        "median": rounded(median(one["median"] for one in found)),
        "low": min(one["low"] for one in found),
        "high": max(one["high"] for one in found),
        "runs": [one["median"] for one in found],
    }


def _result(found: Sequence[Json]) -> Json:
    values = [one["value"] for one in found]
    return {
        "value": rounded(median(values)),
        "unit": found[-1]["unit"],
        "low": min(values),
        "high": max(values),
    }


def is_group(value: object) -> bool:
    """Whether it has the shape of a group's object: what came from a file may be anything."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("group"), str)
        and _all(value.get("ratios"), _is_ratio)
        and _all(value.get("results"), _is_result)
        and isinstance(value.get("skipped"), list)
        and isinstance(value.get("notes"), dict)
    )


def _all(value: object, holds: Callable[[Json], bool]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, dict) and holds(one) for one in value.values()
    )


def _is_ratio(one: Json) -> bool:
    """They lie on a scale of factors, which begins above 0."""
    if not all(is_number(one.get(key)) for key in ("low", "median", "high")):
        return False
    return bool(0 < one["low"] <= one["median"] <= one["high"])


def _is_result(one: Json) -> bool:
    return is_number(one.get("value")) and isinstance(one.get("unit"), str)
