"""Services as they are run: real processes, a fake service manager, everything killed once."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleets
import pytest
from living import kill
from serving import Serving

from lockstep.engine.errors import UsageError
from lockstep.workers import replay, verify
from lockstep.workers.job import Job
from lockstep.workers.service.asked import Asked
from lockstep.workers.service.client import Connection
from lockstep.workers.service.history import mark_of
from lockstep.workers.service.lane import Lane
from lockstep.workers.service.state import info_of

ASK = """
[fleet]
name = "asks"
seed = 3
[models.default]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
[agents.ask]
module = "GUESTS/asker.wasm"
input = "broadcast"
config = { tokens = 6, temperature = 0.9 }
"""
WAIT = """
[fleet]
name = "waits"
[agents.caller]
module = "GUESTS/caller.wasm"
input = "broadcast"
tools = ["wait"]
[tools.wait]
command = ["sleep", "infinity"]
timeout_ms = 600_000
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """Makes services in a folder of this test, and ends them."""
    made: list[Serving] = []

    def one(text: str, *args: str, watchdog_s: float = 0.0) -> Serving:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        service = Serving(folder, fleets.fleet(folder, text), *args, watchdog_s=watchdog_s)
        made.append(service)
        return service

    yield one
    for service in made:
        service.__exit__()


def outputs(service: Serving) -> list[Any]:
    """Ids of the output lines of all runs, run by run."""
    files = sorted((service.state / "runs").glob("*/output.jsonl"))
    return [json.loads(line)["id"] for file in files for line in file.read_text().splitlines()]


def test_an_item_is_answered_once_however_often_it_is_asked_for(place: Any) -> None:
    service = place(fleets.ECHO).start()
    first = service.submit({"id": "a", "n": 1}, wait=True)
    assert first["answer"][0]["id"] == "a" and not first["again"] and first["item"] == 1
    again = service.submit({"n": 1, "id": "a"}, wait=True)
    assert again["code"] == "other"  # Another line: it is not the same item.
    again = service.submit({"id": "a", "n": 1}, wait=True)
    assert again == {**first, "again": True}
    assert service.submit({"id": "a", "n": 1}) == {
        key: value for key, value in again.items() if key != "answer"
    }
    nameless = service.submit({"n": 2}, wait=True)
    assert nameless["id"] == "echo-1/2" and nameless["answer"][0]["id"] == "echo-1/2"
    assert service.drain() == 0
    assert outputs(service) == ["a", "echo-1/2"]
    assert verify(service.state / "runs" / "echo-1").equal


