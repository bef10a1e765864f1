"""Arrows: from the turn of the agent that held the model back to the step that waited for it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Tracks, spans_of


class Arrow(NamedTuple):
    """Both ends: a track by its place, and a moment within a slice of it.

    Attributes:
        source, left: The agent's, in the turn that was waited for.
        target, met: The inference process's, where the step begins.
        step: Its number.
    """

    source: int
    left: int
    target: int
    met: int
    step: int


def arrows(tracks: Tracks, least: int = 0) -> Iterator[Arrow]:
    """One for each time that the model was held back by an agent; both ends are there.

    Args:
        tracks: Of the run.
        least: Slices that are shorter, in ns, have none: they are not shown.
    """
    turns = _turns(tracks)
    targets = _targets(tracks)
    for since, until, step, _, holder, _ in spans_of(tracks.supervisor.of(Kind.HELD)):
        source = _turn_of(turns.get(holder - 1, []), since, until, least)
        target = targets.get(step)
        if source is None or target is None:
            continue
        (place, left), (number, met, taken) = source, target
        if left <= met and taken >= least:
            yield Arrow(place, left, number, met, step)


def _turns(tracks: Tracks) -> dict[int, list[tuple[int, Any]]]:
    """By agent: places of its tracks and their turns."""
    found: dict[int, list[tuple[int, Any]]] = {}
    for place, track in enumerate(tracks.all):
        if track.role == Role.AGENT:
            found.setdefault(track.index, []).append((place, track.of(Kind.TURN)))
    return found


def _targets(tracks: Tracks) -> dict[int, tuple[int, int, int]]:
    """By step: the track that it is on, when it began, how long it took."""
    return {
        span[2]: (place, span[0], span[1] - span[0])
        for place, track in enumerate(tracks.all)
        if track.role == Role.INFERENCE
        for span in spans_of(track.of(Kind.STEP))
    }


def _turn_of(
    turns: list[tuple[int, Any]], since: int, until: int, least: int
) -> tuple[int, int] | None:
    """Track and end of the turn that was waited for; None: it went on after that.

    The supervisor hears of an end after it was: so the turn may have ended before the wait began.
    It is the last that ended before the wait did, unless the next one was under way by then.
    """
    best: tuple[int, int] | None = None
    for place, records in turns:
        at = int(np.searchsorted(records["end"], np.uint64(until), "right")) - 1
        if at < 0 or (at + 1 < len(records) and records["start"][at + 1] < since):
            continue
        start, end = int(records["start"][at]), int(records["end"][at])
        if end - start >= least and (best is None or end > best[1]):
            best = place, end
    return best
