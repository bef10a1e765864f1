"""Calls: items of their own kind go to the one agent that takes them, whatever the policy is."""

from __future__ import annotations

from typing import Any

import pytest
from script import Script, emit, infer, report

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.engine.outside import What, from_record
from lockstep.engine.record import PEER_NONE, Record, decode_at
from lockstep.engine.schedule import Schedule

SOURCE = "[sources.s]\nkind = 'socket'\n"
CALLER = "caller input = 'calls'"
POLICIES = {
    "events": ("a input = 'broadcast'", ""),
    "dag": ("a\nb after = ['a']", "policy = 'dag'"),
    "round-robin": ("a\nb", "policy = 'round-robin'"),
}


def fleet(agents: str, schedule: str = "", rest: str = "") -> bytes:
    tables = [line.partition(" ") for line in agents.splitlines()]
    text = f"[schedule]\n{schedule}\n" + "".join(
        f"[agents.{name}]\nmodule = 'x'\n{settings}\n".replace(";", "\n")
        for name, _, settings in tables
    )
    return f"{text}{rest}".encode()


class Calling:
    """A fleet of a policy with its caller. Everybody ends a turn at once, without records."""

    def __init__(self, policy: str, schedule: str = "") -> None:
        agents, own = POLICIES[policy]
        self.script = Script(f"{agents}\n{CALLER}", schedule=f"{own}\n{schedule}", rest=SOURCE)
        self.script.start()
        self.settle()

    @property
    def schedule(self) -> Schedule:
        return self.script.sequencer.world.desk.schedule

    @property
    def caller(self) -> int:
        return len(self.script.names) - 1

    def settle(self) -> list[str]:
        """Until nobody runs."""
        log: list[str] = []
        while waits := self.script.sequencer.waits_for():
            log += self.script.ends(self.script.names[waits[0]])
        return log

    def comes(self, what: What, payload: bytes) -> list[str]:
        return self.script.comes(what, 0, payload)


def wakes(log: list[str], agent: str, event: str) -> bool:
    return any(line.startswith(f"wake {agent}#") and event in line for line in log)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_call_goes_to_the_caller_and_an_item_by_the_policy(policy: str) -> None:
    made = Calling(policy)
    assert wakes(made.comes(What.CALL, b"call"), "caller", "ITEM 0/1 call")
    assert made.schedule.holders(1) == [made.caller]
    log = made.script.ends("caller", infer(1, item=1))
    (due,) = [line.rpartition(" ")[2] for line in log if line.startswith("ticket 1 of caller")]
    assert wakes(made.script.steps(int(due), (1, 1)), "caller", "RESULT 1/0 of 1")
    assert "output 1: said" in made.script.ends("caller", emit(1, b"said"))
    assert wakes(made.comes(What.ITEM, b"item"), "a", "ITEM 0/2 item")
    assert made.schedule.holders(2) == [0]


def test_a_call_is_emitted_for_by_the_caller_alone_and_nothing_else_by_it() -> None:
    made = Calling("events")
    made.comes(What.CALL, b"call")
    made.settle()
    made.comes(What.ITEM, b"item")
    emits, caller = made.schedule.may_emit, made.caller
    assert emits(caller, 1, PEER_NONE, False) == ""
    assert emits(0, 1, PEER_NONE, False) == "the item is a call to a model"
    assert emits(caller, 2, PEER_NONE, False) == "the item is no call to a model"
    assert emits(0, 2, PEER_NONE, False) == ""


def test_a_cancelled_call_ends_its_request_and_its_caller_hears_of_it() -> None:
    made = Calling("dag")
    made.comes(What.CALL, b"call")
    log = made.script.ends("caller", infer(1, item=1))
    (due,) = [line.rpartition(" ")[2] for line in log if line.startswith("ticket 1 of caller")]
    log = made.script.comes(What.CANCEL_ITEM, 1, b"gone")
    for step in range(int(due), int(due) + 8):
        log += made.script.steps(step)
    assert any(line.startswith("revoke 1") for line in log) and "output 1: gone" in log
    assert wakes(log, "caller", "CANCELLED 0/1 gone")


def test_a_step_can_be_recorded_as_soon_as_no_tag_comes_before_it() -> None:
    made = Calling("events")
    made.comes(What.CALL, b"call")
    log = made.script.ends("caller", infer(1, item=1))
    (due,) = [line.rpartition(" ")[2] for line in log if line.startswith("ticket 1 of caller")]
    sequencer, shown = made.script.sequencer, made.script.shown
    assert not any(line.startswith("step") for line in made.script.steps(int(due)))
    assert [shown(action) for action in sequencer.settle()] == [f"step {due}"]
    assert sequencer.settle() == []
    made.script.comes(What.ITEM, 0, b"item")  # From here on a tag waits.
    (tag,) = [event.tag for event in map(from_record, records(made.script.kept()))][-1:]
    for step in range(int(due) + 1, tag[0] + 1):
        sequencer.step_reported(report(step))
    settled = [shown(action) for action in sequencer.settle()]
    assert settled == [f"step {step}" for step in range(int(due) + 1, tag[0])]


def records(kept: list[bytes]) -> list[Record]:
    return [decode_at(data, 0)[0] for data in kept]


def test_a_call_that_was_cancelled_before_it_entered_leaves_nothing() -> None:
    made = Calling("events", "items_in_flight_max = 1")
    made.comes(What.CALL, b"first")
    made.comes(What.CALL, b"second")
    made.script.comes(What.CANCEL_ITEM, 2, b"gone")
    log = made.script.ends("caller", emit(1, b"said"))
    outputs = [line for line in log if line.startswith("output")]
    assert outputs == ["output 1: said", "output 2: gone"]


def test_a_fleet_of_nothing_but_a_caller_fails_items_by_name() -> None:
    script = Script(CALLER, rest=SOURCE)
    script.start()
    script.ends("caller")
    script.ends("caller")
    assert "output 1: no agent of the fleet takes items" in script.comes(What.ITEM, 0, b"{}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (fleet(f"{CALLER}\nb input = 'deal'"), "expected of the last agent alone"),
        (fleet(f"{CALLER};replicas = 2"), "expected no replicas"),
        (fleet(f"a after = ['caller']\n{CALLER}", "policy = 'dag'"), "takes calls alone"),
        (fleet(CALLER, "policy = 'dag'"), "no agent besides"),
    ],
)
def test_a_caller_inside_the_graph_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(data, "f.toml")


def test_the_identity_says_who_takes_calls() -> None:
    found: Any = parse(fleet(f"a input = 'deal'\n{CALLER}"), "f.toml").settings()
    assert [group["input"] for group in found["groups"]] == ["deal", "calls"]
