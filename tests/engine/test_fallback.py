"""A change of provider: an outside event, a step that is granted to nobody before it is made."""

import pytest
from script import Script, infer

from lockstep.engine.errors import JournalCorrupt, ProtocolError
from lockstep.engine.fallback import CAUSE_CHARS_MAX, Fallback, fallbacks, from_outside
from lockstep.engine.outside import OF_SOURCES, Outside, What, from_record
from lockstep.engine.past import Past
from lockstep.engine.record import Kind, decode_at

CHANGE = Fallback(0, 2, "cuda", "cpu", "out of memory")


def event(payload: bytes, model: int = 0) -> Outside:
    return Outside(1, (4, 0), What.PROVIDER, model, 0, payload)


def test_a_change_survives_its_record() -> None:
    kept = event(CHANGE._replace(model=3).payload(), 3).record()
    assert from_outside(from_record(decode_at(kept, 0)[0])) == CHANGE._replace(model=3)


def test_what_a_driver_says_is_one_line_of_text_and_bounded() -> None:
    said = Fallback(0, 1, "cuda", "cpu", "a\n  b\tc \udcff" + "x" * 5000)
    cause = from_outside(event(said.payload())).cause
    assert cause.startswith("a b c ?xxx") and len(cause) == CAUSE_CHARS_MAX


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        CHANGE.payload().replace(b"2", b'"2"'),
        CHANGE.payload().replace(b"2", b"-2"),
        CHANGE.payload().replace(b"2", b"true"),
        CHANGE.payload().replace(b'"cpu"', b"7"),
    ],
)
def test_a_malformed_change_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="OUTSIDE 1: is no change of a provider"):
        from_outside(event(payload))


def test_other_events_are_no_changes() -> None:
    others = [Outside(n, (n, 0), what, 0, 0, b"") for n, what in enumerate(What, 1)]
    others.remove(next(other for other in others if other.what == What.PROVIDER))
    assert fallbacks([*others, event(CHANGE.payload())]) == (CHANGE,)


def test_changes_are_made_in_the_order_of_their_steps_whichever_was_recorded_first() -> None:
    # A run that dies may go on from an earlier step, and find its provider gone there, too.
    changes = [CHANGE._replace(step=step, model=model) for model, step in enumerate((9, 4))]
    kept = [event(each.payload(), each.model).record() for each in changes]
    script = Script("a", rest="[models.other]\npath = 'm'", recorded=kept)
    assert script.sequencer.horizon.next_change == changes[1]
    script.sequencer.horizon.changed(4)
    assert script.sequencer.horizon.next_change == changes[0]


def asked(recorded: list[bytes] | None = None) -> Script:
    """One agent, a request, and steps 1 and 2 of it."""
    script = Script("a", recorded=recorded)
    script.start()
    script.ends("a", infer(1))
    script.ends("a")
    return script


def test_no_step_behind_a_recorded_change_is_granted_before_it_is_made() -> None:
    script = asked([event(CHANGE.payload()).record()])
    assert script.sequencer.horizon.next_change == CHANGE
    assert script.steps(1)[-1] == "grant 2 knowing 2"
    assert not script.sequencer.horizon.engine_may_run()
    script.sequencer.horizon.changed(2)
    assert script.sequencer.horizon.next_change is None
    assert script.sequencer.horizon.grant_again().limit > 2
    assert script.sequencer.horizon.engine_may_run()


def test_a_run_that_goes_on_in_arrival_order_is_held_at_a_change_that_it_died_before() -> None:
    kept = [event(CHANGE.payload()).record()]
    script = Script("a", schedule="order = 'arrival'", recorded=kept)
    script.sequencer.follow((0, 0))
    script.start()
    script.sequencer.go_live((1, 0))
    assert script.sequencer.horizon.grant_again().limit == 2
    script.sequencer.horizon.changed(2)
    assert script.sequencer.horizon.grant_again().limit > 2


@pytest.mark.parametrize("what", [*OF_SOURCES, What.PROVIDER])
def test_a_record_that_names_what_the_fleet_has_not_is_refused(what: What) -> None:
    told = Outside(1, (4, 0), what, 1, 0, CHANGE.payload())
    with pytest.raises(JournalCorrupt, match=f"OUTSIDE 1: {what.name} of number 1, of [01]"):
        asked([told.record()])


def test_a_repeat_knows_every_change_from_the_start_and_makes_the_same_history() -> None:
    first = asked()
    first.steps(1)
    assert first.comes(What.PROVIDER, 0, CHANGE.payload())[0].startswith("keep outside 1 at ")
    again = asked(first.kept())
    assert again.sequencer.horizon.fallbacks == (CHANGE,)
    again.steps(1)
    again.sequencer.horizon.changed(2)
    for script in (first, again):
        for step in range(2, 9):
            script.steps(step, *([(1, 1)] if step == 8 else []))
        while not script.sequencer.finished:
            script.ends("a")
    assert first.history() == again.history()
    assert any(bytes([Kind.OUTSIDE]) in entry for entry in first.history())
    assert not again.sequencer.regenerative


@pytest.mark.parametrize(("at", "there"), [(2, False), (3, True)])
def test_a_cut_keeps_a_change_whose_step_lies_before_it(at: int, there: bool) -> None:
    # Its tag is 4.0: where it is told. Where it takes effect is step 2.
    script = asked()
    script.steps(1)
    script.steps(2)
    past = Past(script.history(), [event(CHANGE.payload()).record()]).before((at, 0))
    assert bool(past.outside) == there
