"""Cancelling (rule 12): requests, items and runs end at a defined tag, and never as success."""

from script import Script, emit, infer

from lockstep.engine import actions
from lockstep.engine.outside import What
from lockstep.engine.record import FLAG_ERROR, PEER_ALL, Kind, encode


def cancel_item(item: int) -> bytes:
    return encode(Kind.CANCEL, item=item)


def give_up(item: int, reason: bytes) -> bytes:
    return encode(Kind.EMIT, reason, flags=FLAG_ERROR, item=item)


def held(items: int = 1, schedule: str = "", **settings: str) -> Script:
    """Two agents that were both given item 1, and a third that was given nothing."""
    agents = "a input = 'broadcast'\nb input = 'broadcast'\nc"
    script = Script(agents, items=items, schedule=schedule, **settings)
    script.start()
    for name in "abc":
        script.ends(name)
    return script


def test_cancelling_an_item_ends_its_requests_and_tells_its_holders() -> None:
    script = held()
    script.ends("a", infer(1, item=1))
    script.ends("b", infer(1), infer(2, item=1))
    log = script.ends("c", cancel_item(1))
    revoked = [line for line in log if line.startswith(("revoke", "output", "wake"))]
    assert sorted(revoked) == [
        "output 1: cancelled by agent c",
        "revoke 1 due 1",
        "revoke 3 due 1",
        "wake a#2 at 0.2: CANCELLED 0/1 cancelled by agent c",
        "wake b#2 at 0.2: CANCELLED 0/1 cancelled by agent c",
    ]


def test_what_is_asked_for_a_cancelled_item_afterwards_is_cancelled_at_once() -> None:
    script = held()
    script.ends("a")
    script.ends("b")
    script.ends("c", cancel_item(1))
    log = script.ends("a", infer(1, item=1))
    script.ends("b", emit(1, b'"late"'))
    assert "ticket 1 of a due 1" not in log  # b's turn is still awaited ...
    log = [script.shown(action) for action in script.actions]
    assert "ticket 1 of a due 1" in log
    assert "revoke 1 due 1" in log
    assert [line for line in log if line.startswith("output")] == ["output 1: cancelled by agent c"]


def test_a_finished_item_is_not_cancelled() -> None:
    script = held()
    script.ends("a", emit(1, b'"done"'))
    script.ends("b")
    script.ends("c")
    log = script.comes(What.CANCEL_ITEM, 1, b"by a person")
    assert [line for line in log if line.startswith("output")] == []
    outputs = [script.shown(action) for action in script.actions]
    assert [line for line in outputs if line.startswith("output")] == ["output 1: done"]


def test_an_item_is_taken_out_of_the_mailboxes_in_which_it_still_lies() -> None:
    script = Script("a input = 'broadcast'\nc", items=2)
    script.start()
    script.ends("c", cancel_item(2))
    log = script.ends("a")
    # Both took effect at 0.1: where c's word came, a had not been woken with the item.
    assert "wake a#1 at 0.1: START, ITEM 0/1 in1" in log


def test_a_person_cancels_an_item_that_has_not_entered() -> None:
    script = Script("a input = 'broadcast'", items=3, schedule="items_in_flight_max = 1")
    script.start()
    assert script.comes(What.CANCEL_ITEM, 2, b"by a person") == ["keep outside 1 at 1.0"]
    script.ends("a")
    # Nothing pends before 1.0 but this turn, whose work takes it behind that.
    log = script.ends("a", emit(1, b'"x"'), fuel=200)
    assert [line for line in log if line.startswith(("output", "wake"))] == [
        "output 1: x",
        "output 2: by a person",
        "wake a#2 at 2.1: ITEM 0/3 in3",
    ]


def test_a_person_cancels_a_request() -> None:
    script = Script("a")
    script.start()
    script.ends("a", infer(7))
    script.ends("a")
    assert script.actions[-1] == actions.Grant(5, 0)
    assert script.comes(What.CANCEL_REQUEST, 1)[0] == "keep outside 1 at 4.0"
    assert not [line for step in (1, 2) for line in script.steps(step) if "revoke" in line]
    assert "revoke 1 due 5" in script.steps(3)  # Nothing can come before 4.0 any more.


def test_a_person_cancels_the_run() -> None:
    script = held(items=3)
    script.ends("a", infer(1))
    script.ends("b")
    script.ends("c")
    script.comes(What.CANCEL_RUN, 0, b"cancelled by a person")
    log = [line for step in (1, 2, 3) for line in script.steps(step)]
    assert log[-1] == "stopped: cancelled by a person"
    assert [line for line in log if line.startswith("output")] == [
        f"output {n}: cancelled by a person; it was held by a, b" for n in (1, 2, 3)
    ]


def test_an_agent_that_may_cancels_the_run() -> None:
    script = Script("a input = 'broadcast'; may_cancel_run = true", items=1)
    script.start()
    script.ends("a")
    log = script.ends("a", encode(Kind.CANCEL, peer=PEER_ALL), emit(1, b'"done"'))
    # The tag is whole: what else took effect in it stands.
    assert log[-3:] == ["output 1: done", "tag 0.3", "stopped: cancelled by agent a"]


def test_a_cancel_that_comes_when_all_is_over_changes_nothing() -> None:
    script = held()
    script.ends("a")
    script.ends("b")
    script.comes(What.CANCEL_RUN, 0, b"cancelled by a person")
    assert script.ends("c")[-1].endswith("CLOSE 0/0"), "a control command does not hold the end"


def test_an_item_that_takes_too_long_is_cancelled_at_its_tag() -> None:
    script = held(schedule="item_steps_max = 10")
    for name in "abc":
        log = script.ends(name)
    assert log[0] == "tag 0.2"
    assert "tag 10.0" in log
    assert "output 1: not finished 10 steps after it entered" in log
    assert "wake a#2 at 10.0: CANCELLED 0/1 not finished 10 steps after it entered" in log


def test_the_deadline_of_a_finished_item_holds_nothing() -> None:
    script = held(schedule="item_steps_max = 10")
    script.ends("a", emit(1, b'"x"'))
    script.ends("b")
    log = script.ends("c")
    assert log[-1] == "wake c#2 at 0.3: CLOSE 0/0"
    assert "tag 10.0" not in log


def test_an_item_that_was_given_up_comes_again_while_there_are_retries() -> None:
    script = Script("a input = 'broadcast'; retries = 1", items=1)
    script.start()
    script.ends("a")
    assert script.ends("a", give_up(1, b"tired"))[-1] == "wake a#2 at 0.2: ITEM 1/1 in1"
    log = script.ends("a", give_up(1, b"tired"))
    assert "output 1: agent a gave it up: tired" in log
