"""The trace: tracks as JSON in Chrome's trace event format, which Perfetto opens.

Written as it is made, so that memory does not depend on how long a run was. A run of very many
slices loses the shortest ones, and the trace says so.

Format: "Trace Event Format" of the Chromium project: M names processes and threads, X is a slice, s
and f the two ends of an arrow, C a counter, b and e the two ends of what goes on beside others.
Times are in microseconds; three decimals are nanoseconds, so slices nest here as they did there.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lockstep.workers.profile.arrows import Arrow, arrows
from lockstep.workers.profile.node_events import NodeEvent
from lockstep.workers.profile.slices import APART, Slice, slices
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Records, Track, Tracks, ns_of, spans_of

TRACE = "trace.json.gz"
COUNTERS_MAX = 20_000  # Points of one counter.
RATE_NS = 100_000_000
RECORDS_MAX = 400_000  # Each is up to four slices: Perfetto opens a million without effort.
NODES_MAX = 300_000
THREAD = 1
Told = Callable[[str, float], None]


def write_trace(
    path: Path,
    tracks: Tracks,
    about: dict[str, Any],
    told: Told,
    nodes: Iterable[NodeEvent] = (),
) -> dict[str, int]:
    """Write the trace file, whole or not at all.

    Args:
        path: Of it.
        tracks: Of the run.
        about: Of the run, for ``otherData``.
        told: Hears how far it is, from 0 to 1.
        nodes: Of the models' graphs.

    Returns:
        How many ``slices``, ``arrows``, ``counters`` and ``nodes`` there are, and how many were
        ``dropped`` because they are shorter than ``least_ns``.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with gzip.open(part, "wt", compresslevel=5, encoding="ascii") as file:
            counts = _Writer(file, tracks, told).write(about, nodes)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return counts


def least_ns(tracks: Tracks, most: int) -> int:
    """How long what is shown must be at least, so that it is not more than ``most`` records."""
    taken = [ns_of(track.records[~np.isin(track.records["kind"], APART)]) for track in tracks.all]
    count = sum(map(len, taken))
    if count <= most:
        return 0
    return int(np.partition(np.concatenate(taken), count - most)[count - most])


