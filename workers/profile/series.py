"""Series: what went on over the time of a run, in equal bins; and the timeline of its processes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lockstep.workers.profile.figures import names_of, shown
from lockstep.workers.profile.slices import BUSY, Slice, slices
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Records, Track, Tracks, ns_of, spans_of

BINS_MAX = 600
BIN_S_MIN = 0.001
SPANS_MAX = 20_000  # Of the timeline.
TRACKS_MAX = 48
STALLS_MAX = 2_000
PIXELS = 2_000  # What is shorter than one of so many parts of the run is one with its neighbour.

Array = npt.NDArray[Any]


def series(tracks: Tracks) -> dict[str, Any]:
    """One value a bin for each name, from the first tag to the end of the run."""
    wall_ns = max(tracks.end_ns - tracks.zero_ns, 1)
    bins = int(min(BINS_MAX, max(1, wall_ns / 1e9 / BIN_S_MIN)))
    edges = tracks.zero_ns + np.linspace(0, wall_ns, bins + 1)
    bin_s = wall_ns / 1e9 / bins
    tokens = tracks.joined(Role.INFERENCE, Kind.TOKEN)
    chunks = tracks.joined(Role.INFERENCE, Kind.PREFILL)
    steps = tracks.joined(Role.INFERENCE, Kind.STEP)
    counted = tracks.supervisor.of(Kind.COUNTED)
    load = steps["b"]
    found = {
        "tokens_per_s": np.histogram(tokens["end"], edges)[0] / bin_s,
        "prompt_tokens_per_s": np.histogram(chunks["end"], edges, weights=chunks["b"])[0] / bin_s,
        "rows": _last(steps["end"], load >> np.uint64(32), edges),
        "tickets_waiting": _last(steps["end"], load & np.uint64(0xFFFF_FFFF), edges),
        "messages_per_s": np.diff(_between(counted["start"], counted["a"], edges)) / bin_s,
        "events_waiting": _last(counted["start"], counted["b"], edges),
        "stalled_share": _covered(tracks.supervisor.of(Kind.HELD), edges) / (bin_s * 1e9),
    }
    starts = (edges[:-1] - tracks.zero_ns) / 1e9
    return {
        "t_s": np.round(starts, 6).tolist(),
        "bin_s": bin_s,
        **{name: np.round(values.astype(np.float64), 6).tolist() for name, values in found.items()},
    }


def _last(moments: Array, values: Array, edges: Array) -> Array:
    """The newest value at the end of each bin; 0 before the first."""
    if not len(values):
        return np.zeros(len(edges) - 1)
    at = np.searchsorted(moments, edges[1:], "right") - 1
    return np.where(at >= 0, values[np.maximum(at, 0)], 0)


def _between(moments: Array, values: Array, edges: Array) -> Array:
    """A count that rises, at each edge."""
    if not len(values):
        return np.zeros(len(edges))
    return np.interp(edges, moments.astype(np.float64), values.astype(np.float64), left=0.0)


def _covered(records: Records, edges: Array) -> Array:
    """Ns of each bin that lie in one of the records, which do not overlap."""
    if not len(records):
        return np.zeros(len(edges) - 1)
    corners = np.stack([records["start"], records["end"]], axis=1).reshape(-1)
    sums = np.cumsum(ns_of(records))
    heights = np.stack([np.concatenate([[0], sums[:-1]]), sums], axis=1).reshape(-1)
    return np.diff(np.interp(edges, corners.astype(np.float64), heights.astype(np.float64)))


def timeline(tracks: Tracks) -> dict[str, Any]:
    """What each process did, as many of them as can be seen; and what the model waited for.

    ``tracks_left_out``: those that are not there: of agents, who did least.
    """
    chosen = _chosen(tracks)
    most = SPANS_MAX // max(len(chosen), 1)
    wall_ns = max(tracks.end_ns - tracks.zero_ns, 1)
    shown_tracks = [
        {"name": shown(track), "kind": track.role.name.lower(),
         "spans": _spans(track, tracks.zero_ns, wall_ns, most)}
        for track in chosen
    ]  # fmt: skip
    return {
        "tracks": shown_tracks,
        "stalls": _stalls(tracks),
        "tracks_left_out": len(tracks.all) - len(chosen),
    }


def _chosen(tracks: Tracks) -> list[Track]:
    busy = [int(ns_of(track.of(Kind.TURN)).sum()) for track in tracks.all]
    others = [n for n, track in enumerate(tracks.all) if track.role != Role.AGENT]
    agents = [n for n, track in enumerate(tracks.all) if track.role == Role.AGENT]
    agents.sort(key=lambda n: (-busy[n], n))
    kept = sorted([*others[:TRACKS_MAX], *agents[: max(TRACKS_MAX - len(others), 0)]])
    return [tracks.all[n] for n in kept]


def _spans(track: Track, zero: int, wall_ns: int, most: int) -> list[list[Any]]:
    """What it did, as spans; neighbours of one kind that are too close to be seen apart are one."""
    near = wall_ns // max(min(PIXELS, most // 2), 1)
    found: list[list[Any]] = []
    for each in slices(track):
        if not _is_shown(track, each) or each.end <= zero:
            continue
        start, end = max(each.start, zero), each.end
        last = found[-1] if found else None
        if last and last[2] == each.name and start - last[1] < near:
            last[1] = end
            last[3] += 1
        elif end - start >= near or not last or start - last[1] >= near:
            found.append([start, end, each.name, 1])
    return [
        [
            (start - zero) / 1e9,
            (end - start) / 1e9,
            name if count == 1 else f"{count} x {name}",
            name,
        ]
        for start, end, name, count in found[:most]
    ]


def _is_shown(track: Track, each: Slice) -> bool:
    """Of the model the parts of its steps, of everybody else what they did as a whole."""
    if each.category != BUSY:
        return False
    return each.depth == (1 if track.role == Role.INFERENCE else 0) or each.name == "loading"


def _stalls(tracks: Tracks) -> list[list[Any]]:
    """The longest: [start_s, dur_s, agent, step], by time."""
    held, names, zero = tracks.supervisor.of(Kind.HELD), names_of(tracks), tracks.zero_ns
    if len(held) > STALLS_MAX:
        held = held[np.sort(np.argsort(-ns_of(held), kind="stable")[:STALLS_MAX])]
    return [
        [(start - zero) / 1e9, (end - start) / 1e9, names.get(holder - 1, ""), step]
        for start, end, step, _, holder, _ in spans_of(held)
    ]
