"""The past: turns, steps and outside events of a record, as they were; damage is named."""

import struct
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script import Script, emit, infer, report, send
from simulator import Run, simulate

from lockstep.engine.effects import Turn
from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.history import TagEntry, step_entry
from lockstep.engine.order import chosen_effect, chosen_step
from lockstep.engine.outside import What
from lockstep.engine.past import Past, PastTurn, behind, place_of, report_of, same_turn
from lockstep.engine.planner import CANCEL, DUE
from lockstep.engine.record import Kind, Outcome, decode, encode

LOG = encode(Kind.LOG, b"said", id=1)


def small() -> Script:
    """An item, a request for it, its answer, its output; agent b breaks a rule."""
    script = Script("a input = 'broadcast'\nb", items=1)
    script.start()
    script.ends("a", fuel=3)
    script.ends("b", LOG, encode(Kind.SUBSCRIBE), fuel=4)
    script.ends("a", infer(7, item=1), fuel=5)
    script.steps(1, (1, 7))
    script.ends("a", emit(1, b'"x"'), fuel=6)
    return script


def test_turns_are_given_back_with_their_events_tags_and_effects() -> None:
    past = Past(small().history())
    first, second, third, fourth = past.turns(0)
    assert first == PastTurn(0, (0, 0), b"", 0, 3, Outcome.BLOCKED, b"", "")
    assert second.tag == (0, 1)
    assert [e.kind for e in decode(second.events)] == [Kind.START, Kind.ITEM]
    assert (second.number, second.count, second.fuel) == (1, 2, 5)
    assert second.records == infer(7, item=1)
    assert past.effect(0, 1) == Turn(1, 5, Outcome.BLOCKED, "", second.records)
    assert [e.kind for e in decode(third.events)] == [Kind.RESULT]
    assert (third.tag, third.outcome, third.records) == ((2, 0), Outcome.BLOCKED, emit(1, b'"x"'))
    # It was woken by CLOSE and that turn was not over.
    assert [e.kind for e in decode(fourth.events)] == [Kind.CLOSE]
    assert (fourth.outcome, fourth.records, fourth.fuel) == (None, b"", 0)
    assert past.has_effect(0, 2)
    assert not past.has_effect(0, 3)
    assert past.effect(0, 3) is None


def test_a_turn_that_the_sequencer_failed_has_its_reason_and_all_it_wrote() -> None:
    (turn,) = Past(small().history()).turns(1)
    assert turn.outcome == Outcome.PROTOCOL
    assert turn.records == LOG + encode(Kind.SUBSCRIBE)
    assert turn.reason.startswith("record 1 (SUBSCRIBE, kind 37, item 0): flags 0")


def test_an_agent_without_turns_has_none() -> None:
    assert Past([]).turns(3) == []
    assert Past([]).last_step == -1
    assert not Past([]).ended


def test_steps_come_back_as_the_engine_reported_them() -> None:
    script = small()
    past = Past(script.history())
    assert list(past.steps()) == [report(1, [(1, 7)])]
    assert past.last_step == 1


def test_every_step_of_a_simulated_run_is_the_inverse_of_its_entry() -> None:
    steps = 0
    for seed in range(12):
        run = simulate(seed, 0)
        for body in run.entries:
            if next(decode(body)).kind == Kind.STEP:
                assert step_entry(report_of(body), []).body == body
                steps += 1
    assert steps > 100


