"""What a service decides: in this process, with runs brought into the state that is asked about."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleets
import pytest
from serving import Manager

from lockstep.engine.errors import EXIT_UNFINISHED
from lockstep.workers.job import Job
from lockstep.workers.outside.lines import Answer
from lockstep.workers.service import held, runs
from lockstep.workers.service.asked import Asked, Waiter
from lockstep.workers.service.daemon import Service
from lockstep.workers.service.lane import Lane
from lockstep.workers.service.options import Options
from lockstep.workers.service.state import Keep
from lockstep.workers.service.states import BACKOFF, ENDED, LIVE, STARTING, STUCK

SUBMIT = b'{"do": "submit", "item": {"id": "x"}, "wait": true}'


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


@pytest.fixture
def service(tmp_path: Path, manager: Manager) -> Iterator[Service]:
    """One without a run, that keeps none which has ended."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    options = Options(
        fleets.fleet(tmp_path, fleets.ECHO), tmp_path / "state", keep=Keep(runs=0, days=7)
    )
    made = Service(options, {"NOTIFY_SOCKET": manager.address})
    made._runs.recover(made._state, lambda: None)
    yield made
    made._stopping = True
    for lane in made._runs.lanes:
        lane.stop()
    while not made._runs.over:
        made.loop.turn()
    made._end()
    made.loop.close()
    signal.set_wakeup_fd(-1)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def lane_of(service: Service, name: str, state: str) -> Lane:
    """A run that nobody works at."""
    lane = Lane(service, Job(fleet="", base=""))
    lane.folder, lane.state = service._state.runs / name, state
    (lane.folder / "journal").mkdir(parents=True)
    lane.bare = False
    service._runs.lanes.append(lane)
    return lane


def ask(service: Service, line: bytes = SUBMIT) -> Answer:
    """A request; its answer comes in its time."""
    answer = Answer(lambda: None)
    service._desk.hear(line, answer)
    return answer


def until_given(service: Service, answer: Answer) -> Any:
    while answer.value is None:
        service.loop.turn()
    return answer.value


def test_a_new_run_that_dies_again_and_again_does_not_end_the_old_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = lane_of(service, "echo-1", LIVE), lane_of(service, "echo-2", BACKOFF)
    service._runs.current, service._runs._next = old, new
    new.exhausted = True
    new._stick("it died too often", EXIT_UNFINISHED)
    assert not service._done and service.lane() is old
    old.came = service._options.run_items_max
    service._runs.rotate()
    assert service._runs._next is None  # Not at each item that comes now.
    monkeypatch.setattr(runs, "PAUSE_S", 0.0)
    service._runs.rotate()
    assert service._runs._next is not None
    old.exhausted = True
    old._stick("the disk is full", EXIT_UNFINISHED)
    assert service._done and service._code == EXIT_UNFINISHED


def test_an_item_on_its_way_to_a_run_that_ends_is_answered_once_by_the_next(
    service: Service,
) -> None:
    service._runs.current = ended = lane_of(service, "echo-1", BACKOFF)
    first = ask(service)
    assert list(ended.pending)
    ended._leave(ENDED)  # It is removed at once.
    assert ended not in service._runs.lanes
    again = ask(service)
    assert b'"run": "echo-2", "item": 1,' in until_given(service, first)
    assert b'"run": "echo-2", "item": 1,' in until_given(service, again)


@pytest.mark.parametrize("state", [BACKOFF, STARTING])
def test_an_item_that_was_not_handed_in_is_dropped_when_it_is_cancelled(
    service: Service, state: str
) -> None:
    service._runs.current = lane = lane_of(service, "echo-1", state)
    answer = ask(service)
    (asked,) = lane.pending
    cancelled = ask(service, b'{"do": "cancel", "by": "ann", "item": %b}' % asked.id.encode())
    assert cancelled.value == {"ok": True, "event": None, "tag": None}
    assert "cancelled by ann before it was handed in" in until_given(service, answer)["error"]
    assert not lane.pending and lane.came == 0 and service._desk.occupancy.total == 0


def test_an_item_on_its_way_to_a_run_that_ends_is_refused_when_nothing_new_is_taken(
    service: Service,
) -> None:
    service._runs.current = ended = lane_of(service, "echo-1", BACKOFF)
    answer = ask(service)
    service._draining = True
    ended._leave(ENDED)
    assert "takes nothing new" in until_given(service, answer)["error"]
    assert service._done and service._desk.occupancy.total == 0


