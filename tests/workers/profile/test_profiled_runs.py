"""Whole runs, profiled: the same run, every process recorded, every nanosecond accounted for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fleets
import pytest
from profiled import Profiled, job
from scenes import TOOLED

from lockstep.engine.errors import RunStopped, UsageError
from lockstep.workers import resume, verify
from lockstep.workers.launch import Interrupted, launch
from lockstep.workers.profile import figures
from lockstep.workers.profile.latency import Requests
from lockstep.workers.profile.making import make
from lockstep.workers.profile.slices import WAITING, slices
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Tracks, read

TOLERANCE = 0.02


def test_a_profiled_run_has_the_digest_of_one_that_is_not(chain: Profiled) -> None:
    assert chain.summary["state"] == chain.plain["state"] == "finished"
    assert chain.summary["digest"] == chain.plain["digest"]
    assert chain.summary["digest_text"] == chain.plain["digest_text"]
    assert verify(chain.run).equal


def test_a_run_that_is_not_profiled_imports_and_leaves_nothing_of_it(chain: Profiled) -> None:
    assert not (chain.run.parent / "plain" / "profile").exists()
    modules = (
        "lockstep.workers.supervisor, lockstep.workers.inference.process, "
        "lockstep.workers.agent.process, lockstep.workers.tasks, lockstep.cli.run"
    )
    code = f"import sys, {modules}; print([m for m in sys.modules if 'profile' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = [name for name in eval(done.stdout) if name.startswith("lockstep")]
    assert found == []


def test_each_process_of_a_run_has_a_track(chain: Profiled) -> None:
    found = [(track.role, track.name) for track in chain.tracks.all]
    agents = ["burner", "asker.0", "asker.1", "asker.2", "echo"]
    assert found == [
        (Role.SUPERVISOR, "supervisor"),
        (Role.INFERENCE, "inference"),
        *((Role.AGENT, name) for name in agents),
        (Role.SYNC, "sync"),
    ]
    assert not chain.tracks.unread and not any(track.stopped for track in chain.tracks.all)
    assert all(each["cpu_s"] is not None for each in figures.processes(chain.tracks))


def test_what_is_recorded_is_what_the_run_did(chain: Profiled) -> None:
    tracks, summary = chain.tracks, chain.summary
    # A record is written when the turn is sent: who is killed just then owes it.
    owed = summary["turns"] - len(tracks.joined(Role.AGENT, Kind.TURN))
    assert 0 <= owed <= len(tracks.of_role(Role.AGENT))
    assert len(tracks.joined(Role.INFERENCE, Kind.STEP)) == summary["steps"]
    assert len(tracks.joined(Role.INFERENCE, Kind.TOKEN)) == summary["tokens_out"]
    assert len(tracks.supervisor.of(Kind.ASKED)) == summary["requests"]
    ended = tracks.joined(Role.INFERENCE, Kind.ENDED)
    assert len(ended) == summary["requests"] and ended["b"].sum() == summary["tokens_in"]
    requests = Requests.of(tracks).by_agent()
    assert sum(each["tokens_out"] for each in requests.values()) == summary["tokens_out"]
    steps = tracks.joined(Role.INFERENCE, Kind.STEP)["a"].tolist()
    assert steps == sorted(set(steps))
    journals = list((chain.run / "journal").glob("*.journal"))
    kept = tracks.supervisor.of(Kind.JOURNAL)["a"].sum()
    assert kept == sum(path.stat().st_size for path in journals)


def test_what_a_process_did_and_waited_for_is_its_life(chain: Profiled) -> None:
    for process in figures.processes(chain.tracks):
        whole = sum(part["s"] for part in process["busy"])
        assert whole == pytest.approx(process["life_s"], rel=TOLERANCE), process["name"]
        assert all(part["s"] >= 0 for part in process["busy"])
    phases = figures.phases(chain.tracks)
    (engine,) = chain.tracks.of_role(Role.INFERENCE)
    total = sum(phase["s"] for phase in phases)
    assert total == pytest.approx(engine.life_ns / 1e9, rel=TOLERANCE)
    assert all(phase["s"] >= 0 for phase in phases)


def test_lives_are_as_long_as_the_run(chain: Profiled) -> None:
    tracks = chain.tracks
    (forking,) = tracks.supervisor.of(Kind.START)["start"].tolist()
    (closing,) = tracks.supervisor.of(Kind.CLOSE)["start"].tolist()
    # Whoever measured which first, whatever came between two looks at the clock.
    run_ns, rounding_ns = chain.summary["run_s"] * 1e9, 1_000_000
    assert closing - forking - rounding_ns <= run_ns <= tracks.supervisor.life_ns + rounding_ns
    for track in tracks.all:
        assert tracks.supervisor.began_ns <= track.began_ns <= tracks.end_ns
        left = track.of(Kind.LEFT)["end"].tolist()  # Agents that had nothing to do any more.
        assert track.ended_ns == left[0] if left else track.ended_ns >= tracks.end_ns
        assert track.ended_ns <= tracks.supervisor.ended_ns


def test_held_back_is_what_the_summary_says(chain: Profiled) -> None:
    found = {row["agent"]: row["steps"] for row in figures.stalls(chain.tracks)}
    assert found == {row["agent"]: row["steps"] for row in chain.summary["stalls"]}
    assert sum(row["s"] for row in figures.stalls(chain.tracks)) > 0 < chain.summary["stalled_s"]


def check_nesting(tracks: Tracks) -> None:
    """Top-level slices follow each other without a gap; each other one lies in the one above."""
    for track in tracks.all:
        above: list[tuple[int, int]] = []
        at = track.began_ns
        for each in slices(track):
            assert each.start <= each.end
            if each.depth == 0:
                assert each.start == at, (track.name, each)
                at = each.end
            else:
                outer = above[each.depth - 1]
                assert outer[0] <= each.start and each.end <= outer[1], (track.name, each)
            before = above[each.depth] if each.depth < len(above) else None
            if before and each.depth and before[0] >= above[each.depth - 1][0]:
                assert before[1] <= each.start, (track.name, each)
            above[each.depth :] = [(each.start, each.end)]
        assert at == track.ended_ns, track.name


def test_slices_nest_and_fill_each_life_without_a_gap(chain: Profiled) -> None:
    check_nesting(chain.tracks)
    names = {each.name for track in chain.tracks.all for each in slices(track)}
    assert names >= {
        *("pass", "take in", "decide", "do", "journal write", "prepare", "start", "close"),
        *("turn", "guest", "send", "waiting", "step", "prefill", "decode", "sampling", "loading"),
        "sync",
    }


def test_a_killed_agent_leaves_a_track_that_ends_there_and_the_next_one_begins_another(
    tmp_path: Path,
) -> None:
    text = fleets.CHAIN.replace("loops = 9000", "loops = 40_000_000")
    state: dict[str, Any] = {}

    def listen(what: str, value: Any) -> None:
        state[what] = value
        if what != "progress" or "killed" in state or value["turns"] < 8:
            return
        pid = fleets.board_of(state["run"]).agents[0].pid
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            state["killed"] = pid

    summary = launch(job(tmp_path, "run", text, profile="spans"), listen)
    assert (summary["state"], summary["restarts"]) == ("finished", 1)
    tracks = read(tmp_path / "run")
    killed, again = (track for track in tracks.all if track.name == "burner")
    assert (killed.pid, len(again.records) > 0) == (state["killed"], True)
    assert killed.ended_ns <= again.began_ns
    check_nesting(tracks)
    plain = launch(job(tmp_path, "plain", text))
    assert plain["digest"] == summary["digest"]
    rows = figures.agents(tracks, Requests.of(tracks), ())
    assert [row["name"] for row in rows].count("burner") == 1


def test_calls_of_tools_are_on_a_track_of_their_own(tmp_path: Path) -> None:
    summary = launch(job(tmp_path, "run", TOOLED, profile="spans"))
    assert summary["state"] == "finished"
    (tools,) = read(tmp_path / "run").of_role(Role.TOOLS)
    calls = tools.of(Kind.TOOL)
    assert sorted(calls["a"].tolist()) == list(range(1, len(calls) + 1)) and len(calls) > 1
    busy = [each for each in slices(tools) if each.category != WAITING]
    assert busy and sum(each.numbers["calls"] for each in busy) == len(calls)


def test_an_interrupted_run_has_the_profile_of_what_was_until_then(tmp_path: Path) -> None:
    def listen(what: str, value: Any) -> None:
        if what == "progress" and value["turns"] > 8 and not heard:
            heard.append(value)
            raise KeyboardInterrupt

    heard: list[Any] = []
    text = fleets.CHAIN.replace("loops = 9000", "loops = 40_000_000")
    with pytest.raises(Interrupted):
        raise_of(launch(job(tmp_path, "run", text, profile="spans"), listen))
    tracks = read(tmp_path / "run")
    check_nesting(tracks)
    found = make(tmp_path / "run", {})
    assert found["run"]["state"] == "stopped" and found["agents"][0]["turns"] > 0
    recorded = sorted((tmp_path / "run" / "profile").iterdir())
    assert resume(tmp_path / "run").summary["state"] == "finished"
    assert sorted((tmp_path / "run" / "profile").iterdir()) == recorded


def raise_of(summary: dict[str, Any]) -> None:
    """A summary that says 130 is of an interrupted run, as `lockstep.workers.run` has it."""
    if summary["exit_code"] == 130:
        raise Interrupted(summary["reason"], summary)


def test_a_killed_supervisor_leaves_tracks_that_can_be_read(tmp_path: Path) -> None:
    killed: list[int] = []

    def listen(what: str, value: Any) -> None:
        if what == "progress" and value["turns"] > 8 and not killed:
            killed.append(fleets.supervisor_of(tmp_path / "run"))
            os.kill(killed[0], signal.SIGKILL)

    text = fleets.CHAIN.replace("loops = 9000", "loops = 40_000_000")
    with pytest.raises(RunStopped):
        launch(job(tmp_path, "run", text, profile="spans"), listen)
    check_nesting(read(tmp_path / "run"))
    assert make(tmp_path / "run", {})["run"] == {}


def test_a_run_that_goes_on_is_not_profiled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a resume is not profiled"):
        launch(job(tmp_path, "run", mode="resume", past=str(tmp_path), profile="spans"))
    with pytest.raises(UsageError, match="the platform is 'portable'"):
        launch(job(tmp_path, "run", platform="portable", profile="spans"))
    assert not (tmp_path / "run").exists()