def test_a_run_has_ended_when_its_stop_is_recorded() -> None:
    run = simulate(1, 0)
    assert Past(run.entries).ended
    assert not Past(run.entries[:-1]).ended


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        (Turn(2, 10, 0, "", LOG), ""),
        (Turn(1, 10, 0, "", LOG), "it was turn 1, recorded is turn 2"),
        (Turn(2, 11, 0, "", LOG), "it burnt 11 fuel, recorded are 10"),
        (Turn(2, 10, 1, "", LOG), "it ended as returned, recorded is blocked"),
        (Turn(2, 10, 0, "", LOG + LOG), "it wrote 2 records, recorded are 1"),
        (
            Turn(2, 10, 0, "", send(1, b"\33[2J")),
            "its record 0 is SEND id 0 item 0 peer 1 flags 0 b'\\x1b[2J', "
            "recorded is LOG id 1 item 0 peer nobody flags 0 b'said'",
        ),
        (Turn(2, 10, 0, "", b"x" * 9), "it wrote 9 bytes, recorded are 40 others"),
    ],
)
def test_what_a_repeated_turn_did_otherwise_is_named(turn: Turn, found: str) -> None:
    assert same_turn(PastTurn(2, (5, 0), b"", 0, 10, 0, LOG, ""), turn) == found


def test_a_failure_is_the_same_with_the_same_reason_only() -> None:
    past = PastTurn(0, (0, 0), b"", 0, 10, Outcome.TRAPPED, LOG, "unreachable")
    assert same_turn(past, Turn(0, 10, Outcome.TRAPPED, "unreachable", LOG)) == ""
    found = same_turn(past, Turn(0, 10, Outcome.TRAPPED, "stack", LOG))
    assert found == "it ended as trapped (stack), recorded is trapped (unreachable)"


def test_a_turn_without_a_recorded_effect_is_not_compared() -> None:
    past = PastTurn(0, (0, 0), b"", 0, 0, None, b"", "")
    assert same_turn(past, Turn(0, 10, 0, "", LOG)) == ""


def test_what_the_sequencer_failed_may_have_ended_well_in_its_process() -> None:
    (past,) = Past(small().history()).turns(1)
    ended = Turn(0, 4, Outcome.BLOCKED, "", past.records)
    assert same_turn(past, ended) == ""
    assert same_turn(past, Turn(0, 5, Outcome.BLOCKED, "", past.records)) != ""
    assert same_turn(past, Turn(0, 4, Outcome.BLOCKED, "", LOG)) != ""


def test_what_a_process_failed_must_fail_again() -> None:
    past = PastTurn(0, (0, 0), b"", 0, 4, Outcome.PROTOCOL, LOG, "record of kind 9: no")
    assert same_turn(past, Turn(0, 4, Outcome.BLOCKED, "", LOG)) != ""
    assert same_turn(past, Turn(0, 4, Outcome.PROTOCOL, "record of kind 9: no", LOG)) == ""


def test_bytes_that_were_no_records_may_have_ended_well_in_their_process() -> None:
    past = PastTurn(0, (0, 0), b"", 0, 4, Outcome.PROTOCOL, b"no", "record at byte 0: 2 bytes")
    assert same_turn(past, Turn(0, 4, Outcome.BLOCKED, "", b"no")) == ""


def test_a_line_of_log_that_was_refused_is_the_sequencers_failure_too() -> None:
    script = Script("a")
    script.start()
    log = encode(Kind.LOG, b"x", id=1, item=9)  # No such item.
    script.ends("a", log)
    (past,) = Past(script.history()).turns(0)
    assert past.outcome == Outcome.PROTOCOL
    assert same_turn(past, Turn(0, 0, Outcome.BLOCKED, "", log)) == ""


# -- a past that is cut ----------------------------------------------------------------------------


def entry(step: int, micro: int) -> bytes:
    return TagEntry((step, micro)).close().body


ENTRIES = [entry(0, 0), entry(1, 3), step_entry(report(1), []).body, entry(2, 0), entry(2, 1)]