def test_an_item_on_its_way_to_the_only_run_is_refused_with_it(service: Service) -> None:
    service._runs._next = refused = lane_of(service, "echo-1", BACKOFF)
    answer = ask(service)
    refused.why, refused.exit_code = "no such model", 2
    refused._leave(STUCK)
    assert "no run takes items: no such model" in until_given(service, answer)["error"]
    assert service._done and service._code == 2 and service._desk.occupancy.total == 0


def test_what_was_on_its_way_to_a_run_that_cannot_be_read_takes_no_room(service: Service) -> None:
    service._runs.current = stuck = lane_of(service, "echo-1", BACKOFF)
    answer = ask(service)
    service._draining = True
    stuck._stick("the record is damaged", EXIT_UNFINISHED)
    assert until_given(service, answer)["code"] == "stuck"
    assert service._desk.occupancy.total == 0


def test_a_run_that_a_person_removed_is_forgotten(service: Service) -> None:
    for n, was in enumerate((ENDED, STUCK)):
        gone = lane_of(service, f"echo-{n}", was)
        assert gone.folder is not None
        gone.open[1] = Asked('"x"', b"", "", gone)  # Of the stuck one.
        gone.open = gone.open if was == STUCK else {}
        shutil.rmtree(gone.folder)
    service._runs.look()
    assert [lane.folder for lane in service._runs.lanes] == [None]  # One that takes new items.
    assert service._lost == []  # Whoever asked had heard that a person has to look.


def test_a_run_that_was_taken_away_while_it_was_live_is_told_of_and_followed(
    service: Service,
) -> None:
    service._runs.current = live = lane_of(service, "echo-1", LIVE)
    live.look()
    accepted, waiting = Asked('"old"', b"", "ann", live, number=1), Answer(lambda: None)
    accepted.waiters.append(Waiter(waiting, wait=True, again=False))
    live.open[1] = service._desk._asked[accepted.id] = accepted
    service._desk._enter(accepted)
    live.state = BACKOFF  # Its supervisor has just died: what comes has to wait.
    late = ask(service)
    assert live.folder is not None
    live.folder.rename(live.folder.with_name("aside"))
    (live.folder / "journal").mkdir(parents=True)  # Another one's, under the same name.
    service._runs.look()
    lost = waiting.value
    assert isinstance(lost, dict) and lost["code"] == "lost" and lost["id"] == "old"
    assert "run echo-1 is lost: its folder was removed" in lost["error"]
    # What was not in its record goes to the next run, and what was lost can be asked for again.
    assert b'"run": "echo-2", "item": 1,' in until_given(service, late)
    again = ask(service, b'{"do": "submit", "item": {"id": "old"}, "wait": true}')
    assert b'"again": false' in until_given(service, again)
    assert service._desk.occupancy.total == 0
    service.drain()
    while not service._done:
        service.loop.turn()
    assert service._code == EXIT_UNFINISHED and "could not be finished: echo-1" in service._why


def test_a_new_run_that_never_took_an_item_is_removed_when_it_is_refused(service: Service) -> None:
    old, new = lane_of(service, "echo-1", LIVE), lane_of(service, "echo-2", BACKOFF)
    service._runs.current, service._runs._next = old, new
    new.bare, new.exhausted = True, True
    new._stick("it died too often", EXIT_UNFINISHED)
    assert service._runs.lanes == [old] and service.lane() is old
    assert new.folder is not None and not new.folder.exists()
    assert service.status()["runs"][0]["run"] == "echo-1"


def test_a_supervisor_that_cannot_be_watched_is_ended_and_started_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    def full(pid: int) -> int:
        pids.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(held.os, "pidfd_open", full)
        answer = ask(service)  # Begins a run.
    (lane,) = service._runs.lanes
    assert lane.state == BACKOFF and lane.pid is None
    assert not Path(f"/proc/{pids[0]}").exists()
    assert b'"item": 1,' in until_given(service, answer)


def test_a_service_whose_state_folder_is_taken_away_ends_and_says_so(service: Service) -> None:
    service._state.path.rename(service._state.path.with_name("elsewhere"))
    service._runs.look()
    assert service._done and service._code == EXIT_UNFINISHED
    assert "the state folder was removed, or is another one now" in service._why


def test_no_run_is_begun_where_none_can_be_made(service: Service) -> None:
    shutil.rmtree(service._state.path)
    assert "no run takes items: " in until_given(service, ask(service))["error"]
    assert service._done and "no run can be begun: No such file" in service._why


def test_a_reload_says_ready_only_to_who_heard_it_before(
    service: Service, manager: Manager
) -> None:
    service._options.fleet.write_text("nonsense")
    manager.hear()
    service._reload()
    assert manager.hear() == []
    service._ready = True
    service._reload()
    said = manager.hear()
    assert said[0] == "RELOADING=1" and said[-1] == "READY=1"
