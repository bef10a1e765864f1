"""The inlet: a service's end of a run, line by line."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.engine.items import InputItem
from lockstep.workers.outside.feed import Feed
from lockstep.workers.outside.ids import ItemIds
from lockstep.workers.outside.inlet import SERVICE, Inlet, with_inlet
from lockstep.workers.outside.lines import Answer

FLEET = b"""
[fleet]
record_bytes_max = 1024
[agents.a]
module = "a.wasm"
input = "deal"
"""


class Made:
    """An inlet, and the service at its other end."""

    def __init__(self, intake: Any) -> None:
        fleet = parse(FLEET, "f")
        self.fleet = parse(with_inlet(FLEET, fleet, "f"), "f")
        ours, theirs = socket.socketpair()
        self.service = ours
        ours.setblocking(False)
        self.commands: list[bytes] = []
        ids = ItemIds([InputItem("first", b"")])
        (source,) = self.fleet.sources
        self.feed = Feed(0, source, [], 992, intake.gate, ids, ids)  # type: ignore[arg-type]
        self.inlet = Inlet(intake.loop, self.feed, theirs.detach(), self._command, lambda: (7, 2))
        self._loop = intake.loop

    def _command(self, line: bytes, answer: Answer) -> None:
        self.commands.append(line)
        answer.give({"ok": True})

    def say(self, *lines: bytes) -> None:
        self.service.sendall(b"".join(line + b"\n" for line in lines))
        self._loop.turn(0.0)

    def heard(self) -> list[Any]:
        self._loop.turn(0.0)
        try:
            return [json.loads(line) for line in self.service.recv(1 << 16).splitlines()]
        except BlockingIOError:
            return []


@pytest.fixture
def made(intake: Any) -> Iterator[Made]:
    one = Made(intake)
    yield one
    one.inlet.end()
    one.service.close()


def test_items_are_answered_when_they_are_recorded_and_in_their_order(
    made: Made, intake: Any
) -> None:
    made.say(b'+{"id": "a"}', b"+nonsense", b"?", b'{"do": "cancel"}')
    assert made.heard() == []  # The first is not promised yet, and the others stand behind it.
    intake.pump()
    first, second, third, fourth = made.heard()
    assert first == {"ok": True, "event": 1, "tag": first["tag"], "item": 2}
    assert "not valid JSON" in second["error"]
    assert third == {"ok": True, "step": 7, "rows": 2}
    assert fourth == {"ok": True} and made.commands == [b'{"do": "cancel"}']


def test_ends_of_items_are_told_unasked(made: Made) -> None:
    made.inlet.closed(7, [b'{"id":"a"}', b'{"id":"a","n":1}'])
    made.inlet.closed(8, [])
    assert made.heard() == [
        {"closed": 7, "lines": [{"id": "a"}, {"id": "a", "n": 1}]},
        {"closed": 8, "lines": []},
    ]


def test_a_closed_source_takes_nothing_and_still_tells(made: Made) -> None:
    made.feed.closed = True
    made.say(b'+{"id": "a"}')
    made.inlet.closed(1, [])
    assert made.heard() == [
        {"error": "source service is closed"},
        {"closed": 1, "lines": []},
    ]


def test_of_a_run_that_is_over_nothing_is_said_that_may_be_wrong(made: Made, intake: Any) -> None:
    made.say(b'+{"id": "a"}')
    intake.gate.close()
    assert made.heard() == []  # Its record says whether the item is in it.


def test_a_fleet_has_one_service(made: Made) -> None:
    assert made.fleet.sources[-1].name == SERVICE
    with pytest.raises(UsageError, match=r"\[sources\.service\] is what a service adds"):
        with_inlet(b"", made.fleet, "f")