def test_an_entry_lies_at_its_tag_and_a_step_behind_all_its_tags() -> None:
    assert [place_of(body) for body in ENTRIES] == [(0, 0), (1, 3), (2, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("count", "tag"), [(0, (0, 0)), (1, (0, 1)), (2, (1, 4)), (3, (2, 0)), (4, (2, 1))]
)
def test_what_follows_on_a_record_comes_behind_its_last_entry(
    count: int, tag: tuple[int, int]
) -> None:
    assert behind(ENTRIES[:count]) == tag


@pytest.mark.parametrize(
    ("cut", "count"),
    [((0, 0), 0), ((0, 1), 1), ((1, 3), 1), ((1, 4), 2), ((2, 0), 3), ((2, 1), 4), ((9, 0), 5)],
)
def test_the_past_of_a_tag_is_what_lies_before_it(cut: tuple[int, int], count: int) -> None:
    assert Past(ENTRIES).before(cut).entries == ENTRIES[:count]


def test_what_was_kept_for_later_is_not_in_the_past_of_a_tag() -> None:
    kept = [
        chosen_effect(0, 1, (3, 1)),
        chosen_effect(0, 2, (4, 0)),
        chosen_step(DUE, 1, 3),
        chosen_step(DUE, 2, 4),
        chosen_step(CANCEL, 1, 3),
        outside(1, (3, 9)),
        outside(2, (4, 0)),
    ]
    past = Past(ENTRIES, kept)
    assert past.before((4, 0)).kept == [kept[0], kept[2], kept[4], kept[5]]
    assert [event.number for event in past.outside] == [1, 2]


def outside(number: int, tag: tuple[int, int]) -> bytes:
    head = struct.pack("<QII", 0, 0, 0)
    return encode(Kind.OUTSIDE, head, flags=What.EVENT, id=number, item=tag[0], peer=tag[1])


# -- damage ----------------------------------------------------------------------------------------


def read(past: Past) -> None:
    """Everything there is to read."""
    for agent in range(4):
        past.turns(agent)
    list(past.steps())
    assert past.last_step >= -1
    assert past.ended in (True, False)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([b""], "entry 0 of the history cannot be read: 0 bytes at byte 0, a header needs 32"),
        ([ENTRIES[0], encode(Kind.LOG)], "entry 1 .* begins with a record of kind 40"),
        ([ENTRIES[0] + b"x"], "entry 0 .* 1 bytes at byte 32"),
        ([ENTRIES[0] + b"\xff" * 32], "entry 0 .* size 4294967295 at byte 32"),
        ([ENTRIES[0] + encode(Kind.TURN, id=3, peer=1)], "agent 1 has turn 3, expected turn 0"),
        ([ENTRIES[0] + encode(Kind.EFFECT, peer=1)], "agent 1 has an effect of a turn 0 not begun"),
        (
            [ENTRIES[0] + encode(Kind.TURN, peer=1) + encode(Kind.EFFECT, flags=2, peer=1)],
            "agent 1 has a failed turn and no FAILED record",
        ),
        (
            [ENTRIES[0] + encode(Kind.TURN, peer=1) + encode(Kind.EFFECT, flags=9, peer=1)],
            "outcome 9 of agent 1's turn 0",
        ),
        ([ENTRIES[0] + encode(Kind.TURN, b"xy", peer=1)], "2 bytes at byte 0, a header needs"),
        ([encode(Kind.STEP, bytes(64), id=3)], "no STEP slot"),
        ([encode(Kind.STEP, report(3).body + b"x", id=3)], "the entry of a step cannot be read"),
        ([encode(Kind.STEP, report(3).body, id=4)], "entry of step 4 holds the report of step 3"),
    ],
)
def test_what_is_no_history_is_refused_with_its_place(entries: list[bytes], found: str) -> None:
    with pytest.raises(JournalCorrupt, match=found):
        read(Past(entries))


@cache
def some_run() -> Run:
    return simulate(3, 0)


@given(st.data())
def test_damaged_entries_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    entries = [bytearray(body) for body in some_run().entries[:40]]
    body = entries[data.draw(st.integers(0, len(entries) - 1))]
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read(Past([bytes(body) for body in entries]))
    except JournalCorrupt:
        pass
