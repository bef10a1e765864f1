"""Dag: joins in file order, deal and broadcast, several sinks, failing predecessors."""

from itertools import permutations
from typing import Any

import pytest

from lockstep.engine.record import PEER_NONE

DAG = "policy = 'dag'"
DIAMOND = """
a
b after = ['a']
c after = ['a']
d after = ['c', 'b']
"""
VOTE = """
solver replicas = 3
judge after = ['solver']
"""


def emit(schedule: Any, agent: int, item: int, payload: bytes) -> None:
    assert schedule.may_emit(agent, item, PEER_NONE, False) == ""
    schedule.emitted(agent, item, payload, PEER_NONE)


def test_an_item_walks_a_diamond_and_a_join_comes_in_file_order(routed: Any) -> None:
    schedule, host = routed(DAG, DIAMOND)
    schedule.admit(1, b"in")
    assert host.log() == [(0, 1, b"in", PEER_NONE, 0)]
    emit(schedule, 0, 1, b"A")
    assert host.log() == [(1, 1, b"A", 0, 0), (2, 1, b"A", 0, 0)]
    assert schedule.holders(1) == [1, 2]
    emit(schedule, 2, 1, b"C")
    assert host.log() == []
    assert schedule.holders(1) == [1]
    emit(schedule, 1, 1, b"B")
    # File order, not the order of `after`, nor of emission.
    assert host.log() == [(3, 1, b"B", 1, 0), (3, 1, b"C", 2, 0)]
    emit(schedule, 3, 1, b"D")
    assert host.log() == [("finished", 1, (3, b"D"))]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_replicas_are_joined_in_order_of_replica(routed: Any, order: tuple[int, ...]) -> None:
    schedule, host = routed(DAG, VOTE)
    schedule.admit(1, b"in")
    assert host.log() == [(agent, 1, b"in", PEER_NONE, 0) for agent in range(3)]
    for agent in order:
        emit(schedule, agent, 1, b"%d" % agent)
    assert host.log() == [(3, 1, b"%d" % agent, agent, 0) for agent in range(3)]


def test_dealt_items_have_one_replica_each(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 2; input = 'deal'\nb after = ['a']")
    for item in (1, 2, 3):
        schedule.admit(item, b"")
    assert [(agent, item) for agent, item, *_ in host.log()] == [(0, 1), (1, 2), (0, 3)]
    assert schedule.may_emit(1, 1, PEER_NONE, False) == "the item was dealt to another replica"
    emit(schedule, 1, 2, b"x")
    assert host.log() == [(2, 2, b"x", 1, 0)]
    assert schedule.holders(2) == [2]


def test_a_successor_can_be_dealt_to(routed: Any) -> None:
    schedule, host = routed(DAG, "a\nb after = ['a']; replicas = 2; input = 'deal'")
    for item in (1, 2):
        schedule.admit(item, b"")
    host.log()
    emit(schedule, 0, 2, b"x")
    emit(schedule, 0, 1, b"y")
    assert host.log() == [(2, 2, b"x", 0, 0), (1, 1, b"y", 0, 0)]
    emit(schedule, 2, 2, b"z")
    assert host.log() == [("finished", 2, (2, b"z"))]


def test_several_sinks_finish_an_item_together_in_file_order(routed: Any) -> None:
    schedule, host = routed(DAG, "a\nb after = ['a']; replicas = 2\nc after = ['a']\nd")
    schedule.admit(1, b"in")
    emit(schedule, 0, 1, b"A")
    host.log()
    for agent in (3, 2, 4):
        emit(schedule, agent, 1, b"%d" % agent)
        assert host.log() == []
    assert schedule.holders(1) == [1]
    emit(schedule, 1, 1, b"1")
    assert host.log() == [("finished", 1, (1, b"1"), (2, b"2"), (3, b"3"), (4, b"4"))]


def test_an_emit_is_refused_before_the_item_came_and_after_the_first(routed: Any) -> None:
    schedule, _ = routed(DAG, DIAMOND)
    schedule.admit(1, b"in")
    assert schedule.may_emit(1, 1, PEER_NONE, False) == "the agent was not given it yet"
    emit(schedule, 0, 1, b"A")
    assert schedule.may_emit(0, 1, PEER_NONE, False) == "a second EMIT for it"
    assert schedule.may_emit(1, 1, PEER_NONE, False) == ""
    assert schedule.may_finish(0, 1) == "DONE for one item is for round-robin"


def test_a_receiver_that_has_ended_fails_the_item_and_the_others_go_on(routed: Any) -> None:
    schedule, host = routed(DAG, DIAMOND)
    schedule.admit(1, b"in")
    schedule.admit(2, b"in")
    host.log()
    host.dead = [1]
    emit(schedule, 0, 1, b"A")
    assert ("failed", 1, "dead") in host.log()
    assert schedule.holders(2) == [0]
