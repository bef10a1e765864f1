"""Outside events (rule 8): a tag that nothing can have reached, kept, and repeated."""

import pytest
from script import Script, emit, infer

from lockstep.engine import actions
from lockstep.engine.errors import ProtocolError
from lockstep.engine.outside import Outside, What, from_record
from lockstep.engine.record import FLAG_ERROR, Kind, Outcome, Record, decode, decode_at, encode

TOOL = "[tools.t]\ncommand = ['x']"
CALLER = "a tools = ['t']"


def use(request: int, payload: bytes = b"in", item: int = 0) -> bytes:
    return encode(Kind.TOOL_CALL, payload, id=request, item=item, peer=0)


def calling(agents: str = CALLER, **settings: str) -> Script:
    script = Script(agents, rest=TOOL, **settings)
    script.start()
    return script


# -- the tag ----------------------------------------------------------------------------------


def test_an_event_comes_behind_everything_that_was_granted() -> None:
    script = Script("a")
    script.start()
    script.ends("a", infer(1))
    assert script.ends("a")[-1] == "grant 5 knowing 0"
    # A request that the event causes is due at 4 + lookahead: the first step not granted.
    assert script.comes(What.EVENT, 0)[0] == "keep outside 1 at 4.0"


def test_an_event_comes_behind_the_last_processed_tag() -> None:
    rest = "[sources.s]\nkind = 'stdin'\nto = ['a']"
    script = Script("a", rest=rest, schedule="credit = 1")
    script.start()
    script.ends("a")
    script.ends("a")
    log = script.comes(What.EVENT, 0, b"one")
    assert log[:3] == ["keep outside 1 at 1.0", "tag 1.0", "wake a#2 at 1.0: EVENT 1/0 one"]
    script.ends("a")
    assert script.comes(What.EVENT, 0, b"two")[0] == "keep outside 2 at 2.0"


def test_events_of_one_tag_come_in_the_order_of_arrival() -> None:
    rest = "[sources.s]\nkind = 'stdin'\nto = ['a']\n[sources.z]\nkind = 'stdin'\nto = ['a']"
    script = Script("a", rest=rest)
    script.start()
    script.comes(What.EVENT, 1, b"first")
    script.comes(What.EVENT, 0, b"second")
    script.ends("a")
    assert "wake a#2 at 1.0: EVENT 1/0 first, EVENT 2/0 second" in script.ends("a")


# -- sources ----------------------------------------------------------------------------------


def test_a_source_holds_the_end_until_it_is_closed() -> None:
    script = Script("a", rest="[sources.s]\nkind = 'stdin'\nto = ['a']")
    script.start()
    script.ends("a")
    assert not any("CLOSE" in line for line in script.ends("a"))
    log = script.comes(What.CLOSED, 0)
    assert log[-2:] != []
    assert any("CLOSE" in line for line in log)


def test_a_timer_without_an_end_does_not_hold_the_run() -> None:
    rest = "[sources.s]\nkind = 'timer'\nevery_ms = 5\nto = ['a']"
    script = Script("a", rest=rest)
    script.start()
    script.ends("a")
    assert any("CLOSE" in line for line in script.ends("a"))


def test_lines_of_a_source_are_items_with_their_own_ids() -> None:
    script = Script("a input = 'broadcast'", items=1, rest="[sources.s]\nkind = 'stdin'")
    script.start()
    script.ends("a")
    script.ends("a", emit(1, b'"x"'))
    script.comes(What.ITEM, 0, b'{"id": "two"}')
    log = script.comes(What.ITEM, 0, b'{"q": 3}')
    script.ends("a", emit(2, b'"y"'))
    script.ends("a", emit(3, b'"z"'))
    script.comes(What.CLOSED, 0)
    log = [script.shown(action) for action in script.actions]
    assert [line for line in log if line.startswith("output")] == [
        "output 1: x",
        "output two: y",
        "output 3: z",
    ]


# -- tools ------------------------------------------------------------------------------------


def test_a_tool_is_called_and_its_answer_comes_back_under_its_number() -> None:
    script = calling()
    script.ends("a")
    log = script.ends("a", use(7, b"2+2"))
    assert log == ["tool 0 for a call 1: 2+2", "tag 0.2", "grant 4 knowing 0"]
    assert script.comes(What.TOOL, 1, b"4") == [
        "keep outside 1 at 3.0",
        "tag 3.0",
        "wake a#2 at 3.0: TOOL_RESULT 7/0 4",
    ]
    script.ends("a", use(7, b"again"))  # The number is free again.
    script.comes(What.TOOL, 2, b"no", FLAG_ERROR)
    wakes = [action for action in script.actions if isinstance(action, actions.Wake)]
    assert decode_at(wakes[-1].events, 0)[0].flags == FLAG_ERROR


