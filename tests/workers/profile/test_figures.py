"""Figures of tracks that are known to the nanosecond."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiled import Profiled

from lockstep.engine.errors import UsageError
from lockstep.engine.plan import FINISH_STATUS
from lockstep.workers.profile import figures, latency, series
from lockstep.workers.profile.arrows import Arrow, arrows
from lockstep.workers.profile.latency import Requests
from lockstep.workers.profile.making import make, profile_of
from lockstep.workers.profile.perfetto import write_trace
from lockstep.workers.profile.spans import Kind, Role, State
from lockstep.workers.profile.tracks import RECORDS, STOPS, Track, Tracks

MS, S = 1_000_000, 1_000_000_000


def track(role: Role, records: list[tuple[int, ...]], index: int = 0, ended: int = S) -> Track:
    """A track from 0 to ``ended``; records are (kind, start, end, a, b, c)."""
    rows = [(*each[1:], *[0] * (6 - len(each)), each[0]) for each in records]
    name = f"agent{index}" if role == Role.AGENT else role.name.lower()
    return Track(role, index, 100 + index, name, 0, ended, "", np.array(rows, RECORDS))


def a_run(supervisor: list[Any] = [], engine: list[Any] = [], *agents: list[Any]) -> Tracks:  # noqa: B006
    """Tracks of a run whose first tag is at 0 and which ends after a second."""
    whole = [(Kind.PASS, 0, 1), *supervisor, (Kind.CLOSE, S, S)]
    found = [track(Role.SUPERVISOR, whole), track(Role.INFERENCE, engine)]
    found += [track(Role.AGENT, records, n) for n, records in enumerate(agents)]
    return Tracks(found, [])


ASKED = [(Kind.ASKED, 10 * MS, 10 * MS, 1, 0, 0), (Kind.ASKED, 20 * MS, 20 * MS, 2, 0, 1)]
TOKENS = [
    *((Kind.TOKEN, t * MS, t * MS, 1) for t in (30, 40, 60)),
    (Kind.ENDED, 60 * MS, 60 * MS, 1, 7, 0),
    *((Kind.TOKEN, 60 * MS, 60 * MS, 2) for _ in range(2)),  # Two samples in one step.
    (Kind.TOKEN, 70 * MS, 70 * MS, 2),
    (Kind.TOKEN, 80 * MS, 80 * MS, 99),  # Nobody asked for it.
]


def test_latencies_are_those_of_their_names() -> None:
    found = Requests.of(a_run(ASKED, TOKENS)).distributions()
    assert found["ttft_ms"].tolist() == [20, 40]
    assert found["tpot_ms"].tolist() == [15, 10]
    assert sorted(found["itl_ms"].tolist()) == [10, 10, 20]
    assert found["request_ms"].tolist() == [50]  # The other one was never answered.


def test_tokens_are_counted_by_who_asked_for_them() -> None:
    assert Requests.of(a_run(ASKED, TOKENS)).by_agent() == {
        0: {"requests": 1, "tokens_in": 7, "tokens_out": 3},
        1: {"requests": 1, "tokens_in": 0, "tokens_out": 3},
    }
    refused = (Kind.ENDED, 90 * MS, 90 * MS, 3, 9, FINISH_STATUS["refused"])
    asked = (Kind.ASKED, 25 * MS, 25 * MS, 3, 0, 1)
    found = Requests.of(a_run([*ASKED, asked], [*TOKENS, refused])).by_agent()
    assert found[1] == {"requests": 2, "tokens_in": 0, "tokens_out": 3}


def test_a_run_in_which_nothing_was_asked_has_empty_figures() -> None:
    tracks = a_run()
    requests = Requests.of(tracks)
    assert requests.by_agent() == {}
    found = latency.distributions(tracks, requests)
    assert {each["count"] for each in found.values()} == {0}
    assert set(series.series(tracks)["tokens_per_s"]) == {0.0}
    assert figures.batches(tracks, [("m", 4)])["m"]["rows_mean"] == 0.0


def test_many_values_are_thinned_evenly_and_counted() -> None:
    turns = [(Kind.TURN, n * 100, n * 100 + n % 97, n, 1) for n in range(25_000)]
    found = latency.distributions(a_run([], [], turns), Requests.of(a_run()))["guest_ms"]
    assert (found["count"], len(found["values"])) == (25_000, latency.VALUES_MAX)
    assert found["values"] == sorted(found["values"])
    assert (found["values"][0], found["values"][-1]) == (0.0, 96 / MS)
    assert found["p50"] == pytest.approx(48 / MS)


def test_series_add_up_to_what_there_was() -> None:
    steps = [(Kind.STEP, t * MS, (t + 5) * MS, t, 3 << 32 | 2, 1) for t in range(0, 900, 10)]
    chunks = [(Kind.PREFILL, t * MS, (t + 1) * MS, 0, 16) for t in range(0, 900, 100)]
    held = [(Kind.HELD, 100 * MS, 350 * MS, 7, 0, 1)]
    counted = [(Kind.COUNTED, t * MS, t * MS, t, 5, 1) for t in range(0, 1001, 20)]
    found = series.series(a_run([*ASKED, *held, *counted], [*TOKENS, *steps, *chunks]))
    width = found["bin_s"]
    assert len(found["t_s"]) == series.BINS_MAX and width == pytest.approx(1 / series.BINS_MAX)
    assert sum(found["tokens_per_s"]) * width == pytest.approx(7)
    assert sum(found["prompt_tokens_per_s"]) * width == pytest.approx(9 * 16)
    assert sum(found["messages_per_s"]) * width == pytest.approx(1000)
    assert sum(found["stalled_share"]) * width == pytest.approx(0.25)
    assert (found["rows"][0], found["rows"][300], found["tickets_waiting"][300]) == (0, 3, 2)
    assert max(found["stalled_share"]) <= 1.0 and found["events_waiting"][-1] == 5


def test_rows_of_steps_are_counted_by_model() -> None:
    decodes = [(Kind.DECODE, t, t + 1, t % 2, 1, 1 + t % 3) for t in range(12)]
    steps = [(Kind.STEP, t, t + 1, t) for t in range(12)]
    found = figures.batches(a_run([], [*steps, *decodes]), [("a", 4), ("b", 2)])
    assert found["a"]["steps_by_rows"] == [6, 2, 2, 2, 0]
    assert (found["b"]["rows_mean"], found["b"]["rows_max"]) == (2.0, 2)


def test_stalls_are_named_and_summed_the_longest_first() -> None:
    held = [
        (Kind.HELD, 0, 10 * MS, 5, 0, 2),
        (Kind.HELD, 20 * MS, 50 * MS, 6, 0, 1),
        (Kind.HELD, 50 * MS, 55 * MS, 6, 0, 0),
        (Kind.HELD, 60 * MS, 70 * MS, 6, 0, 1),
    ]
    found = figures.stalls(a_run(held, [], [], []))
    assert found == [
        {"agent": "agent0", "s": 0.04, "steps": 1},
        {"agent": "agent1", "s": 0.01, "steps": 1},
        {"agent": "", "s": 0.005, "steps": 1},
    ]


def test_an_arrow_begins_in_the_turn_that_was_waited_for() -> None:
    held = [(Kind.HELD, 20, 50, 6, 0, 1), (Kind.HELD, 60, 90, 7, 0, 1), (Kind.HELD, 1, 2, 9, 0, 1)]
    turns = [(Kind.TURN, 0, 40, 0, 5), (Kind.TURN, 55, 58, 1, 1), (Kind.TURN, 95, 99, 2, 1)]
    steps = [(Kind.STEP, 52, 60, 6), (Kind.STEP, 91, 95, 7)]
    found = list(arrows(a_run(held, steps, turns)))
    # The second turn had ended when the supervisor still waited to hear of it.
    assert found == [Arrow(2, 40, 1, 52, 6), Arrow(2, 58, 1, 91, 7)]


def test_a_turn_that_goes_on_has_no_arrow_yet() -> None:
    held = [(Kind.HELD, 20, 50, 6, 0, 1)]
    turns = [(Kind.TURN, 0, 10, 0, 1), (Kind.TURN, 15, 80, 1, 1)]
    assert list(arrows(a_run(held, [(Kind.STEP, 52, 60, 6)], turns))) == []


def test_the_timeline_is_bounded_and_leaves_out_who_did_least() -> None:
    turns = [
        [(Kind.TURN, 1000 * t, 1000 * t + 10 + n, t, 1) for t in range(900)] for n in range(60)
    ]
    found = series.timeline(a_run([], [], *turns))
    names = [each["name"] for each in found["tracks"]]
    assert len(names) == series.TRACKS_MAX and found["tracks_left_out"] == 62 - series.TRACKS_MAX
    assert "agent agent59" in names and "agent agent0" not in names
    assert sum(len(each["spans"]) for each in found["tracks"]) <= series.SPANS_MAX
    for each in found["tracks"]:
        ends = [start + length for start, length, *_ in each["spans"]]
        starts = [start for start, *_ in each["spans"]]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


def test_neighbours_on_the_timeline_are_one_with_their_number() -> None:
    turns = [(Kind.TURN, 1000 * t, 1000 * t + 900, t, 1) for t in range(1000)]
    (_, _, agent) = series.timeline(a_run([], [], turns))["tracks"]
    assert agent["spans"] == [[0.0, pytest.approx(0.000999901), "1000 x turn", "turn"]]


def test_a_profile_has_what_it_promises_and_is_json(chain: Profiled) -> None:
    found = profile_of(chain.run, chain.tracks, {"cpu": "a"})
    again = json.loads(json.dumps(found, allow_nan=False))
    assert set(again) == {
        *("format", "fleet", "run", "machine", "wall_s", "processes", "phases", "agents", "series"),
        *("distributions", "batch", "timeline", "stalls", "limits", "advice", "nodes"),
    }
    assert again["run"]["digest"] == chain.summary["digest"] and again["fleet"] == "chain"
    assert again["agents"][0]["name"] == "burner"
    assert again["agents"][0]["fuel"] > 0 and again["agents"][1]["tokens_out"] > 0
    assert again["batch"]["default"]["rows_max"] == 4
    assert {"MatMul", "GroupQueryAttention"} & {each["operator"] for each in again["nodes"]}
    names = [limit["name"] for limit in again["limits"]]
    assert names == ["memory bandwidth, default", "processors", "system calls of the supervisor"]


def test_turns_that_were_repeated_are_counted_once() -> None:
    tracks = a_run([], [], [(Kind.TURN, n * MS, n * MS + 5, n) for n in (1, 2, 3)])
    tracks.all.append(track(Role.AGENT, [(Kind.TURN, n * S, n * S + 5, n) for n in (2, 3, 4)]))
    (row,) = figures.agents(tracks, Requests.of(tracks), ())
    assert (row["turns"], row["guest_s"]) == (4, pytest.approx(30e-9))


def test_advice_against_stalls_is_of_the_part_that_was_recorded(chain: Profiled) -> None:
    run = chain.run.parent / "resumed"
    shutil.copytree(chain.run, run)
    summary = json.loads((run / "summary.json").read_bytes())
    row = {"agent": "burner", "s": 900.0, "steps": 1, "quanta": 2.0}
    (run / "summary.json").write_text(json.dumps({**summary, "stalled_s": 900.0, "stalls": [row]}))
    tracks = a_run()  # In which nobody was held back.
    assert not any("burner" in line for line in profile_of(run, tracks, {})["advice"])


def test_a_disk_that_was_full_is_named(chain: Profiled) -> None:
    tracks = a_run()
    tracks.supervisor.stopped = STOPS[State.NO_ROOM]
    said = profile_of(chain.run, tracks, {})["advice"][0]
    assert said.startswith(
        f"supervisor was recorded until it met no room on the disk of {chain.run / 'profile'}; "
    )


def test_a_moment_far_beyond_the_others_takes_no_memory(tmp_path: Path) -> None:
    far = 1 << 60
    tracks = a_run([], [(Kind.STEP, 0, MS, 1, 0, 3), (Kind.STEP, 1, far, 2, 0, 4)])
    path = tmp_path / "trace.json.gz"
    write_trace(path, tracks, {}, lambda what, share: None, [])
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    rates = [each["args"]["value"] for each in events if each["name"] == "tokens/s"]
    assert rates == pytest.approx([30.0, 0.0, 40.0])


def test_what_cannot_be_made_sense_of_is_told_in_one_line(chain: Profiled) -> None:
    run = chain.run.parent / "damaged"
    shutil.copytree(chain.run, run)
    (run / "summary.json").write_text('{"agents": [{}]}')
    with pytest.raises(UsageError, match=r"no profile can be made of .*profile.*KeyError.*damaged"):
        make(run, {})
