"""Round-robin: one agent's go at a time, rounds, DONE, many conversations at once."""

from typing import Any

from lockstep.engine.record import PEER_NONE

THREE = "a\nb\nc"


def policy(rounds: int) -> str:
    return f"policy = 'round-robin'\nrounds_max = {rounds}"


def go(schedule: Any, agent: int, item: int, payload: bytes | None = None) -> None:
    """The agent is woken with the item, emits and has nothing open: its go is over."""
    schedule.delivered(agent, item)
    if payload is not None:
        assert schedule.may_emit(agent, item, PEER_NONE, False) == ""
        schedule.emitted(agent, item, payload, PEER_NONE)
    schedule.after_effects(agent)


def test_agents_go_one_after_another_and_rounds_are_counted(routed: Any) -> None:
    schedule, host = routed(policy(2), THREE)
    schedule.admit(1, b"in")
    for agent, payload in [(0, b"1"), (1, b"2"), (2, b"3"), (0, b"4"), (1, b"5"), (2, b"6")]:
        assert schedule.holders(1) == [agent]
        go(schedule, agent, 1, payload)
    assert host.log() == [
        (0, 1, b"in", PEER_NONE, 0),
        (1, 1, b"1", 0, 0),
        (2, 1, b"2", 1, 0),
        (0, 1, b"3", 2, 1),
        (1, 1, b"4", 0, 1),
        (2, 1, b"5", 1, 1),
        ("finished", 1, (2, b"6")),
    ]


def test_a_go_without_an_emit_passes_on_nothing_and_the_last_emit_is_the_output(
    routed: Any,
) -> None:
    schedule, host = routed(policy(1), THREE)
    schedule.admit(1, b"in")
    go(schedule, 0, 1, b"only")
    go(schedule, 1, 1)
    go(schedule, 2, 1)
    assert host.log()[1:] == [
        (1, 1, b"only", 0, 0),
        (2, 1, b"", 1, 0),
        ("finished", 1, (0, b"only")),
    ]


def test_a_conversation_without_an_emit_fails(routed: Any) -> None:
    schedule, host = routed(policy(1), "a")
    schedule.admit(1, b"in")
    go(schedule, 0, 1)
    assert host.log()[-1] == ("failed", 1, "the conversation ended without an EMIT")


def test_a_go_lasts_until_every_request_and_timer_of_the_item_is_seen(routed: Any) -> None:
    schedule, host = routed(policy(1), "a\nb")
    schedule.admit(1, b"in")
    host.log()
    host.open = [(0, 1), (0, 1)]
    schedule.delivered(0, 1)
    schedule.after_effects(0)
    assert host.log() == []
    host.open.pop()  # One of two answers was seen.
    schedule.emitted(0, 1, b"x", PEER_NONE)
    schedule.after_effects(0)
    assert host.log() == []
    assert schedule.may_emit(0, 1, PEER_NONE, False) == "a second EMIT in one go"
    host.open.pop()
    schedule.after_effects(0)
    assert host.log() == [(1, 1, b"x", 0, 0)]


def test_effects_before_the_item_was_delivered_do_not_end_the_go(routed: Any) -> None:
    schedule, host = routed(policy(1), "a\nb")
    schedule.admit(1, b"in")
    host.log()
    schedule.after_effects(0)  # Of a turn that began before.
    assert host.log() == []
    assert schedule.holders(1) == [0]


def test_done_ends_the_conversation_with_its_last_emit(routed: Any) -> None:
    schedule, host = routed(policy(9), THREE)
    schedule.admit(1, b"in")
    go(schedule, 0, 1, b"1")
    host.log()
    assert schedule.may_finish(0, 1) == "it is another agent's go"
    assert schedule.may_emit(2, 1, PEER_NONE, False) == "it is another agent's go"
    assert schedule.may_finish(1, 1) == ""
    schedule.delivered(1, 1)
    schedule.done(1, 1)
    schedule.after_effects(1)
    assert host.log() == [("finished", 1, (0, b"1"))]


def test_conversations_are_interleaved_and_one_failure_leaves_the_others(routed: Any) -> None:
    schedule, host = routed(policy(1), "a\nb")
    for item in (1, 2, 3):
        schedule.admit(item, b"in")
    for item in (3, 1):
        schedule.delivered(0, item)
    host.log()
    schedule.after_effects(0)
    # In item order, whatever order they were delivered in.
    assert host.log() == [(1, 1, b"", 0, 0), (1, 3, b"", 0, 0)]
    schedule.forget(1)
    go(schedule, 1, 3, b"x")
    assert host.log() == [("finished", 3, (1, b"x"))]
    assert schedule.holders(2) == [0]


def test_a_next_agent_that_has_ended_fails_its_conversation_only(routed: Any) -> None:
    schedule, host = routed(policy(1), "a\nb")
    schedule.admit(1, b"in")
    schedule.admit(2, b"in")
    host.log()
    host.dead = [1]
    schedule.delivered(0, 2)
    go(schedule, 0, 1, b"x")
    assert host.log() == [("failed", 1, "dead"), ("failed", 2, "dead")]