def test_the_service_manager_hears_how_it_is_and_not_when_the_loop_is_stuck(place: Any) -> None:
    service = place(fleets.ECHO, watchdog_s=0.4).start()
    manager = service.manager
    manager.until("WATCHDOG=1")
    assert "STATUS=ready: 0 items wait, 0 answered" in manager.said
    began = manager.said[: manager.said.index("READY=1")]
    assert "WATCHDOG=1" not in began
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in began)  # It got on.
    supervisor = service.run("echo-1")["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    began_s = service.status()["uptime_s"]
    manager.hear()
    service.wait(lambda: service.status()["uptime_s"] > began_s + 2)  # Five time-outs.
    # A pong that was on its way may count for one.
    assert manager.hear().count("WATCHDOG=1") <= 1
    os.kill(supervisor, signal.SIGCONT)
    manager.until("WATCHDOG=1")
    assert service.stop() == 0
    assert "STOPPING=1" in manager.hear()


def test_what_was_killed_goes_on_and_nothing_accepted_is_lost_or_done_twice(place: Any) -> None:
    service = place(ASK).start()
    items = [{"id": f"q{n}", "text": f"say {n}"} for n in range(24)]
    known: dict[str, Any] = {}

    def ask(item: dict[str, Any]) -> None:
        receipt = service.submit(item)
        assert receipt["ok"] and not receipt["again"]
        known[item["id"]] = receipt

    for item in items[:8]:
        ask(item)
    service.kill()  # The service: its supervisor stops by itself.
    service.start()
    for item in items[8:16]:
        ask(item)
    kill(service.run("asks-1")["pid"])
    for item in items[16:]:
        ask(item)
    top = fleets.board_of(service.state / "current")
    kill(top.engine.pid)
    service.kill()
    service.start()
    for item in items:
        answer = service.submit(item, wait=True)
        receipt = {key: answer[key] for key in known[item["id"]]}
        assert receipt == {**known[item["id"]], "again": True}
        assert [line["id"] for line in answer["answer"]] == [item["id"]]
    load = service.status()["load"]
    assert load["rows_max"] == 16 and list(load["stall_s"]) == ["ask"]
    assert service.drain() == 0
    run = service.state / "runs" / "asks-1"
    assert sorted(outputs(service)) == sorted(item["id"] for item in items)
    verified = verify(run)
    assert verified.equal
    assert replay(run).digest == json.loads((run / "summary.json").read_text())["digest"]


def test_a_stopped_service_leaves_its_items_to_its_next_start(place: Any) -> None:
    service = place(WAIT, "--stop-s", "0").start()
    with service.connect() as client:
        client.tell({"do": "submit", "item": {"id": "a"}, "wait": True})
        service.wait(lambda: service.status()["accepted"] == 1)
        assert service.stop() == 0
        stopped = client.hear()
    assert stopped["code"] == "stopped" and stopped["id"] == "a"
    service.start()
    assert service.run("waits-1")["waiting"] == 1
    assert info_of(service.state)["run"] == service.status()["run"] is not None
    cancelled = service.ask(do="cancel", item="a", by="ann")
    assert cancelled["ok"]
    answer = service.submit({"id": "a"}, wait=True)
    assert answer["again"] and answer["answer"] == [{"id": "a", "error": "cancelled by ann"}]
    assert service.drain() == 0
    assert verify(service.state / "runs" / "waits-1").equal


def test_the_record_says_which_items_had_arrived_when_a_supervisor_died(place: Any) -> None:
    service = place(fleets.ECHO).start()
    for id in ("a", "b"):
        service.submit({"id": id}, wait=True)
    assert service.drain() == 0
    heard: list[tuple[str, str]] = []

    class Owner:
        def accepted(self, asked: Asked) -> None:
            heard.append(("accepted", f"{asked.id} {asked.number} {asked.event}"))

        def answered(self, asked: Asked, lines: bytes) -> None:
            heard.append(("answered", f"{asked.id} {json.loads(lines)['agent']}"))

    lane = Lane(Owner(), Job(fleet="", base=""))  # type: ignore[arg-type]
    lane.folder = service.state / "runs" / "echo-1"
    # What was refused, and what never arrived, stand between those that did.
    for line in (b"no item", b'{"id":"a"}', b'{"id":"late"}', b'{"id":"b"}', b'{"id":"c"}'):
        lane.submit(Asked(f"{line!r}", mark_of(line), "", lane, line))
    lane.answers.add(9, b'{"id":"given early"}')
    assert lane._take_stock()
    assert lane.answers.get(9) == b'{"id":"given early"}'
    assert [what for what, _ in heard] == ["accepted", "accepted", "answered", "answered"]
    assert [text.split()[-2:] for what, text in heard if what == "accepted"] == [
        ["1", "1"],
        ["2", "2"],
    ]
    assert [one.line for one in lane.pending] == [b"no item", b'{"id":"late"}', b'{"id":"c"}']


def test_a_run_that_cannot_go_on_is_kept_and_another_takes_what_comes(place: Any) -> None:
    service = place(WAIT).start()
    service.submit({"id": "a"})
    service.kill()
    run = service.state / "runs" / "waits-1"
    # Somebody laid hands on the run: it is not what was recorded any more.
    (run / "modules" / "caller.wasm").write_bytes((fleets.GUESTS / "echo.wasm").read_bytes())
    service.start()
    stuck = service.run("waits-1")
    assert stuck["state"] == "stuck" and "is not what was run" in stuck["why"]
    assert stuck["waiting"] == 1 and service.status()["waiting"] == 0  # It takes nobody's room.
    assert service.submit({"id": "a"}, wait=True)["code"] == "stuck"
    assert service.ask(do="cancel", item="a")["code"] == "stuck"  # Not "later": nobody can tell.
    assert service.submit({"id": "b"})["run"] == "waits-2"
    assert service.ask(do="cancel", item="b")["ok"]
    service.ask(do="drain")
    assert service.process.wait() == 3  # Not everything that was accepted could be finished.
    assert "runs that could not be finished: waits-1" in service.log.read_text()
    assert run.exists()


def test_a_live_run_that_is_taken_away_is_told_of_and_the_service_goes_on(place: Any) -> None:
    service = place(WAIT, "--stop-s", "0").start()
    with service.connect() as client:
        client.tell({"do": "submit", "item": {"id": "a"}, "wait": True})
        service.wait(lambda: service.status()["accepted"] == 1)
        shutil.rmtree(service.state / "runs" / "waits-1")
        lost = client.hear()
    assert lost["code"] == "lost" and "its folder was removed, or moved away" in lost["error"]
    assert "waits-1 is lost" in service.log.read_text()
    again = service.submit({"id": "a"})
    assert again["run"] == "waits-2" and not again["again"]
    assert [run["run"] for run in service.status()["runs"]] == ["waits-2"]
    assert service.status()["waiting"] == 1
    service.stop()


def test_a_second_signal_stops_at_once_what_a_first_one_waits_for(place: Any) -> None:
    service = place(WAIT, "--stop-s", "600").start()
    service.submit({"id": "a"})
    service.process.send_signal(signal.SIGTERM)
    service.manager.until("STOPPING=1")
    refused = service.submit({"id": "b"})
    assert refused["code"] == "stopping"
    assert service.stop() == 0


def test_too_much_is_refused_with_numbers_and_nothing_is_dropped(place: Any) -> None:
    service = place(WAIT, "--waiting-max", "3", "--client-max", "2").start()
    assert service.submit({"id": "a"}, client="ann")["ok"]
    assert service.submit({"id": "b"}, client="ann")["ok"]
    busy = service.submit({"id": "c"}, client="ann")
    assert busy.pop("retry_after_s") > 0
    assert busy == {
        "error": "busy: too many items of client 'ann' wait for their answer; nothing was taken",
        "code": "busy",
        "waiting": 2,
        "waiting_max": 3,
        "client": "ann",
        "client_waiting": 2,
        "client_waiting_max": 2,
    }
    assert service.submit({"id": "c"}, client="ben")["ok"]
    assert "in all" in service.submit({"id": "d"}, client="cat")["error"]
    assert service.submit({"id": "a"}, client="ann")[
        "again"
    ]  # What was taken is no matter of room.
    assert service.status()["clients"] == {"ann": 2, "ben": 1}
    service.ask(do="cancel", item="a")
    assert service.submit({"id": "a"}, wait=True)["answer"]
    assert service.submit({"id": "d"}, client="cat")["ok"]


def test_a_reload_gives_new_items_to_the_new_fleet_and_old_ones_stay(place: Any) -> None:
    service = place(WAIT).start()
    service.submit({"id": "old"})
    service.fleet.write_text("nonsense")
    service.process.send_signal(signal.SIGHUP)
    service.manager.until("RELOADING=1")
    service.manager.until("READY=1")
    assert "refused; the old one goes on" in service.log.read_text()
    assert service.submit({"id": "still"})["run"] == "waits-1"
    fleets.fleet(service.folder, fleets.ECHO)
    service.process.send_signal(signal.SIGHUP)
    service.manager.until("READY=1")
    new = service.submit({"id": "new"}, wait=True)
    assert new["run"] == "echo-2" and new["answer"][0]["agent"] == "echo"
    assert service.run("waits-1") | {"pid": 0, "progress": {}} == {
        "run": "waits-1", "state": "live", "pid": 0, "items": 2, "waiting": 2, "closing": True,
        "why": "", "progress": {},
    }  # fmt: skip
    service.kill()
    service.start()  # The old run finishes its own, the new one takes what comes.
    assert service.submit({"id": "newer"}, wait=True)["run"] == "echo-2"
    for id in ("old", "still"):
        assert service.ask(do="cancel", item=id)["ok"]
    service.wait(lambda: service.run("waits-1")["state"] == "ended")
    assert service.drain() == 0
    assert all(verify(run).equal for run in (service.state / "runs").iterdir())


def test_a_full_run_is_followed_by_another_and_old_ones_are_removed(place: Any) -> None:
    service = place(fleets.ECHO, "--run-items-max", "2", "--keep-runs", "1").start()
    for n in range(6):
        answer = service.submit({"id": n}, wait=True)
        assert answer["answer"][0]["id"] == n
        full = f"echo-{n // 2 + 1}"
        if n % 2:
            service.wait(lambda full=full: service.status()["run"].endswith(full) is False)
    service.wait(lambda: len(service.status()["runs"]) == 2)
    runs = service.status()["runs"]
    assert [(run["run"], run["state"]) for run in runs] == [("echo-3", "ended"), ("echo-4", "live")]
    status = service.status()
    assert (
        status["runs_begun"] == 4 and status["done"]["turns"] >= 6
    )  # Also of those that are gone.
    assert sorted(path.name for path in (service.state / "runs").iterdir()) == ["echo-3", "echo-4"]
    assert service.submit({"id": 5}, wait=True)["again"]
    assert not service.submit({"id": 0}, wait=True)["again"]  # Its run is gone, and it with it.


def test_what_cannot_be_served_is_refused_before_anything_is_made(place: Any) -> None:
    deaf = place(fleets.ECHO.replace('input = "broadcast"', "")).begin()
    assert deaf.process.wait() == 2
    assert "no [agents.NAME] has input" in deaf.log.read_text() and not deaf.state.exists()
    taken = place(f'{fleets.ECHO}[sources.service]\nkind = "stdin"\n').begin()
    assert taken.process.wait() == 2
    assert "[sources.service] is what a service adds" in taken.log.read_text()


def test_a_state_folder_has_one_service(place: Any) -> None:
    service = place(fleets.ECHO).start()
    second = Serving.__new__(Serving)
    second.__dict__.update(service.__dict__)
    second.begin()
    assert second.process.wait() == 2
    assert f"process {service.process.pid} is this service already" in service.log.read_text()
    assert service.submit({"id": "a"}, wait=True)["answer"]


def test_a_socket_has_one_service(place: Any, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir(mode=0o700)
    first = place(fleets.ECHO, "--socket-dir", str(tmp_path / "sockets")).start()
    second = place(fleets.ECHO, "--socket-dir", str(tmp_path / "sockets")).begin()
    assert second.process.wait() == 2
    assert "sockets/control.sock: cannot listen: Address already in use" in second.log.read_text()
    assert first.submit({"id": "a"}, wait=True)["answer"]


def test_nonsense_is_refused_in_one_line_and_the_service_goes_on(place: Any) -> None:
    service = place(fleets.ECHO).start()
    with service.connect() as client:
        for line, expected in (
            (b"{", "not valid"),
            (b"[]", "expected a JSON object"),
            (b'{"do": "sumbit"}', "did you mean 'submit'"),
            (b'{"do": "submit", "itme": {}}', "did you mean 'item'"),
            (b'{"do": "submit", "item": 5}', "expected a JSON object"),
            (b'{"do": "submit", "item": {"id": [1]}}', "expected a string or an integer"),
            (b'{"do": "submit", "item": {}, "wait": 1}', "expected bool"),
            (b'{"do": "cancel"}', "expected item or ticket"),
            (b'{"do": "cancel", "item": "z"}', 'no item has the id "z"'),
            (b'{"do": "submit", "item": {"t": "%b"}}' % (b"x" * 70_000), "at most"),
        ):
            client.socket.sendall(line + b"\n")
            assert expected in client.hear()["error"]
    assert "not UTF-8" in service.submit({"id": "half \ud83d"})["error"]
    assert service.submit({"id": "fits", "text": "\U0001f600" * 16_000}, wait=True)["answer"]
    service.wait(lambda: service.status()["state"] == "ready")


def test_who_asks_where_nobody_serves_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no service has this as its state"):
        Connection(tmp_path)
