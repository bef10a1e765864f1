"""Figures of a profile: where the time of each process went, and each phase, agent and batch.

Of each process what it did and what it waited for make up its life, to the nanosecond: what is not
said in the record is what it waited.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lockstep.workers.profile.latency import Requests
from lockstep.workers.profile.slices import WAITING, slices
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Track, Tracks, ns_of, seconds

Object = dict[str, Any]
NOBODY = ""  # In place of an agent: what was under way anyhow was waited for.

SPLIT = ("take in", "decide", "do", "guest", "send")  # Told in place of `WHOLES`.
WHOLES = ("pass", "turn")
NO_REQUESTS = {"requests": 0, "tokens_in": 0, "tokens_out": 0}

# Phases of the inference process, in this order; the rest of its steps is what it does itself.
PHASES = (
    ("prefill", Kind.PREFILL),
    ("decode", Kind.DECODE),
    ("sampling", Kind.SAMPLE),
    ("copies", Kind.COPY),
    ("calls", Kind.CALL),
    ("loading", Kind.LOADING),
)


def processes(tracks: Tracks) -> list[Object]:
    """Of each process: what it did, ``waiting`` the last of it, in seconds."""
    used = tracks.supervisor.of(Kind.USED)
    cpu = dict(zip(used["a"].tolist(), used["b"].tolist(), strict=True))
    return [_process(track, _cpu(track, cpu)) for track in tracks.all]


def _cpu(track: Track, used: Mapping[int, int]) -> int | None:
    """CPU time in ns, as it said itself or the supervisor looked up; None: nobody knows."""
    left = track.of(Kind.LEFT)
    return int(left["b"][0]) if len(left) else used.get(track.pid)


def _process(track: Track, used: int | None) -> Object:
    parts: dict[str, int] = {}
    for each in slices(track):
        if each.depth == 0:
            name = WAITING if each.category == WAITING else each.name
            parts[name] = parts.get(name, 0) + each.end - each.start
        elif each.depth == 1 and each.name in SPLIT:
            # A pass is the sum of its parts, and a turn too.
            parts[each.name] = parts.get(each.name, 0) + each.end - each.start
    for whole in WHOLES:
        parts.pop(whole, None)
    waited = parts.pop(WAITING, 0)
    busy = [{"name": name, "s": ns / 1e9} for name, ns in parts.items()]
    return {
        "name": shown(track),
        "kind": track.role.name.lower(),
        "pid": track.pid,
        "cpu_s": None if used is None else used / 1e9,
        "life_s": track.life_ns / 1e9,
        "stopped": track.stopped,
        "busy": [*busy, {"name": WAITING, "s": waited / 1e9}],
    }


def shown(track: Track) -> str:
    """A process's name for people."""
    return f"agent {track.name}" if track.role == Role.AGENT else track.name


def phases(tracks: Tracks) -> list[Object]:
    """What the inference process did, all that took its place together."""
    records = tracks.joined(Role.INFERENCE, *Kind)
    if not len(tracks.of_role(Role.INFERENCE)):
        return []
    found = [(name, seconds([records[records["kind"] == kind]])) for name, kind in PHASES]
    steps = seconds([records[np.isin(records["kind"], (Kind.STEP, Kind.TAKE))]])
    inside = sum(s for name, s in found if name != "loading")
    waits = records[records["kind"] == Kind.WAIT]
    lives = sum(track.life_ns for track in tracks.of_role(Role.INFERENCE)) / 1e9
    stalled = seconds([waits[waits["c"] == 1]])
    loading = dict(found)["loading"]
    found += [
        ("tickets, plans, reports", max(steps - inside, 0.0)),
        ("waiting: stalled", stalled),
        ("waiting: nothing asked", max(lives - max(steps, inside) - loading - stalled, 0.0)),
    ]
    return [{"name": name, "s": s} for name, s in found]


def agents(tracks: Tracks, requests: Requests, booked: Sequence[Mapping[str, Any]]) -> list[Object]:
    """Of each agent, over all processes that were it.

    Args:
        tracks: Of the run.
        requests: What was asked and answered.
        booked: The agents of the run's summary; empty: it has none.
    """
    known = {str(each["name"]): each for each in booked}
    held = {row["agent"]: row["s"] for row in stalls(tracks)}
    asked = requests.by_agent()
    found: dict[str, Object] = {}
    which: dict[str, list[Any]] = {}
    for track in tracks.of_role(Role.AGENT):
        turns = track.of(Kind.TURN)
        guest, ring = ns_of(turns).sum() / 1e9, turns["b"].sum() / 1e9
        start = seconds([track.of(Kind.START)])
        waiting = max(track.life_ns / 1e9 - guest - ring - start, 0.0)
        numbers = {"guest_s": guest, "ring_s": ring, "waiting_s": waiting}
        # One that began again repeats turns: they are counted once, and their time twice.
        which.setdefault(track.name, []).append(turns["a"])
        row = found.setdefault(track.name, {"name": track.name})
        for key, value in {**numbers, "start_s": start}.items():
            row[key] = row.get(key, 0) + value
        row |= {
            "turns": len(np.unique(np.concatenate(which[track.name]))),
            "fuel": known.get(track.name, {}).get("fuel"),
            **asked.get(track.index, NO_REQUESTS),
        }
        row["stall_s"] = held.get(track.name, 0.0)
    return [{k: float(v) if k.endswith("_s") else v for k, v in row.items()}
            for row in found.values()]  # fmt: skip


def names_of(tracks: Tracks) -> dict[int, str]:
    """Agents by index."""
    return {track.index: track.name for track in tracks.of_role(Role.AGENT)}


def stalls(tracks: Tracks) -> list[Object]:
    """Who held the model back, the longest first."""
    held, names = tracks.supervisor.of(Kind.HELD), names_of(tracks)
    found = []
    for holder in np.unique(held["c"]).tolist():
        records = held[held["c"] == holder]
        name = names.get(holder - 1, f"agent {holder - 1}") if holder else NOBODY
        steps = len(np.unique(records["a"]))
        found.append({"agent": name, "s": seconds([records]), "steps": steps})
    return sorted(found, key=lambda row: (-row["s"], row["agent"]))


def batches(tracks: Tracks, models: Sequence[tuple[str, int]]) -> Object:
    """How many rows the steps of each model had.

    Args:
        tracks: Of the run.
        models: Names and most rows, in the fleet's order.
    """
    steps = len(tracks.joined(Role.INFERENCE, Kind.STEP))
    decodes = tracks.joined(Role.INFERENCE, Kind.DECODE)
    found = {}
    for number, (name, rows_max) in enumerate(models):
        rows = decodes["c"][decodes["a"] == number]
        counts = np.bincount(rows, minlength=rows_max + 1)
        counts[0] = max(steps - len(rows), 0)
        mean = float(rows.mean()) if len(rows) else 0.0
        found[name] = {"rows_max": rows_max, "steps_by_rows": counts.tolist(), "rows_mean": mean}
    return found
