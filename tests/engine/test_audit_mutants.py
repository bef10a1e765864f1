"""Mutants that have one history, and a wrong one: the audit of the simulation turns red.

What they break is no race, so that every physical timing gives the same; a second reckoning of the
same history tells (tests/support/audit.py). Those that are races are in test_mutants.py.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from audit import Audit
from simulator import simulate

from lockstep.engine import effects, model_queue
from lockstep.engine.errors import LockstepBug
from lockstep.engine.mailbox import Mailbox
from lockstep.engine.model_queue import ModelQueue
from lockstep.engine.plan import Request
from lockstep.engine.post import Post
from lockstep.engine.record import Record
from lockstep.engine.roster import Roster
from lockstep.engine.world import World

FLEETS = 120  # Within so many fleets each mutant must be red at least once.

Patch = pytest.MonkeyPatch


def mailboxes_hold_three_more(patch: Patch) -> None:
    """Rule 9's bound gone: a sender is let in that should wait."""

    def must_wait(self: Post, receiver: int) -> bool:
        state = self._roster[receiver]
        state.messages_max += 3
        try:
            return before(self, receiver)
        finally:
            state.messages_max -= 3

    before = Post._must_wait
    patch.setattr(Post, "_must_wait", must_wait)


def full_mailboxes_take_all(patch: Patch) -> None:
    """Rule 9's `fail` gone: nothing comes back from a full mailbox."""

    def deliver(self: Post, sender: int, receiver: int, *rest: Any) -> None:
        state = self._roster[receiver]
        state.messages_max += 1_000_000
        before(self, sender, receiver, *rest)
        state.messages_max -= 1_000_000

    before = Post._deliver
    patch.setattr(Post, "_deliver", deliver)


def a_message_is_lost_now_and_then(patch: Patch) -> None:
    """Nothing is dropped silently, but for this."""

    def deliver(self: Post, *arguments: Any) -> None:
        self.messages += 1
        if self.messages % 10:
            self.messages -= 1
            before(self, *arguments)

    before = Post._deliver
    patch.setattr(Post, "_deliver", deliver)


def timed(patch: Patch, steps_of: Callable[[int], int]) -> None:
    """Timers are set for another step."""

    def set_timer(self: World, agent: int, record: Record) -> None:
        (steps,) = effects.TIMER_PAYLOAD.unpack(record.payload)
        payload = effects.TIMER_PAYLOAD.pack(steps_of(steps))
        before(self, agent, record._replace(payload=payload))

    before = World._time
    patch.setattr(World, "_time", set_timer)


def timers_fire_in_half_the_time(patch: Patch) -> None:
    """An event before its cause is over: rule 2's timers at the step that they were set for."""
    timed(patch, lambda steps: max(1, steps // 2))


def timers_fire_seven_steps_late(patch: Patch) -> None:
    """Likewise, after it."""
    timed(patch, lambda steps: steps + 7)


def agents_with_events_are_passed_over(patch: Patch) -> None:
    """Rule 3's waking gone: at every fifth step an agent sleeps on, until something else comes."""

    def take_touched(self: Roster) -> list[int]:
        found = before(self)
        if self.tag[0] % 5 == 4:
            return [agent for agent in found if agent]
        return found

    before = Roster.take_touched
    patch.setattr(Roster, "take_touched", take_touched)


def mailboxes_are_emptied_one_by_one(patch: Patch) -> None:
    """Rule 2's "it gets all of them" gone: the rest waits for the next turn."""

    def take(self: Mailbox) -> Any:
        first, *rest = before(self) or [None]
        for event in rest:
            self.put(event)
        return [first] if first else []

    before = Mailbox.take
    patch.setattr(Mailbox, "take", take)


def the_newest_request_is_first(patch: Patch) -> None:
    """Rule 1's queue upside down: who came early waits for all who come late."""
    ordered(patch, lambda request: -request.ticket)


def priorities_never_age(patch: Patch) -> None:
    """Rule 1's `due +` gone: the last in line waits for ever, as long as others come."""
    ordered(patch, lambda request: request.priority)


def ordered(patch: Patch, place: Callable[[Request], int]) -> None:
    """Requests wait in another order."""

    def insort(waiting: list[Any], entry: Any, key: Any) -> None:
        waiting.append((place(entry[3]), *entry[1:]))
        waiting.sort(key=lambda waits: waits[:3])

    patch.setattr(model_queue, "insort", insort)


def one_row_is_admitted_a_step(patch: Patch) -> None:
    """Slots stay free while requests wait."""

    def admit(self: ModelQueue) -> Any:
        waiting = self._waiting
        self._waiting = waiting[:1]
        found = before(self)
        self._waiting += waiting[1:]
        return found

    before = ModelQueue._admit
    patch.setattr(ModelQueue, "_admit", admit)


def the_last_row_decodes_when_it_is_alone(patch: Patch) -> None:
    """A row makes no way as long as there are others."""

    def decodes(self: ModelQueue, rows: Any) -> Any:
        return before(self, rows if len(rows) == 1 else rows[:-1])

    before = ModelQueue._decodes
    patch.setattr(ModelQueue, "_decodes", decodes)


def the_last_prompt_has_the_budget(patch: Patch) -> None:
    """Who came first gets what is left of it: nothing, as long as prompts come."""

    def prefill(self: ModelQueue, waiting: Any) -> Any:
        self._rows.reverse()
        try:
            return before(self, waiting)
        finally:
            self._rows.reverse()

    before = ModelQueue._prefill
    patch.setattr(ModelQueue, "_prefill", prefill)


MUTANTS = (
    mailboxes_hold_three_more,
    full_mailboxes_take_all,
    a_message_is_lost_now_and_then,
    timers_fire_in_half_the_time,
    timers_fire_seven_steps_late,
    agents_with_events_are_passed_over,
    mailboxes_are_emptied_one_by_one,
    the_newest_request_is_first,
    priorities_never_age,
    one_row_is_admitted_a_step,
    the_last_row_decodes_when_it_is_alone,
    the_last_prompt_has_the_budget,
)


def found_by_the_audit() -> Iterator[str]:
    """Why histories of so many fleets cannot be."""
    for seed in range(FLEETS):
        try:
            run = simulate(seed, 0)
        except (LockstepBug, AssertionError, LookupError):
            continue  # Somebody else noticed; that is not what is asked here.
        try:
            Audit(seed, run).check()
        except AssertionError as error:
            yield str(error)


@pytest.mark.interpreted
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_history_that_breaks_a_rule_is_found_by_its_audit(
    mutant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    assert next(found_by_the_audit(), None) is not None, mutant.__doc__


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("mutant", "found"),
    [
        (mailboxes_hold_three_more, "mailboxes keep their bounds"),
        (timers_fire_in_half_the_time, "a timer fires at its step"),
        (agents_with_events_are_passed_over, "an agent with events is woken"),
        (the_newest_request_is_first, "admitted strictly in the order of the queue"),
    ],
)
def test_the_audit_says_which_promise_was_broken(
    mutant: Callable[[Patch], None], found: str, monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    assert any(found in why for why in found_by_the_audit())