def test_a_tool_that_works_holds_the_end_but_not_the_others() -> None:
    script = calling(CALLER + "\nb")
    script.ends("b", infer(1))
    script.ends("a", use(7))
    script.ends("a")
    script.ends("b")
    log = script.steps(1, (1, 1))
    assert "wake b#2 at 2.0: RESULT 1/0 of 1" in log, "the run goes on"
    log = script.ends("b")
    assert not any("CLOSE" in line for line in log), "but it does not end"
    assert any("TOOL_RESULT" in line for line in script.comes(What.TOOL, 1, b"4"))


def test_a_cancelled_tool_call_ends_at_the_tag_of_the_cancel() -> None:
    script = calling()
    script.ends("a", use(7))
    log = script.ends("a", encode(Kind.CANCEL, id=7))
    assert "stop tool call 1" in log
    assert "wake a#2 at 0.2: CANCELLED 7/0" in log
    # What the command said meanwhile is void.
    assert not any("TOOL_RESULT" in line for line in script.comes(What.TOOL, 1, b"4"))


def test_the_tools_of_an_agent_that_ends_are_stopped() -> None:
    script = calling(CALLER + "\nb")
    script.ends("b")
    script.ends("a", use(7))
    script.ends("b")
    assert "stop tool call 1" in script.ends("a", outcome=Outcome.TRAPPED, reason="oops")


def test_a_tool_call_for_an_item_is_cancelled_with_it() -> None:
    script = calling(CALLER + "; input = 'broadcast'", items=1)
    script.ends("a")
    log = script.ends("a", use(7, item=1), encode(Kind.CANCEL, item=1), use(8, item=1))
    assert [line for line in log if "tool" in line] == [
        "tool 0 for a call 1: in",
        "stop tool call 1",
        "tool 0 for a call 2: in",
        "stop tool call 2",
    ]
    told = "CANCELLED 0/1 cancelled by agent a, CANCELLED 7/1, CANCELLED 8/1"
    assert log[-1] == f"wake a#2 at 0.2: {told}"


# -- again ------------------------------------------------------------------------------------


def whole_run(script: Script, live: bool) -> list[bytes]:
    """Two agents: a tool answers while a request is open, and cancels nothing of it."""
    script.start()
    script.ends("b", infer(1))
    script.ends("a", use(7))
    script.ends("b")
    script.ends("a")
    if live:
        script.comes(What.TOOL, 1, b"4")
    for step in range(1, 6):
        script.steps(step, *([(1, 1)] if step == 5 else []))
    while not script.sequencer.finished:
        for agent in script.sequencer.waits_for():
            script.ends(script.names[agent])
    return script.history()


def test_a_repeat_has_every_event_from_the_start_and_the_same_history() -> None:
    first = Script(CALLER + "\nb", rest=TOOL)
    history = whole_run(first, live=True)
    assert any(record.kind == Kind.TOOL_RESULT for record in delivered(history))
    again = Script(CALLER + "\nb", rest=TOOL, recorded=first.kept())
    assert whole_run(again, live=False) == history
    assert again.kept() == first.kept()
    assert not first.sequencer.regenerative
    assert not again.sequencer.regenerative


def delivered(history: list[bytes]) -> list[Record]:
    turns = [r for entry in history for r in decode(entry) if r.kind == Kind.TURN]
    return [event for turn in turns for event in decode(turn.payload)]


def test_a_run_that_nothing_reached_is_regenerative() -> None:
    script = calling()
    script.ends("a")
    assert script.sequencer.regenerative


def test_a_run_that_went_on_without_a_tools_answer_is_not_regenerative() -> None:
    # With a faster tool the answer would have come first, and the run would be another one.
    script = calling()
    script.ends("a", use(7))
    script.ends("a", encode(Kind.CANCEL, id=7))
    assert not script.kept()
    assert not script.sequencer.regenerative


def test_a_run_whose_source_might_have_brought_something_is_not_regenerative() -> None:
    endless = "[sources.s]\nkind = 'timer'\nevery_ms = 5\nto = ['a']"
    script = Script("a", rest=endless)
    script.start()
    while not script.sequencer.finished:
        script.ends("a")
    assert not script.kept()
    assert not script.sequencer.regenerative


def test_an_event_survives_its_record() -> None:
    event = Outside(3, (4, 5), What.TOOL, 2**40, FLAG_ERROR, b"payload")
    assert from_record(decode_at(event.record(), 0)[0]) == event


@pytest.mark.parametrize("bad", [Record(Kind.OUTSIDE, 1, 0, 0, 0, b"short"),
                                 Record(Kind.OUTSIDE, 99, 0, 0, 0, bytes(16))])  # fmt: skip
def test_a_malformed_event_is_refused(bad: Record) -> None:
    with pytest.raises(ProtocolError, match="OUTSIDE 0: malformed"):
        from_record(bad)
