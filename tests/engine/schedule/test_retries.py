"""Retries: an item that was given up, or whose replica ended, is given again while it may be."""

from typing import Any

import pytest

from lockstep.engine.record import PEER_NONE

DAG = "policy = 'dag'"
ROUND_ROBIN = "policy = 'round-robin'\nrounds_max = 2"


def give_up(schedule: Any, agent: int, item: int, reason: str) -> None:
    assert schedule.may_emit(agent, item, PEER_NONE, True) == ""
    schedule.gave_up(agent, item, reason)


@pytest.mark.parametrize(
    ("policy", "given"), [(DAG, "retries = 2"), ("", "input = 'broadcast'; retries = 2")]
)
def test_an_item_is_given_again_until_no_retry_is_left(
    routed: Any, policy: str, given: str
) -> None:
    schedule, host = routed(policy, f"a {given}")
    schedule.admit(1, b"in")
    schedule.admit(2, b"in")
    host.log()
    for attempt in (1, 2):
        give_up(schedule, 0, 1, "tired")
        assert host.log() == [(0, 1, b"in", PEER_NONE, attempt)]
        assert schedule.holders(1) == [0]
    give_up(schedule, 0, 1, "really tired")
    assert host.log() == [("failed", 1, "really tired")]
    give_up(schedule, 0, 2, "tired")  # Each item has retries of its own.
    assert host.log() == [(0, 2, b"in", PEER_NONE, 1)]


@pytest.mark.parametrize(
    ("policy", "given"), [(DAG, ""), ("", "input = 'deal'"), (ROUND_ROBIN, "")]
)
def test_without_retries_an_item_that_is_given_up_fails_with_the_reason(
    routed: Any, policy: str, given: str
) -> None:
    schedule, host = routed(policy, f"a {given}")
    schedule.admit(1, b"in")
    host.log()
    give_up(schedule, 0, 1, "tired")
    assert host.log() == [("failed", 1, "tired")]


