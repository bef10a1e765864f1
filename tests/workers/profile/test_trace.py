"""The trace, read strictly: what Perfetto is given is what was recorded."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiled import Profiled

from lockstep.workers.profile.making import make
from lockstep.workers.profile.perfetto import least_ns, write_trace
from lockstep.workers.profile.slices import slices
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import RECORDS, Track, Tracks

Event = dict[str, Any]
KEYS = {  # What an event of each phase has, and nothing else.
    "M": {"pid", "tid", "name", "args"},
    "X": {"pid", "tid", "ts", "dur", "name", "cat", "args"},
    "s": {"pid", "tid", "ts", "name", "cat", "id", "args"},
    "f": {"pid", "tid", "ts", "name", "cat", "id", "bp", "args"},
    "C": {"pid", "ts", "name", "args"},
    "b": {"pid", "ts", "name", "cat", "id"},
    "e": {"pid", "ts", "name", "cat", "id"},
}


def events_of(path: Path) -> tuple[list[Event], Event]:
    """All events of a trace, each of a form that is known, and what is said beside them."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        whole = json.load(file, parse_float=Decimal)
    assert set(whole) == {"displayTimeUnit", "traceEvents", "otherData"}
    for event in whole["traceEvents"]:
        assert set(event) - {"ph"} <= KEYS[event["ph"]], event
        assert event.get("ts", 0) >= 0 and event.get("dur", 0) >= 0
    return whole["traceEvents"], whole["otherData"]


@pytest.fixture(scope="module")
def made(chain: Profiled) -> tuple[list[Event], Event]:
    """The events of a run's trace."""
    make(chain.run, {}, report=False)
    return events_of(chain.run / "trace.json.gz")


def lying(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """Slices by process and thread, in order, what encloses others first."""
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    for each in found.values():
        each.sort(key=lambda event: (event["ts"], -event["dur"]))
    return found


def test_slices_of_a_thread_nest_to_the_nanosecond(made: tuple[list[Event], Event]) -> None:
    for thread in lying(made[0]).values():
        open_: list[Decimal] = []
        for event in thread:
            while open_ and open_[-1] <= event["ts"]:
                open_.pop()
            end = event["ts"] + event["dur"]
            assert not open_ or end <= open_[-1], event
            open_.append(end)


def test_each_process_has_its_name_and_its_slices(
    chain: Profiled, made: tuple[list[Event], Event]
) -> None:
    names = {e["pid"]: e["args"]["name"] for e in made[0] if e["name"] == "process_name"}
    tracks = chain.tracks.all
    assert list(names.values()) == [f"{track.name} ({track.pid})" for track in tracks]
    slicing = lying(made[0])
    for number, track in enumerate(tracks, 1):
        assert len(slicing[number, 1]) == len(list(slices(track)))
        top = at = Decimal(0)
        for event in slicing[number, 1]:
            if event["ts"] >= at:
                top, at = top + event["dur"], event["ts"] + event["dur"]
        assert float(top) * 1000 == pytest.approx(track.life_ns, rel=0.02)


def test_arrows_have_both_ends_in_slices_and_go_forward(
    chain: Profiled, made: tuple[list[Event], Event]
) -> None:
    events, about = made
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert starts and starts.keys() == ends.keys() and len(starts) == about["arrows"]
    slicing = lying(events)
    for number, start in starts.items():
        end = ends[number]
        assert start["ts"] <= end["ts"] and end["bp"] == "e"
        left = [e for e in slicing[start["pid"], 1] if e["name"] == "turn"]
        assert any(e["ts"] <= start["ts"] <= e["ts"] + e["dur"] for e in left)
        met = [e for e in slicing[end["pid"], 1] if e["name"] == "step" and e["ts"] == end["ts"]]
        assert [e["args"]["step"] for e in met] == [start["args"]["step"]]


def test_counters_go_over_the_run(made: tuple[list[Event], Event]) -> None:
    values = defaultdict(list)
    for event in made[0]:
        if event["ph"] == "C":
            values[event["name"]].append(event["args"]["value"])
    assert set(values) == {"rows", "tickets", "tokens/s", "mailboxes", "requests open"}
    assert max(values["rows"]) > 0 and max(values["tokens/s"]) > 0


def test_nodes_of_the_graph_lie_in_the_steps_that_ran_them(made: tuple[list[Event], Event]) -> None:
    slicing = lying(made[0])
    nodes = slicing[2, 2]
    assert {node["cat"] for node in nodes} == {"node"} and len(nodes) == made[1]["nodes"]
    runs = [e for e in slicing[2, 1] if e["name"] in ("prefill", "decode", "loading")]
    inside = sum(
        any(
            r["ts"] - 1000 <= n["ts"] and n["ts"] + n["dur"] <= r["ts"] + r["dur"] + 1000
            for r in runs
        )
        for n in nodes
    )
    # Moments of another clock, told apart once: a millisecond is more than they differ by.
    assert inside >= 0.98 * len(nodes) > 0


def agent(records: list[tuple[int, ...]]) -> Track:
    """A track of an agent."""
    found: Any = np.array(records, RECORDS)
    end = int(found["end"].max()) + 10
    return Track(Role.AGENT, 0, 7, "a", 0, end, "", found)


def test_a_trace_of_very_many_slices_loses_the_shortest_and_says_so(
    chain: Profiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [(100 * n, 100 * n + 1 + n % 50, n, 1, 0, Kind.TURN) for n in range(1000)]
    tracks = Tracks([*chain.tracks.all[:1], agent(records)], [])
    most = 100 + len(chain.tracks.all[0].records)
    monkeypatch.setattr("lockstep.workers.profile.perfetto.RECORDS_MAX", 100)
    assert least_ns(tracks, most) < least_ns(tracks, 100)
    counts = write_trace(tmp_path / "t.json.gz", tracks, {}, lambda what, share: None)
    events, about = events_of(tmp_path / "t.json.gz")
    assert counts["dropped"] > 0 and about["dropped"] == counts["dropped"]
    assert min(e["dur"] for e in events if e["ph"] == "X") * 1000 >= counts["least_ns"] > 0


def test_nothing_is_left_of_a_trace_that_could_not_be_written(
    chain: Profiled, tmp_path: Path
) -> None:
    def told(what: str, share: float) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_trace(tmp_path / "t.json.gz", chain.tracks, {}, told)
    assert list(tmp_path.iterdir()) == []