class _Writer:
    """One trace."""

    def __init__(self, file: TextIO, tracks: Tracks, told: Told) -> None:
        self._file, self._tracks, self._told = file, tracks, told
        self._zero = min(track.began_ns for track in tracks.all)
        self._least = least_ns(tracks, RECORDS_MAX)
        self._counts = {"slices": 0, "arrows": 0, "counters": 0, "nodes": 0, "dropped": 0}

    def write(self, about: dict[str, Any], nodes: Iterable[NodeEvent]) -> dict[str, int]:
        """All of it."""
        self._file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        total = sum(len(track.records) for track in self._tracks.all) or 1
        done = 0
        for number, track in enumerate(self._tracks.all, 1):
            self._name(number, track)
            for each in slices(track):
                self._slice(number, each)
            self._beside(number, track)
            done += len(track.records)
            self._told("trace", done / total)
        self._write_nodes(nodes)
        for count, arrow in enumerate(arrows(self._tracks, self._least), 1):
            self._arrow(count, arrow)
        for number, moment, name, value in counters(self._tracks):
            self._counts["counters"] += 1
            self._say(moment, {"ph": "C", "pid": number, "name": name, "args": {"value": value}})
        counts = {**self._counts, "least_ns": self._least}
        # The last one has no comma behind it.
        self._file.write(json.dumps({"ph": "M", "pid": 1, "name": "trace_end", "args": {}}))
        self._file.write(f'\n],"otherData":{json.dumps({**about, **counts})}}}\n')
        return counts

    def _name(self, number: int, track: Track) -> None:
        """Names of a process and its thread; a process that was not recorded to its end says so."""
        title = f"{track.name} ({track.pid})"
        if track.stopped:
            title += f", recorded until it met {track.stopped}"
        for name, value in (
            ("process_name", {"name": title}),
            ("process_sort_index", {"sort_index": number}),
            ("thread_name", {"name": track.role.name.lower()}),
        ):
            self._say(None, {"ph": "M", "pid": number, "tid": THREAD, "name": name, "args": value})

    def _slice(self, number: int, each: Slice) -> None:
        taken = each.end - each.start
        if taken < self._least:
            self._counts["dropped"] += 1
            return
        self._counts["slices"] += 1
        # Names are ours, and numbers numbers: nothing in this line needs escaping.
        numbers = ",".join(f'"{name}":{value}' for name, value in each.numbers.items())
        self._file.write(
            f'{{"ph":"X","pid":{number},"tid":{THREAD},"ts":{_decimal(each.start - self._zero)},'
            f'"dur":{_decimal(taken)},"name":"{each.name}","cat":"{each.category}",'
            f'"args":{{{numbers}}}}},\n'
        )

    def _arrow(self, count: int, arrow: Arrow) -> None:
        self._counts["arrows"] += 1
        both = {"cat": "stall", "name": "held back", "id": count, "tid": THREAD,
                "args": {"step": arrow.step}}  # fmt: skip
        self._say(arrow.left, {"ph": "s", "pid": arrow.source + 1, **both})
        self._say(arrow.met, {"ph": "f", "bp": "e", "pid": arrow.target + 1, **both})

    def _beside(self, number: int, track: Track) -> None:
        """Calls of tools, each for itself."""
        for start, end, call, _, tool, _ in spans_of(track.of(Kind.TOOL)):
            event = {"cat": "tool", "name": f"tool {tool}", "id": call, "pid": number}
            self._say(start, {"ph": "b", **event})
            self._say(end, {"ph": "e", **event})

    def _write_nodes(self, nodes: Iterable[NodeEvent]) -> None:
        """On threads of their own beside the model's, as many as `NODES_MAX`."""
        places = [n for n, t in enumerate(self._tracks.all, 1) if t.role == Role.INFERENCE]
        named: dict[int, None] = {}
        for node in islice(nodes, NODES_MAX) if places else ():
            thread, head = THREAD + 1 + node.model, {"pid": places[0]}
            if thread not in named:
                named[thread] = None
                title = {"name": f"nodes of model {node.model}"}
                self._say(None, {"ph": "M", **head, "tid": thread, "name": "thread_name",
                                 "args": title})  # fmt: skip
            self._counts["nodes"] += 1
            self._say(node.start, {"ph": "X", **head, "tid": thread, "name": node.operator,
                                   "cat": "node", "dur": (node.end - node.start) / 1000,
                                   "args": {"node": node.name}})  # fmt: skip

    def _say(self, moment: int | None, event: dict[str, Any]) -> None:
        """An event, at a moment if it has one."""
        when = {} if moment is None else {"ts": (moment - self._zero) / 1000}
        self._file.write(f"{json.dumps(event | when)},\n")


def counters(tracks: Tracks) -> Iterator[tuple[int, int, str, float]]:
    """(process by its place, moment, name, value) of what went up and down."""
    for number, track in enumerate(tracks.all, 1):
        if track.role == Role.INFERENCE:
            steps = _some(track.of(Kind.STEP))
            yield from ((number, s[1], "rows", s[3] >> 32) for s in spans_of(steps))
            yield from ((number, s[1], "tickets", s[3] & 0xFFFF_FFFF) for s in spans_of(steps))
            yield from _rates(number, "tokens/s", track.of(Kind.STEP), "c")
        elif track.role == Role.SUPERVISOR:
            counted = _some(track.of(Kind.COUNTED))
            yield from ((number, s[0], "mailboxes", s[3]) for s in spans_of(counted))
            yield from ((number, s[0], "requests open", s[4]) for s in spans_of(counted))


def _rates(
    number: int, name: str, steps: Records, field: str
) -> Iterator[tuple[int, int, str, float]]:
    """What steps brought, per second, in parts of `RATE_NS`."""
    if not len(steps):
        return
    first = int(steps["end"][0])
    places, which = np.unique((steps["end"] - np.uint64(first)) // np.uint64(RATE_NS),
                              return_inverse=True)  # fmt: skip
    counts = np.bincount(which, steps[field]).tolist()
    # A part without steps is not counted, however long it is: only its beginning is told.
    after = [*places[1:].tolist(), None]
    for place, count, following in zip(places.tolist(), counts, after, strict=True):
        yield number, first + place * RATE_NS, name, count / RATE_NS * 1e9
        if following not in (None, place + 1):
            yield number, first + (place + 1) * RATE_NS, name, 0.0


def _some(records: Records) -> Records:
    """At most `COUNTERS_MAX` of them, evenly."""
    return records[:: len(records) // COUNTERS_MAX + 1]


def _decimal(ns: int) -> str:
    """Microseconds, exactly."""
    return f"{ns // 1000}.{ns % 1000:03d}"