def test_a_join_is_given_again_as_a_whole(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 2\nb after = ['a']; retries = 1")
    schedule.admit(1, b"in")
    for agent in (1, 0):
        schedule.emitted(agent, 1, b"%d" % agent, PEER_NONE)
    host.log()
    give_up(schedule, 2, 1, "tired")
    assert host.log() == [(2, 1, b"0", 0, 1), (2, 1, b"1", 1, 1)]
    schedule.emitted(2, 1, b"out", PEER_NONE)
    assert host.log() == [("finished", 1, (2, b"out"))]


def test_replicas_share_the_retries_of_their_group(routed: Any) -> None:
    schedule, host = routed(DAG, "a replicas = 2; retries = 1")
    schedule.admit(1, b"in")
    host.log()
    give_up(schedule, 0, 1, "tired")
    assert host.log() == [(0, 1, b"in", PEER_NONE, 1)]  # Only who gave up.
    give_up(schedule, 1, 1, "tired, too")
    assert host.log() == [("failed", 1, "tired, too")]


def test_attempts_and_passes_are_counted_together(routed: Any) -> None:
    schedule, host = routed(DAG, "a retries = 1\nb after = ['a']; back = ['a']")
    schedule.admit(1, b"in")
    give_up(schedule, 0, 1, "tired")
    schedule.emitted(0, 1, b"x", PEER_NONE)
    host.log()
    schedule.emitted(1, 1, b"no", 0)
    assert host.log() == [(0, 1, b"no", 1, 2)]


def test_giving_up_names_nobody(routed: Any) -> None:
    schedule, _ = routed(DAG, "a\nb after = ['a']")
    schedule.admit(1, b"in")
    assert schedule.may_emit(0, 1, 1, True) == "an agent that gives it up sends it to nobody"


@pytest.mark.parametrize(("policy", "given"), [("", "input = 'deal'"), (ROUND_ROBIN, "")])
def test_naming_a_successor_is_for_dags(routed: Any, policy: str, given: str) -> None:
    schedule, _ = routed(policy, f"a {given}\nb")
    schedule.admit(1, b"in")
    assert schedule.may_emit(0, 1, 1, False) == (
        'naming a successor is for [schedule] policy = "dag"'
    )


def test_who_was_only_written_to_has_the_item_begun_anew(routed: Any) -> None:
    schedule, host = routed("", "a input = 'broadcast'; replicas = 2\nb retries = 1")
    schedule.admit(1, b"in")
    host.log()
    give_up(schedule, 2, 1, "tired")
    assert host.log() == [(0, 1, b"in", PEER_NONE, 1), (1, 1, b"in", PEER_NONE, 1)]
    give_up(schedule, 2, 1, "still tired")
    assert host.log() == [("failed", 1, "still tired")]


def test_a_go_that_was_given_up_goes_on(routed: Any) -> None:
    schedule, host = routed(ROUND_ROBIN, "a\nb retries = 1")
    schedule.admit(1, b"in")
    schedule.delivered(0, 1)
    schedule.emitted(0, 1, b"A", PEER_NONE)
    schedule.after_effects(0)
    schedule.delivered(1, 1)
    host.log()
    give_up(schedule, 1, 1, "tired")
    schedule.after_effects(1)
    # Nobody else is woken, although nothing is open; the round is the same.
    assert host.log() == [(1, 1, b"A", 0, 0)]
    assert schedule.holders(1) == [1]
    schedule.delivered(1, 1)
    schedule.emitted(1, 1, b"B", PEER_NONE)
    schedule.after_effects(1)
    assert host.log() == [(0, 1, b"B", 1, 1)]


def test_a_go_that_emitted_cannot_be_given_up(routed: Any) -> None:
    schedule, _ = routed(ROUND_ROBIN, "a retries = 1\nb")
    schedule.admit(1, b"in")
    schedule.delivered(0, 1)
    schedule.emitted(0, 1, b"A", PEER_NONE)
    assert schedule.may_emit(0, 1, PEER_NONE, True) == "a second EMIT in one go"


# -- agents that end --------------------------------------------------------------------------

DEALT = "a replicas = 3; input = 'deal'; retries = 2\nb after = ['a']"


def test_an_item_whose_replica_ended_is_dealt_to_the_next_that_lives(routed: Any) -> None:
    schedule, host = routed(DAG, DEALT)
    schedule.admit(3, b"in")
    assert host.log() == [(2, 3, b"in", PEER_NONE, 0)]
    host.dead = [2, 0]
    assert schedule.member_ended(2, 3)
    assert host.log() == [(1, 3, b"in", PEER_NONE, 1)]
    assert schedule.holders(3) == [1]
    assert schedule.may_emit(2, 3, PEER_NONE, False) == "the item was dealt to another replica"
    schedule.emitted(1, 3, b"x", PEER_NONE)
    assert host.log() == [(3, 3, b"x", 1, 0)]


def test_an_item_is_not_dealt_on_when_no_replica_lives_or_no_retry_is_left(routed: Any) -> None:
    schedule, host = routed(DAG, DEALT)
    schedule.admit(1, b"in")
    host.dead = [0]
    assert schedule.member_ended(0, 1)
    host.dead = [0, 1]
    assert schedule.member_ended(1, 1)
    assert schedule.holders(1) == [2]
    host.log()
    host.dead = [0, 1, 2]
    assert not schedule.member_ended(2, 1)
    schedule.admit(2, b"in")
    assert host.log() == [("failed", 2, "dead")]
    host.dead = [0]
    schedule.admit(4, b"in")
    give_up(schedule, 1, 4, "tired")
    host.dead = [0, 1]
    assert not schedule.member_ended(1, 4)
    assert host.log() == [(1, 4, b"in", PEER_NONE, 1), (1, 4, b"in", PEER_NONE, 2)]


@pytest.mark.parametrize(
    ("policy", "agents"),
    [
        (DAG, "a replicas = 2; retries = 9"),
        (DAG, "a retries = 9; input = 'deal'"),
        (DAG, "a replicas = 2; input = 'deal'"),
        ("", "a replicas = 2; input = 'broadcast'; retries = 9"),
        (ROUND_ROBIN, "a replicas = 2; retries = 9"),
    ],
)
def test_only_dealt_items_with_retries_go_to_another_replica(
    routed: Any, policy: str, agents: str
) -> None:
    schedule, host = routed(policy, agents)
    schedule.admit(1, b"in")
    host.log()
    host.dead = [0]
    assert not schedule.member_ended(0, 1)
    assert host.log() == []


def test_a_dealt_item_goes_on_under_events_too(routed: Any) -> None:
    schedule, host = routed("", "a replicas = 2; input = 'deal'; retries = 1\nb input = 'deal'")
    schedule.admit(1, b"in")
    host.log()
    host.dead = [0]
    assert schedule.member_ended(0, 1)
    assert host.log() == [(1, 1, b"in", PEER_NONE, 1)]
    assert schedule.holders(1) == [1, 2]
    assert not schedule.member_ended(2, 1)


@pytest.mark.parametrize("policy", [DAG, ""])
def test_an_item_passes_by_a_replica_that_has_ended_before(routed: Any, policy: str) -> None:
    schedule, host = routed(policy, "a replicas = 2; input = 'deal'; retries = 1")
    host.dead = [0]
    for item in (1, 2):
        schedule.admit(item, b"in")
    assert host.log() == [(1, 1, b"in", PEER_NONE, 1), (1, 2, b"in", PEER_NONE, 0)]


def test_what_went_to_another_replica_stays_there_in_every_pass(routed: Any) -> None:
    schedule, host = routed(
        DAG, "a replicas = 3; input = 'deal'; retries = 1\nb after = ['a']; back = ['a']"
    )
    schedule.admit(1, b"in")
    host.dead = [0]
    assert schedule.member_ended(0, 1)
    schedule.emitted(1, 1, b"x", PEER_NONE)
    host.log()
    schedule.emitted(3, 1, b"no", 2)
    assert host.log() == [(1, 1, b"no", 3, 2)]
