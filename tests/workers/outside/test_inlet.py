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
from lockstep.engine.outside import What
from lockstep.workers.outside.caller import with_caller
from lockstep.workers.outside.feed import Feed
from lockstep.workers.outside.ids import ItemIds
from lockstep.workers.outside.inlet import SERVICE, Inlet, with_inlet
from lockstep.workers.outside.lines import Answer
from lockstep.workers.outside.tokens import Told

FLEET = b"""
[fleet]
record_bytes_max = 1024
[agents.a]
module = "a.wasm"
input = "deal"
"""


CALLED = b"""
[schedule]
items_in_flight_max = 32
[models.m]
path = "m"
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
        self.followed: list[int] = []
        self.inlet = Inlet(
            intake.loop, self.feed, theirs.detach(), self._command, lambda: (7, 2),
            self.followed.append,
        )  # fmt: skip
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


def test_calls_are_events_of_their_own_and_some_are_followed(made: Made, intake: Any) -> None:
    made.say(b'+{"id": "a"}', b'@{"id": "b"}', b'*{"id": "c"}', b'*{"id": "a"}')
    intake.pump()
    *taken, again = made.heard()
    assert [each["item"] for each in taken] == [2, 3, 4] and "that of item 2" in again["error"]
    assert [event.what for event in intake.events] == [What.ITEM, What.CALL, What.CALL]
    assert made.followed == [4]
    made.inlet.tokens(Told(4, 7, [1031, 9]))
    assert made.heard() == [{"tokens": 4, "at": 7, "ids": [1031, 9]}]


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


def test_who_takes_calls_is_added_with_room_for_all_that_is_in_flight() -> None:
    fleet = parse(with_caller(CALLED, "f"), "f")
    (group,) = fleet.groups
    assert fleet.caller is group and group.name == "caller" and group.module == "lockstep:calls"
    assert group.turn_out_bytes_max >= 32 * fleet.record_bytes_max
    assert [each.name for each in parse(with_caller(FLEET, "f"), "f").routed.groups] == ["a"]


def test_an_agent_of_that_name_is_refused_and_what_is_no_fleet_file_left_to_its_reader() -> None:
    with pytest.raises(UsageError, match=r"f: \[agents.caller\] is what"):
        with_caller(FLEET.replace(b"agents.a", b"agents.caller"), "f")
    for data in (b"[", b"\xff", b"agents = 1", b"fleet = 1", b"[fleet]\nrecord_bytes_max = 'x'"):
        assert with_caller(data, "f") == data


def test_a_file_without_a_sensible_bound_is_left_to_who_reads_it() -> None:
    data = b"[schedule]\nitems_in_flight_max = inf\n"
    assert with_caller(data, "fleet.toml") == data
