"""Agents that die by accident come back, and the run is the one that nobody disturbed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import fleets
import pytest
from living import Living, kill

from lockstep.workers import resume, verify, view
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.placement import CORE

PACERS = """
[fleet]
name = "pacers"
seed = 9
[recovery]
RECOVERY
[schedule]
policy = "dag"
items_in_flight_max = 2
[agents.first]
module = "GUESTS/pacer.wasm"
config = { tell = "last", loops = 2_000_000, wait = 5 }
[agents.second]
module = "GUESTS/pacer.wasm"
replicas = 2
after = ["first"]
config = { tell = "first", loops = 20_000, wait = 2 }
[agents.last]
module = "GUESTS/pacer.wasm"
after = ["second"]
config = { tell = "second.1", loops = 1000 }
"""

# What is said to standard input decides how far it goes, so that a test can act in between.
DOOR = """
[fleet]
name = "door"
[recovery]
RECOVERY
[sources.feed]
kind = "stdin"
[agents.front]
module = "GUESTS/pacer.wasm"
input = "broadcast"
config = { tell = "back", loops = 100 }
[agents.back]
module = "GUESTS/pacer.wasm"
input = "broadcast"
config = { tell = "front", loops = 100 }
"""
FRONT, BACK = 0, 1
FEED = """
[sources.feed]
kind = "stdin"
"""


# Python for the supervisor's process, so that something goes wrong in it or in its children: a mark
# on disk says when, or that it has.
CANNOT_START = """
from lockstep.workers import tasks
whole = tasks.agent_main
def agent_main(*arguments):
    if os.path.exists(MARK):
        raise MemoryError("no room at all")
    return whole(*arguments)
tasks.agent_main = agent_main
"""
NO_ROOM_ONCE = """
from lockstep.engine.errors import RunStopped
from lockstep.workers import spawn
whole = spawn.fork
def fork(name, body, keep):
    if os.path.exists(MARK):
        os.unlink(MARK)
        raise RunStopped(f"fork of {name}: the kernel has no room for one more process")
    return whole(name, body, keep)
