"""``lockstep service submit`` when it, or the service, ends before everything is answered."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lockstep.workers.service.client import ask

# A tool that ends at once, unless the item says that it waits.
SOME = """
[fleet]
name = "some"
[agents.caller]
module = "{guests}/caller.wasm"
input = "broadcast"
tools = ["some"]
[tools.some]
command = ["/bin/sh", "-c", "if grep -q wait; then exec sleep infinity; fi; echo 1"]
timeout_ms = 600_000
"""
ITEMS = '{"n": 1}\n{"n": 2, "text": "wait"}\n{"n": 3, "text": "wait"}\n'
SUBMIT = ("service", "submit", "s", "--input", "some.jsonl", "--ids")
TOLD = (
    "of 3 items 1 answered, 2 handed in and not answered; what was accepted goes on, and the same "
    "command asks again with --ids monday"
)

Process = subprocess.Popen[str]


class Service:
    """One service, through its lives."""

    def __init__(self, place: Any) -> None:
        self._place, self.started = place, list[Process]()
        place.write("some.toml", SOME)
        (place.path / "some.jsonl").write_text(ITEMS)

    def start(self) -> Process:
        """The service, ready; what it says is not kept."""
        process: Process = self._place.start("serve", "some.toml", "--state", "s", "--stop-s", "0")
        self.started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if " notice: ready" in line:
                return process
        raise AssertionError(process.communicate())

    def submit(self, ids: str, *more: str) -> Process:
        """A command that hands in its items."""
        process: Process = self._place.start(*SUBMIT, ids, *more)
        self.started.append(process)
        return process

    def until(self, waiting: int, answered: int) -> None:
        """Until the service has so many items; a time-out of the test ends a failure."""
        found: dict[str, Any] = {}
        while (found.get("waiting"), found.get("answered")) != (waiting, answered):
            found = ask(self._place.path / "s", {"do": "status"})

    def end(self) -> None:
        """Whatever is left of it."""
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def service(place: Any) -> Iterator[Service]:
    made = Service(place)
    yield made
    made.end()


def asked_again(place: Any) -> None:
    """Every item is known."""
    again = place.lockstep(*SUBMIT, "monday", "--no-wait", "--json")
    assert (again.code, again.json["unanswered"]) == (0, 0)
    assert [answer["again"] for answer in again.json["answers"]] == [True] * 3
    assert "error" not in again.json


def test_who_is_interrupted_keeps_what_came_and_hears_how_to_ask_again(
    place: Any, service: Service
) -> None:
    service.start()
    plain = service.submit("monday")
    service.until(waiting=2, answered=1)
    assert plain.stdout is not None
    first = json.loads(plain.stdout.readline())
    plain.send_signal(signal.SIGINT)
    out, err = plain.communicate()
    assert (first["id"], out, plain.returncode) == ("monday/1", "", 130)
    assert err == f"lockstep: error: interrupted: {TOLD}\n"
    whole = service.submit("tuesday", "--json")
    service.until(waiting=4, answered=2)
    whole.send_signal(signal.SIGTERM)
    found = json.loads(whole.communicate()[0])
    assert found["exit_code"] == whole.returncode == 130
    # It is not known whether it had read the answer that had come.
    assert len(found["answers"]) + found["unanswered"] == 3
    asked_again(place)
    items = ('{"id": "monday/1"}', '{"n": 4}')
    mixed = place.lockstep("service", "submit", "s", *items, "--no-wait", "--json")
    assert (mixed.code, mixed.json["refused"], mixed.json["unanswered"]) == (3, 1, 0)
    assert "is that of another item" in mixed.err and mixed.json["answers"][1]["ok"]


def test_when_the_service_goes_away_no_answer_is_lost(place: Any, service: Service) -> None:
    first = service.start()
    whole = service.submit("monday", "--json")
    service.until(waiting=2, answered=1)
    first.send_signal(signal.SIGTERM)
    out, err = whole.communicate()
    found = json.loads(out.splitlines()[-1])
    assert found["exit_code"] == whole.returncode == 3
    good, *open_ = found["answers"]
    assert good["id"] == "monday/1" and good["answer"][0]["id"] == "monday/1"
    assert [answer["code"] for answer in open_] == ["stopped"] * 2
    assert (found["failed"], found["refused"], found["unanswered"]) == (0, 0, 2)
    assert found["error"].endswith(TOLD) and err.strip().endswith(found["error"])
    second = service.start()
    plain = service.submit("monday")
    assert plain.stdout is not None
    assert json.loads(plain.stdout.readline())["id"] == "monday/1"
    second.kill()
    out, err = plain.communicate()
    assert (out, plain.returncode) == ("", 3)
    (line,) = err.splitlines()
    assert line.startswith("lockstep: error: s: the service went away") and line.endswith(TOLD)
    service.start()
    asked_again(place)


def test_where_nothing_was_handed_in_nothing_was_made(place: Any) -> None:
    found = place.lockstep("service", "submit", "s", '{"n": 1}', "--json")
    assert found.code == 2 and sorted(found.json) == ["error", "exit_code"]
