"""A trace: turns and entries as lines for people; nothing in them can reach a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script import Script, emit, infer, send, timer
from simulator import make_fleet, simulate

from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.order import chosen_effect, chosen_step
from lockstep.engine.outside import What
from lockstep.engine.past import Past
from lockstep.engine.plan import CANCEL, DUE
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_ERROR,
    FLAG_TOPIC,
    PEER_ALL,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    decode,
    decode_at,
    encode,
)
from lockstep.engine.trace import Trace, printable

TEXT = b"""
[schedule]
topics = ["news"]
[models.m]
path = "m"
[tools.calc]
command = ["x"]
[sources.clock]
kind = "timer"
every_ms = 1
to = ["b"]
[agents.a]
module = "x"
input = "broadcast"
tools = ["calc"]
[agents.b]
module = "x"
"""
SOURCES = """[tools.calc]
command = ['x']
[sources.clock]
kind = 'timer'
every_ms = 1
to = ['b']"""


def fleet() -> Fleet:
    return parse(TEXT, "f.toml")


def lines(entries: list[bytes]) -> list[str]:
    return [line for body in entries for line in Trace(fleet()).entry(body)]


def whole() -> Script:
    script = Script("a input = 'broadcast'; tools = ['calc']\nb", items=1, rest=SOURCES)
    script.start()
    script.ends("a")
    script.ends("b", encode(Kind.LOG, b"up\33[2J", id=2))
    script.ends("a", infer(7, item=1), encode(Kind.TOOL_CALL, b"2+2", id=8, item=1, peer=0))
    script.ends("b", send(0, b"hi"), timer(1, 5), outcome=Outcome.TRAPPED, reason="unreachable")
    script.comes(What.TOOL, 1, b"4")
    script.steps(1, (1, 7))
    script.ends("a")
    script.ends("a", emit(1, b'"x"'))
    return script


def test_a_history_is_shown_entry_by_entry() -> None:
    shown = lines(whole().history())
    assert shown[:11] == [
        "tag 0.0",
        "  a turn 0 begins",
        "  b turn 0 begins",
        "  admit item 1",
        "tag 0.1",
        "  a turn 0 takes effect: blocked, fuel 0",
        "  b turn 0 takes effect: blocked, fuel 0",
        "    > LOG warning: up\\x1b[2J",
        "  a turn 1 begins",
        '    < START to a: {"agent":"a","agents":["a","b"],"config":{},"models":["m"],'
        '"sources":["clock"],"tools":["calc"],"topics":[]}',
        "    < ITEM item 1: in1",
    ]
    for line in (
        "  b turn 1 takes effect: failed: trapped, fuel 0",
        "  failed b trapped: unreachable",
        "    > INFER m, id 7, item 1: {}",
        "    > TOOL_CALL calc, id 8, item 1: 2+2",
        "  ticket 1 of a item 1, due 1",
        "  call 1 of tool calc by a item 1",
        "step 1: 1 tokens, 1 answers",
        "  ticket 1: token 5",
        "  ticket 1 ends: RESULT id 7: of 1",
        "  outside 1 at 4.0: tool 1 4",
        "    < TOOL_RESULT calc, id 8, item 1: 4",
        '    > EMIT item 1: "x"',
        '  item 1 is done: "x"',
    ):
        assert line in shown, line


def test_a_turn_is_shown_with_its_events_its_effects_and_its_fuel() -> None:
    script = whole()
    past = Past(script.history())
    shown = list(Trace(fleet()).turn(1, past.turn(1, 1)))
    assert shown[0] == "0.1 b turn 1: failed: trapped (unreachable), fuel 0"
    assert shown[1].startswith("  < START to b: ")
    assert shown[2:] == ["  > SEND to a: hi", "  > SET_TIMER id 1: in 5 steps"]
    last = past.turns(0)[-1]
    assert last.outcome is None
    assert next(Trace(fleet()).turn(0, last)).endswith(": not over in the record")


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (encode(Kind.MESSAGE, b"hi", id=3, item=1, peer=1), "MESSAGE from b, id 3, item 1: hi"),
        (encode(Kind.SEND, b"hi", peer=PEER_ALL), "SEND to all: hi"),
        (encode(Kind.SEND, b"?", id=9, flags=FLAG_CALL, peer=0), "SEND to a, id 9, call: ?"),
        (encode(Kind.SEND, b"x", flags=FLAG_TOPIC), "SEND topic news: x"),
        (encode(Kind.SEND, b"x", flags=FLAG_TOPIC | 7 << TOPIC_SHIFT), "SEND topic 7?: x"),
        (encode(Kind.EVENT, id=1, peer=0), "EVENT clock, id 1"),
        (encode(Kind.RESULT, b"no", flags=FLAG_ERROR, id=1), "RESULT id 1, error: no"),
        (encode(Kind.LOG, b"a\nb", id=9, peer=1), "LOG stdout, level 9: a\\nb"),
        (encode(Kind.CLOSE), "CLOSE"),
        (encode(77, b"x", flags=3, peer=12), "kind 77 to 12?, flags 3: x"),
    ],
)
def test_a_record_is_one_line_with_names(record: bytes, shown: str) -> None:
    assert list(Trace(fleet()).records(record)) == [shown]


def test_bytes_that_are_no_records_are_said_to_be_none() -> None:
    (shown,) = Trace(fleet()).records(b"abc")
    assert shown == "no records: record at byte 0: 3 bytes, a header needs 32"


def test_what_was_kept_is_shown() -> None:
    trace = Trace(fleet())
    kept = [chosen_effect(1, 4, (7, 2)), chosen_step(DUE, 3, 9), chosen_step(CANCEL, 3, 11)]
    assert [trace.kept(decode_at(data, 0)[0]) for data in kept] == [
        "on arrival: turn 4 of b takes effect at 7.2",
        "on arrival: ticket 3 due 9",
        "on arrival: cancel of ticket 3 due 11",
    ]
    script = Script("a\nb", rest=SOURCES)
    script.start()
    event = script.sequencer.outside(What.EVENT, 0, b"now")
    assert trace.kept(decode_at(event.record(), 0)[0]) == "outside 1 at 1.0: event clock now"
    assert trace.kept(Record(Kind.OUTSIDE, 0, 5, 0, 0, b"")) == "outside 5: OUTSIDE 5: malformed"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"caf\xc3\xa9 \xf0\x9f\x98\x80", "café \U0001f600"),
        (b"\xff\x00\n\r\t", "\\xff\\x00\\n\\r\\t"),
        ("a\u202eb\u2028\U000e0041".encode(), "a\\u202eb\\u2028\\U000e0041"),
        (b"0123456789", "01234... (10 bytes)"),
    ],
)
def test_a_payload_is_escaped_and_cut(data: bytes, shown: str) -> None:
    most = 5 if data.startswith(b"0") else 160
    assert printable(data, most) == shown


@given(st.binary(max_size=300))
def test_nothing_printed_can_do_anything(data: bytes) -> None:
    text = printable(data)
    assert text == "" or text.isprintable()


def test_every_entry_of_simulated_runs_can_be_shown() -> None:
    for seed in range(12):
        trace = Trace(make_fleet(seed)[0])
        run = simulate(seed, 0)
        for body in run.entries:
            shown = list(trace.entry(body))
            assert len(shown) >= len(list(decode(body)))
            assert all(line.isprintable() for line in shown)
        for data in run.kept:
            assert trace.kept(decode_at(data, 0)[0]).isprintable()