spawn.fork = fork
"""
ONCE = """
def once():
    try:
        os.close(os.open(MARK, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""
ACCIDENT_ONCE = (
    ONCE
    + """
from lockstep.workers.agent import guest
whole = guest.GuestClock.begin_turn
def begin_turn(self, step):
    whole(self, step)
    if step >= 3 and once():
        raise MemoryError("no room")
guest.GuestClock.begin_turn = begin_turn
"""
)
GARBLED_ONCE = (
    ONCE
    + """
from lockstep.engine.record import HEADER_BYTES
from lockstep.workers import seat
whole = seat.Seat._keep
def keep(self, records, count):
    if count and self._turn > 2 and len(records) > HEADER_BYTES and once():
        records = records[:HEADER_BYTES] + bytes([records[HEADER_BYTES] ^ 1]) \\
            + records[HEADER_BYTES + 1:]
    whole(self, records, count)
seat.Seat._keep = keep
"""
)
POISONED_ONCE = (
    ONCE
    + """
from lockstep.shm.header import OFFSETS
from lockstep.shm import Cursor
from lockstep.workers import seat
whole = seat.Seat.receive
def receive(self):
    if self._turn > 2 and once():
        Cursor(self.link.pair.up, OFFSETS["head"]).store(1 << 60)  # As its process could.
    return whole(self)
seat.Seat.receive = receive
"""
)
OTHER_EVENTS = """
from lockstep.workers import catch_up
whole = catch_up.encode_wake
def encode_wake(turn, step, micro, events, count):
    return whole(turn, step, micro, events[:8] + bytes([events[8] ^ 1]) + events[9:], count)
catch_up.encode_wake = encode_wake
"""

NO_WAKES = """
from lockstep.workers.catch_up import CatchUp
wakes = CatchUp.wakes
def no_wakes(self):
    if not os.path.exists(MARK):
        return wakes(self)
    if self.repeated:
        open(MARK + ".ended", "w").close()  # Not before it was decided that it gets none.
    return b""
CatchUp.wakes = no_wakes
"""
STARTS_LATER = """
from lockstep.workers import tasks
whole = tasks.agent_main
def agent_main(*arguments):
    if os.path.exists(MARK):
        open(MARK).close()  # A pipe: until somebody opens its other end.
    return whole(*arguments)
tasks.agent_main = agent_main
"""

DIES_BEFORE_ITS_FIRST_ENTRY = """
import signal
from lockstep.workers.ledger import Ledger
Ledger.append = lambda self, entry: os.kill(os.getpid(), signal.SIGKILL)
"""


def before(mark: Path, code: str) -> str:
    return f"import os\nMARK = {str(mark)!r}\n{code}"


def job(folder: Path, text: str, count: int, name: str, recovery: str = "", **more: Any) -> Job:
    """A job over a fleet text and ``count`` items, in a run folder of its own; 0: no input."""
    path = fleets.fleet(folder, text.replace("RECOVERY", recovery))
    return Job(
        fleet=str(path),
        base=str(folder),
        input=str(fleets.items(folder, count)) if count else "",
        run_dir=str(folder / name),
        **more,
    )


def undisturbed(folder: Path, text: str, count: int) -> dict[str, Any]:
    summary = launch(job(folder, text, count, "undisturbed"))
    assert (summary["state"], summary["restarts"]) == ("finished", 0)
    return summary


def comes_out(folder: Path, summary: dict[str, Any], name: str = "run") -> None:
    """A second execution, which nobody disturbs, gives the same history."""
    assert summary["state"] == "finished", summary["reason"]
    again = verify(folder / name)
    assert again.equal and again.whole
    assert again.again["restarts"] == 0 < summary["restarts"]


def same(folder: Path, plain: dict[str, Any], summary: dict[str, Any]) -> None:
    """The disturbed run is the undisturbed one, in its history and in its output."""
    assert summary["state"] == "finished", summary["reason"]
    assert summary["digest"] == plain["digest"]
    outputs = [(folder / name / "output.jsonl").read_bytes() for name in ("run", "undisturbed")]
    assert outputs[0] == outputs[1]


def test_an_agent_killed_while_it_waits_is_brought_back_at_once(tmp_path: Path) -> None:
    with Living(job(tmp_path, DOOR, 0, "run"), feed=True) as run:
        run.tell({"id": 1})
        run.until(lambda: len(run.lines()) == 1)
        pid = run.until_state(BACK, view.IDLE)
        kill(pid)
        note = run.note("brought back")  # Nothing else happens meanwhile that could wake it.
        assert note.startswith(f"agent back (process {pid}) was killed by SIGKILL")
        assert int(note.split()[-3]) >= 3  # Its turns: START, the item, a message, a timer.
        run.pid(BACK, after=pid)
        run.tell({"id": 2})
        summary = run.end()
    assert summary["restarts"] == 1 and summary["items_out"] == 2
    comes_out(tmp_path, summary)


@pytest.mark.skipif(CORE is None or len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_an_agent_that_comes_back_may_run_anywhere(tmp_path: Path) -> None:
    text = """
    [sources.feed]
    kind = "stdin"
    [agents.alone]
    module = "GUESTS/echo.wasm"
    input = "broadcast"
    """
    # However long a turn takes here, none is left to the kernel.
    before = "from lockstep.workers import placement as p; p.REST_WAKES, p.SLOW_S = 0, 1e9"
    with Living(job(tmp_path, text, 0, "run"), feed=True, before=before) as run:
        run.tell({"id": 1})
        run.until(lambda: len(run.lines()) == 1)
        pid = run.pid(0)
        # One turn was all that went on: it was done on the supervisor's core.
        assert len(os.sched_getaffinity(pid)) == len(os.sched_getaffinity(run.supervisor)) == 1
        kill(pid)
        run.note("brought back")
        assert os.sched_getaffinity(run.pid(0, after=pid)) == os.sched_getaffinity(0)
        assert run.end()["restarts"] == 1


@pytest.mark.parametrize(
    ("order", "platform"), [("strict", ""), ("arrival", ""), ("strict", "portable")]
)
def test_everybody_killed_at_once_again_and_again_comes_back(
    tmp_path: Path, order: str, platform: str
) -> None:
    asked = job(tmp_path, DOOR, 0, "run", order=order, platform=platform)
    with Living(asked, feed=True) as run:
        pids = [0, 0]
        for number in range(3):
            run.tell({"id": number})
            run.until(lambda want=number: len(run.lines()) == 2 * want + 1)  # type: ignore[misc]
            pids = [run.pid(index, after=pids[index]) for index in (FRONT, BACK)]
            kill(*pids)
            run.tell({"id": f"{number} in between"})  # They are woken while they come back.
            for _ in range(2):
                run.note("brought back")
            run.until(lambda want=number: len(run.lines()) == 2 * want + 2)  # type: ignore[misc]
        summary = run.end()
    assert summary["restarts"] == 6 and summary["items_out"] == 6
    comes_out(tmp_path, summary)


@pytest.mark.parametrize("who", [(1,), (0, 1, 2, 3)])
def test_agents_killed_in_the_middle_of_their_work_leave_the_history_unchanged(
    tmp_path: Path, who: tuple[int, ...]
) -> None:
    with Living(job(tmp_path, PACERS + FEED, 0, "run"), feed=True) as run:
        run.tell(*({"id": number} for number in range(9)))
        pids = dict.fromkeys(who, 0)
        for turns in (1, 6, 11):
            run.until(lambda want=turns: run.agent(0).turns >= want)  # type: ignore[misc]
            pids = {index: run.pid(index, after=pid) for index, pid in pids.items()}
            kill(*pids.values())
            for _ in who:
                run.note("brought back")
        summary = run.end()
    assert (summary["restarts"], summary["items_out"]) == (3 * len(who), 9)
    comes_out(tmp_path, summary)


def test_a_turn_that_had_ended_and_had_no_effect_yet_is_not_done_twice(tmp_path: Path) -> None:
    mark, ended = tmp_path / "mark", tmp_path / "mark.ended"
    asked = job(tmp_path, DOOR, 0, "run", "overdue_s = 0")
    with Living(asked, feed=True, before=before(mark, NO_WAKES)) as run:
        run.tell({"id": 1})
        for index in (FRONT, BACK):
            run.until_state(index, view.IDLE, turns=4)  # START, the item, a message, a timer.
        # Both are woken at one tag; what the one does cannot take effect before the other's turn
        # is over.
        os.kill(run.pid(BACK), signal.SIGSTOP)
        run.tell({"id": 2})
        first = run.until_state(FRONT, view.IDLE, turns=5)
        mark.touch()
        kill(first)
        run.until(ended.exists)
        mark.unlink()
        second = run.pid(FRONT, after=first)
        kill(second)  # In the middle of what it repeats.
        assert f"{first}) was killed" in run.note("it did not come back")
        note = run.note("brought back")
        assert f"{second}) was killed" in note and "6 turns repeated" in note
        os.kill(run.pid(BACK), signal.SIGCONT)
        summary = run.end()
    assert summary["items_out"] == 2
    comes_out(tmp_path, summary)


def test_an_agent_that_is_woken_while_it_comes_back_hears_of_it_afterwards(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    asked = job(tmp_path, DOOR, 0, "run", "overdue_s = 0")
    with Living(asked, feed=True, before=before(mark, STARTS_LATER)) as run:
        run.tell({"id": 1})
        for index in (FRONT, BACK):
            run.until_state(index, view.IDLE, turns=4)
        os.mkfifo(mark)
        pid = run.pid(BACK)
        kill(pid)
        run.pid(BACK, after=pid)
        run.tell({"id": 2})
        run.until_state(FRONT, view.IDLE, turns=5)  # The other was woken with it.
        assert run.agent(BACK).state == view.RECOVERING
        mark.open("wb").close()
        run.note("brought back")
        summary = run.end()
    assert summary["items_out"] == 2
    comes_out(tmp_path, summary)


def test_an_agent_that_waits_for_the_model_comes_back_and_gets_its_answer(tmp_path: Path) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 6") + FEED
    with Living(job(tmp_path, text, 0, "run"), feed=True) as run:
        run.tell(*({"id": number, "text": "say"} for number in range(4)))
        pid = 0
        for turns in (2, 20):
            run.until(lambda want=turns: run.agent(1).turns >= want)  # type: ignore[misc]
            pid = run.pid(1, after=pid)
            kill(pid)
            run.note("brought back")
        summary = run.end()
    assert summary["items_out"] == 4
    comes_out(tmp_path, summary)


def test_a_tool_is_not_called_again_for_an_agent_that_comes_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    text = """
    [tools.slow]
    command = ["/bin/sh", "-c", "echo called >> calls; read said < fifo; echo $said"]
    timeout_ms = 600_000
    [agents.caller]
    module = "GUESTS/caller.wasm"
    input = "broadcast"
    tools = ["slow"]
    """
    with Living(job(tmp_path, text, 1, "run")) as run:
        run.until((tmp_path / "calls").exists)
        kill(run.pid(0))
        run.note("brought back")
        (tmp_path / "fifo").write_text("answered\n")
        summary = run.end()
        assert [line["payload"] for line in run.lines()] == ["answered\n"]
    assert (tmp_path / "calls").read_text() == "called\n"
    comes_out(tmp_path, summary)


def test_an_agent_that_is_stopped_while_it_has_work_is_killed_and_comes_back(
    tmp_path: Path,
) -> None:
    asked = job(tmp_path, PACERS + FEED, 0, "run", "overdue_s = 1")
    with Living(asked, feed=True) as run:
        run.tell(*({"id": number} for number in range(6)))
        run.until(lambda: run.agent(0).turns >= 3)
        os.kill(run.pid(0), signal.SIGSTOP)
        run.tell({"id": "more"})  # Should it have had no work any more.
        note = run.note("brought back")
        assert "said nothing and used no CPU for 1 s" in note and "agent first" in note
        summary = run.end()
    assert (summary["restarts"], summary["items_out"]) == (1, 7)
    comes_out(tmp_path, summary)


def test_an_agent_that_is_stopped_while_it_waits_is_left_alone_until_it_is_woken(
    tmp_path: Path,
) -> None:
    clock = """
    [sources.clock]
    kind = "timer"
    to = ["front"]
    every_ms = 100
    """
    with Living(job(tmp_path, DOOR + clock, 0, "run", "overdue_s = 1"), feed=True) as run:
        run.tell({"id": 1})
        run.until(lambda: len(run.lines()) == 1)
        pid = run.until_state(BACK, view.IDLE)
        os.kill(pid, signal.SIGSTOP)
        before = run.agent(FRONT).turns
        run.until(lambda: run.agent(FRONT).turns > before + 25)  # 2.5 s, by the source's clock.
        assert run.agent(BACK).pid == pid
        run.tell({"id": 2})
        assert f"agent back (process {pid}) said nothing" in run.note("brought back")
        summary = run.end()
    assert summary["restarts"] == 1
    comes_out(tmp_path, summary)


def test_an_agent_killed_each_time_it_is_back_stops_the_run_after_so_many(tmp_path: Path) -> None:
    with Living(job(tmp_path, DOOR, 0, "run", "restarts_max = 3"), feed=True) as run:
        last = 0
        for _ in range(4):
            last = run.pid(BACK, after=last)
            kill(last)
        run.until((run.run / "summary.json").exists)
        summary = run.end()
    assert (summary["state"], summary["exit_code"], summary["restarts"]) == ("stopped", 3, 3)
    assert summary["reason"].startswith(f"agent back (process {last}) was killed by SIGKILL")
    assert summary["reason"].endswith("restarts_max = 3 within 60 s")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ACCIDENT_ONCE, "was ended: accident: MemoryError: no room; brought back"),
        (GARBLED_ONCE, "or their hash differs; the turn does not count; brought back"),
        (POISONED_ONCE, "the ring is given up; brought back"),
    ],
)
def test_an_agent_whose_process_goes_wrong_is_ended_and_brought_back(
    tmp_path: Path, code: str, told: str
) -> None:
    plain = undisturbed(tmp_path, PACERS, 6)
    mark = tmp_path / "mark"
    with Living(job(tmp_path, PACERS, 6, "run"), before=before(mark, code)) as run:
        run.note(told)
        summary = run.end()
    assert mark.exists() and summary["restarts"] == 1
    same(tmp_path, plain, summary)


def test_an_agent_that_cannot_start_again_and_again_stops_the_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    asked = job(tmp_path, DOOR, 0, "run", "restarts_max = 4")
    with Living(asked, feed=True, before=before(mark, CANNOT_START)) as run:
        run.tell({"id": 1})
        run.until(lambda: len(run.lines()) == 1)
        mark.touch()
        kill(run.pid(FRONT))
        run.until((run.run / "summary.json").exists)
        summary = run.end()
    assert (summary["state"], summary["exit_code"], summary["restarts"]) == ("stopped", 3, 4)
    assert "agent front (process" in summary["reason"]
    assert "left with exit status 70" in summary["reason"]
    assert summary["agents_failed"] == []  # Nothing of it is logical.
    assert sum("it did not come back" in note for note in run.notes) == 4
    part = verify(tmp_path / "run")
    assert part.equal and not part.whole


def test_no_room_for_one_more_process_is_waited_out(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    asked = job(tmp_path, DOOR, 0, "run")
    with Living(asked, feed=True, before=before(mark, NO_ROOM_ONCE)) as run:
        run.tell({"id": 1})
        run.until(lambda: len(run.lines()) == 1)
        mark.touch()
        kill(run.pid(FRONT))
        assert "the kernel has no room for one more process; brought" in run.note("brought back")
        run.tell({"id": 2})
        summary = run.end()
    assert summary["restarts"] == 1 and not mark.exists()
    comes_out(tmp_path, summary)


def test_a_repeated_turn_that_differs_stops_the_run_and_both_sides_are_told(
    tmp_path: Path,
) -> None:
    asked = job(tmp_path, DOOR, 0, "run")
    with Living(asked, feed=True, before=before(tmp_path, OTHER_EVENTS)) as run:
        run.tell({"id": 1})
        run.until(lambda: len(run.lines()) == 1)
        run.until_state(BACK, view.IDLE)
        kill(run.pid(BACK))
        summary = run.end()
    assert (summary["state"], summary["exit_code"]) == ("stopped", 4)
    begin = r"agent back: turn \d+ at tag \d+\.\d+ was repeated and differs from the record: "
    assert re.match(begin + r"its record \d+ is .*, recorded is ", summary["reason"])


def test_an_agent_that_ended_by_its_own_doing_is_not_brought_back(tmp_path: Path) -> None:
    text = """
    [agents.trapper]
    module = "GUESTS/trapper.wasm"
    input = "deal"
    config = { trap_item = 2 }
    [agents.caller]
    module = "GUESTS/caller.wasm"
    """
    summary = launch(job(tmp_path, text, 3, "run"))
    assert summary["agents_failed"] == ["trapper"]
    assert (summary["state"], summary["restarts"]) == ("finished", 0)


CROWD = """
[recovery]
restarts_max = 1000
window_s = 1
[sources.feed]
kind = "stdin"
[agents.echo]
module = "GUESTS/echo.wasm"
replicas = 20
input = "deal"
"""


@pytest.mark.parametrize(
    ("rounds", "platform"),
    [
        (1, "linux"),
        pytest.param(50, "linux", marks=pytest.mark.nightly),
        pytest.param(50, "portable", marks=pytest.mark.nightly),
    ],
)
def test_many_restarts_leave_no_process_no_descriptor_and_no_segment_behind(
    tmp_path: Path, rounds: int, platform: str
) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{supervisor}/fd").iterdir()))

    with Living(job(tmp_path, CROWD, 0, "run", platform=platform), feed=True) as run:
        supervisor = run.supervisor
        run.tell(*({"id": n} for n in range(20)))
        run.until(lambda: len(run.lines()) == 20)
        before_s = descriptors(), len(fleets.children_of(supervisor))
        for _ in range(rounds):
            pids = [agent.pid for agent in fleets.board_of(run.run).agents]
            kill(*pids)
            for _ in pids:
                run.note("brought back")
            for index, pid in enumerate(pids):
                run.pid(index, after=pid)
        assert (descriptors(), len(fleets.children_of(supervisor))) == before_s
        run.tell(*({"id": n + 20} for n in range(20)))
        summary = run.end()
    assert (summary["restarts"], summary["items_out"]) == (20 * rounds, 40)
    run.wait()
    # Everything that a run has a name for bears the pid of its supervisor; semaphores, too.
    left = [entry.name for entry in Path("/dev/shm").iterdir()]
    assert [name for name in left if f"-{supervisor}-" in name] == []
    comes_out(tmp_path, summary)


def test_a_run_that_died_before_anything_of_it_was_recorded_is_resumed(tmp_path: Path) -> None:
    plain = undisturbed(tmp_path, PACERS, 2)
    code = before(tmp_path, DIES_BEFORE_ITS_FIRST_ENTRY)
    with Living(job(tmp_path, PACERS, 2, "run"), before=code) as run:
        run.wait()
    same(tmp_path, plain, resume(tmp_path / "run").summary)
