"""What a sequencer says to an inference process that takes the place of a lost one."""

import struct
from typing import Any

import pytest
from script import Script, infer, report

from lockstep.engine import actions
from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.history import TICKET_PAYLOAD
from lockstep.engine.order import chosen_step
from lockstep.engine.past import Past
from lockstep.engine.plan import CANCEL, DUE, Request
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.record import Kind, encode
from lockstep.engine.restore import restore
from lockstep.engine.restored import UNKNOWN, PastCancel, Queued, Restored
from lockstep.engine.stepper import Stepper
from lockstep.engine.tag import INFINITE_STEP
from lockstep.engine.wire import FromEngine

ARRIVAL: Fleet = parse(
    b"[schedule]\norder = 'arrival'\n[models.m]\npath = 'm'\nrows_max = 2\n"
    b"[agents.a]\nmodule = 'x'\ninput = 'broadcast'\n",
    "f.toml",
)


def asking() -> Script:
    """Two agents ask at (0, 1); a third one computes."""
    script = Script("a input='broadcast'\nb input='broadcast'\nc input='broadcast'")
    script.start()
    script.burnt("c", 950)
    script.ends("a", infer(1))
    script.ends("b", infer(1))
    script.ends("a")  # It has seen its START.
    script.ends("b")
    return script


def test_the_grant_is_said_again_as_it_is_now() -> None:
    script = asking()
    sent = [action for action in script.actions if isinstance(action, actions.Grant)][-1]
    assert script.sequencer.horizon.grant_again() == sent
    script.sequencer.step_reported(report(1, [(1, 1)]))  # It died before this was pumped.
    now = script.sequencer.horizon.grant_again()
    # The old one would let step 3 run, which the answer's agent can still reach with a request.
    assert now == actions.Grant(3, 2) and sent == actions.Grant(5, 0)


def test_a_grant_that_was_said_again_is_not_sent_twice() -> None:
    script = asking()
    script.sequencer.horizon.grant_again()
    assert script._pump() == []


def test_steps_whose_tags_are_open_are_known_before_they_are_history() -> None:
    script = asking()
    script.steps(1)
    reports = [report(2), report(3, [(1, 1)])]
    for each in reports:
        script.sequencer.step_reported(each)
    ahead = script.sequencer.reported_ahead()
    assert ahead[-2:] == [encode(Kind.STEP, each.body, id=each.step) for each in reports]
    assert not [entry for entry in ahead if entry in script.history()]


def test_it_has_work_while_a_ticket_is_due_below_the_grant() -> None:
    script = asking()
    assert script.sequencer.horizon.engine_may_run()
    script.steps(1, (1, 1), (2, 1))
    assert not script.sequencer.horizon.engine_may_run()


# -- arrival order ---------------------------------------------------------------------------------


def row(op: FromEngine, a: int = 0, b: int = 0, ticket: int = 0, what: int = 0) -> bytes:
    return struct.pack("<HHIQqq", op, what, 0, ticket, a, b)


def asked_at(step: int, *tickets: int) -> bytes:
    body = encode(Kind.TAG, id=step)
    for ticket in tickets:
        effect = encode(Kind.EFFECT, infer(ticket), peer=0)
        payload = TICKET_PAYLOAD.pack(0, ticket, ticket)
        body += effect + encode(Kind.TICKET, payload, id=ticket, peer=0)
    return body


def revoked_at(step: int, ticket: int) -> bytes:
    return encode(Kind.TAG, id=step) + encode(Kind.REVOKE, bytes(8), id=ticket)


def step_entry(step: int, *rows: bytes) -> bytes:
    return encode(Kind.STEP, b"".join([*rows, row(FromEngine.STEP, step)]), id=step)


# Ticket 1 was taken in and runs; of two cancels of it one was taken; 2 and 3 were not taken.
ENTRIES = [
    asked_at(0, 1, 2),
    step_entry(
        4,
        row(FromEngine.TAKEN, 4, ticket=1, what=DUE),
        row(FromEngine.ADMIT, 0, ticket=1),
        row(FromEngine.CHUNK, 0, 2, ticket=1),
    ),
    revoked_at(4, 1),
    step_entry(5, row(FromEngine.TAKEN, 5, ticket=1, what=CANCEL)),
    revoked_at(5, 1),
    asked_at(90, 3),
]


def restored(*kept: bytes) -> Restored:
    return restore(Past(ENTRIES, kept), ARRIVAL, slab_lost=False)


def test_what_nobody_has_chosen_is_unknown_and_not_before_its_tag() -> None:
    past = restored(chosen_step(DUE, 1, 4), chosen_step(CANCEL, 1, 5))
    assert [(a.ticket, a.due, a.least) for a in past.asked] == [
        (1, 4, 0), (2, UNKNOWN, 0), (3, UNKNOWN, 90),
    ]  # fmt: skip
    assert (past.queued, past.offered) == ((Queued(1, 1),), (2, 3))
    assert past.cancels == (PastCancel(1, UNKNOWN, 5),)


def test_what_was_kept_for_steps_that_were_lost_still_holds() -> None:
    past = restored(
        chosen_step(DUE, 1, 4), chosen_step(CANCEL, 1, 5), chosen_step(DUE, 2, 6),
        chosen_step(CANCEL, 1, 7),
    )  # fmt: skip
    assert [asked.due for asked in past.asked] == [4, 6, UNKNOWN]
    assert past.cancels == (PastCancel(1, 7, 5),)


class Noted(Planner):
    """A planner that notes what it is handed."""

    def __init__(self) -> None:
        super().__init__([ModelLimits(2, 64)], 8)
        self.handed: list[tuple[Any, ...]] = []

    def offer(self, request: Request) -> None:
        self.handed.append((request.ticket, request.due))
        super().offer(request)

    def cancel(self, ticket: int, due: int) -> None:
        self.handed.append(("cancel", ticket, due))
        super().cancel(ticket, due)


@pytest.mark.parametrize(
    ("live", "handed"),
    [
        (True, [(2, 6), (3, 90), ("cancel", 1, 6)]),
        (False, [(2, INFINITE_STEP), (3, INFINITE_STEP), ("cancel", 1, INFINITE_STEP)]),
    ],
)
def test_it_is_chosen_again_in_a_live_run_and_never_comes_in_a_repeat(
    live: bool, handed: list[Any]
) -> None:
    past = restored(chosen_step(CANCEL, 1, 5))
    planner = Noted()
    requests = {a.ticket: Request(a.ticket, a.due, 0, (0, ""), (1, 2, 3), 5) for a in past.asked}
    Stepper(planner, 0, live).restore(past, requests)
    assert planner.handed == handed
