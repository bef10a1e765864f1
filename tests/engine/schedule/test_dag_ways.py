"""Dag: joins of some, edges that an agent chooses, and ways that nobody takes."""

from typing import Any

import pytest

from lockstep.engine.record import PEER_NONE

DAG = "policy = 'dag'"
ROUTER = """
router
cheap after = ['router']
dear after = ['router']
answer after = ['cheap', 'dear']
"""


def emit(schedule: Any, agent: int, payload: bytes, peer: int = PEER_NONE, item: int = 1) -> None:
    assert schedule.may_emit(agent, item, peer, False) == ""
    schedule.emitted(agent, item, payload, peer)


@pytest.mark.parametrize("join", ["'any'", "1"])
def test_a_join_of_any_is_woken_by_the_first_alone(routed: Any, join: str) -> None:
    schedule, host = routed(DAG, f"a replicas = 3\nb after = ['a']; join = {join}")
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 1, b"first")
    assert host.log() == [(3, 1, b"first", 1, 0)]
    # The others lost a race: what they emit is legal and wakes nobody.
    emit(schedule, 0, b"late")
    assert host.log() == []
    assert schedule.holders(1) == [2, 3]
    emit(schedule, 3, b"out")
    assert host.log() == [("finished", 1, (3, b"out"))]


def test_a_join_of_some_gets_those_that_were_first_in_file_order(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 2\nb\nc after = ['b', 'a']; join = 2")
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 2, b"B")
    assert host.log() == []
    emit(schedule, 0, b"A")
    assert host.log() == [(3, 1, b"A", 0, 0), (3, 1, b"B", 2, 0)]


def test_an_emit_that_names_a_successor_goes_there_only(routed: Any) -> None:
    schedule, host = routed(DAG, ROUTER)
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 0, b"R", peer=2)
    assert host.log() == [(2, 1, b"R", 0, 0)]
    assert schedule.holders(1) == [2]
    assert schedule.may_emit(1, 1, PEER_NONE, False) == "the agent was not given it yet"
    # Who was passed over is not waited for.
    emit(schedule, 2, b"D")
    assert host.log() == [(3, 1, b"D", 2, 0)]
    emit(schedule, 3, b"out")
    assert host.log() == [("finished", 1, (3, b"out"))]


def test_an_emit_that_names_nobody_goes_to_every_successor(routed: Any) -> None:
    schedule, host = routed(DAG, ROUTER)
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 0, b"R")
    assert host.log() == [(1, 1, b"R", 0, 0), (2, 1, b"R", 0, 0)]


def test_naming_any_replica_names_the_group(routed: Any) -> None:
    for peer in (1, 2):
        schedule, host = routed(DAG, "a\nb after = ['a']; replicas = 2; input = 'deal'")
        schedule.admit(1, b"in")
        schedule.admit(2, b"in")
        host.log()
        emit(schedule, 0, b"x", peer)
        emit(schedule, 0, b"y", peer, item=2)
        assert host.log() == [(1, 1, b"x", 0, 0), (2, 2, b"y", 0, 0)]


@pytest.mark.parametrize(
    ("agent", "peer", "why"),
    [
        (
            0,
            3,
            "answer does not come after router, and is not in its back; it can go to cheap, dear",
        ),
        (
            0,
            0,
            "router does not come after router, and is not in its back; it can go to cheap, dear",
        ),
        (3, 0, "router does not come after answer, and is not in its back; it can go to nobody"),
    ],
)
def test_naming_who_is_no_successor_is_refused(
    routed: Any, agent: int, peer: int, why: str
) -> None:
    schedule, _ = routed(DAG, ROUTER)
    schedule.admit(1, b"in")
    if agent == 3:
        emit(schedule, 0, b"")
        emit(schedule, 1, b"")
        emit(schedule, 2, b"")
    assert schedule.may_emit(agent, 1, peer, False) == why


def test_a_way_that_nobody_takes_is_skipped_to_its_end(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        a
        b after = ['a']
        b2 after = ['b']
        b3 after = ['b2']
        c after = ['a']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 0, b"A", peer=4)
    host.log()
    emit(schedule, 4, b"C")
    # An end that was passed over gives no output, and holds nothing up.
    assert host.log() == [("finished", 1, (4, b"C"))]


def test_a_skipped_way_completes_a_join_that_waited_for_it(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        a
        fast
        b after = ['a']
        c after = ['a']
        j after = ['fast', 'b']
        """,
    )
    schedule.admit(1, b"in")
    emit(schedule, 1, b"F")
    host.log()
    emit(schedule, 0, b"A", peer=3)
    assert host.log() == [(3, 1, b"A", 0, 0), (4, 1, b"F", 1, 0)]


def test_replicas_may_choose_different_ways(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 3\nb after = ['a']\nc after = ['a']")
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 2, b"2", peer=4)
    emit(schedule, 0, b"0")
    assert host.log() == []
    emit(schedule, 1, b"1", peer=3)
    assert host.log() == [
        (3, 1, b"0", 0, 0),
        (3, 1, b"1", 1, 0),
        (4, 1, b"0", 0, 0),
        (4, 1, b"2", 2, 0),
    ]


def test_a_join_that_cannot_be_reached_any_more_is_skipped_at_once(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 3\nb after = ['a']; join = 2\nc after = ['a']")
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 0, b"0", peer=4)
    emit(schedule, 1, b"1", peer=4)
    assert schedule.holders(1) == [2]
    emit(schedule, 2, b"2")  # b can have one EMIT at most, and needs two.
    assert host.log() == [(4, 1, b"%d" % n, n, 0) for n in range(3)]
    emit(schedule, 4, b"out")
    assert host.log() == [("finished", 1, (4, b"out"))]


def test_an_item_without_an_end_to_go_to_fails(routed: Any) -> None:
    schedule, host = routed(
        DAG,
        """
        a replicas = 2
        b after = ['a']; join = 2
        c after = ['a']; join = 2
        """,
    )
    schedule.admit(1, b"in")
    host.log()
    emit(schedule, 0, b"0", peer=2)
    emit(schedule, 1, b"1", peer=3)
    assert host.log() == [
        ("failed", 1, "no agent was left to give its output: nobody sent it to b, c")
    ]


def test_nothing_is_kept_of_an_item_that_is_over(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 2; input = 'deal'; retries = 2\nb after = ['a']")
    schedule.admit(1, b"in")
    schedule.gave_up(0, 1, "tired")
    host.dead = [0]
    assert schedule.member_ended(0, 1)
    assert schedule.holders(1) == [1]
    schedule.forget(1)
    host.dead = []
    schedule.admit(1, b"again")  # Dealt as ever, with all its retries and no memory.
    host.log()
    schedule.gave_up(0, 1, "tired")
    assert host.log() == [(0, 1, b"again", PEER_NONE, 1)]
