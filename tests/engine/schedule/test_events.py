"""Events: who gets an item is told, the first EMIT finishes it."""

from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.engine.record import PEER_NONE
from lockstep.engine.schedule import make


def test_an_item_goes_to_every_agent_with_input(routed: Any) -> None:
    schedule, host = routed("", "a input = 'broadcast'; replicas = 2\nb\nc input = 'broadcast'")
    schedule.admit(1, b"x")
    assert host.log() == [(agent, 1, b"x", PEER_NONE, 0) for agent in (0, 1, 3)]
    assert schedule.holders(1) == [0, 1, 3]


def test_dealt_items_go_round_the_replicas(routed: Any) -> None:
    schedule, host = routed("", "a input = 'deal'; replicas = 3\nb input = 'broadcast'")
    for item in range(1, 5):
        schedule.admit(item, b"")
    got = [(agent, item) for agent, item, *_ in host.log()]
    assert got == [(0, 1), (3, 1), (1, 2), (3, 2), (2, 3), (3, 3), (0, 4), (3, 4)]


def test_the_first_emit_finishes_an_item_whoever_says_it(routed: Any) -> None:
    schedule, host = routed("", "a input = 'broadcast'\nb")
    schedule.admit(1, b"x")
    host.log()
    assert schedule.may_emit(1, 1, PEER_NONE, False) == ""
    schedule.emitted(1, 1, b"y", PEER_NONE)
    assert host.log() == [("finished", 1, (1, b"y"))]
    assert schedule.holders(1) == []


def test_done_for_one_item_is_refused(routed: Any) -> None:
    schedule, _ = routed("", "a input = 'broadcast'")
    schedule.admit(1, b"x")
    assert schedule.may_finish(0, 1) == "DONE for one item is for round-robin"


def test_input_without_a_receiver_is_refused() -> None:
    fleet = parse(b"[agents.a]\nmodule = 'x'", "f.toml")
    make(fleet, None, False)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"there is input, but no \[agents.NAME\] has input ="):
        make(fleet, None, True)  # type: ignore[arg-type]


def test_a_receiver_that_has_ended_fails_the_item_once(routed: Any) -> None:
    schedule, host = routed("", "a input = 'broadcast'\nb input = 'broadcast'")
    host.dead = [0]
    schedule.admit(1, b"x")
    assert host.log()[0] == ("failed", 1, "dead")
