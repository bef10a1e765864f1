"""Replay: a record brings a sequencer to the present, compared entry by entry; then it is live."""

from dataclasses import replace

import pytest
from fleetmaker import make_fleet
from script import Script, emit, infer, report, send, timer
from simulator import Run, simulate

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.errors import Diverged
from lockstep.engine.outside import What
from lockstep.engine.past import Past, place_of
from lockstep.engine.plan import DUE
from lockstep.engine.record import Kind, Outcome, decode, encode
from lockstep.engine.replay import Replay
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.tag import Tag

ARRIVAL = "order = 'arrival'"


class Again:
    """A script's record, cut perhaps, and the sequencer that is brought back by it."""

    def __init__(self, script: Script, entries: int | None = None, **how: bool) -> None:
        self.script = script
        self.past = Past(script.history()[:entries], script.kept())
        self.again = script.another(self.past.kept)
        self.replay = Replay(self.again.sequencer, self.past, **how)

    def run(self, until: Tag | None = None) -> list[str]:
        """What the sequencer said in the record."""
        return [self.again.shown(action) for action in self.replay.run(until)]

    def beyond(self) -> list[str]:
        self.run()
        return [self.again.shown(action) for action in self.replay.beyond]


def replayed(run: Run, seed: int, entries: int, until: Tag | None = None) -> list[actions.Action]:
    fleet, items = make_fleet(seed)
    past = Past(run.entries[:entries], run.kept)
    return list(Replay(Sequencer(fleet, items, past.kept), past).run(until))


def bodies(done: list[actions.Action]) -> list[bytes]:
    return [action.entry.body for action in done if isinstance(action, actions.Append)]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_every_part_of_a_record_comes_out_again(first: int) -> None:
    for seed in range(first, first + 20):
        run = simulate(seed, 0)
        for count in {0, 1, 2, len(run.entries) // 2, len(run.entries) - 1}:
            assert bodies(replayed(run, seed, count)) == list(run.entries[:count])


def test_the_record_of_a_run_that_has_ended_ends_it_again_with_every_line() -> None:
    ends: dict[str, None] = {}
    for seed in range(60):
        run = simulate(seed, 0)
        done = replayed(run, seed, len(run.entries))
        assert done[-1] == actions.Finish(run.state, run.reason)
        assert [a.line for a in done if isinstance(a, actions.Output)] == list(run.outputs)
        assert not any(isinstance(action, actions.Grant) for action in done)
        ends[run.reason.split(" ")[0]] = None
    assert {"", "stalled", "steps_max", "turns_max", "agents"} <= ends.keys()


def test_a_record_can_be_left_before_any_tag() -> None:
    for seed in range(20):
        run = simulate(seed, 0)
        middle = place_of(run.entries[len(run.entries) // 2])
        for until in (middle, (middle[0] + 1, 0), tags.ORIGIN):
            expected = list(Past(run.entries).before(until).entries)
            assert bodies(replayed(run, seed, len(run.entries), until)) == expected


def fan() -> Script:
    """Two agents; a asks the model, b only listens."""
    script = Script("a input = 'broadcast'\nb", items=1)
    script.start()
    script.ends("a")
    script.ends("b")
    script.ends("b", fuel=900)  # At 9.0.
    script.ends("a", infer(7, item=1))
    script.steps(1, (1, 7))
    return script


def test_what_is_said_in_the_record_comes_out_in_its_order_without_grants() -> None:
    assert Again(fan()).run() == [
        "tag 0.0",
        "tag 0.1",
        "wake a#1 at 0.1: START, ITEM 0/1 in1",
        "wake b#1 at 0.1: START",
        "ticket 1 of a due 1",
        "tag 0.2",
        "step 1",
        "tag 2.0",
        "wake a#2 at 2.0: RESULT 7/0 of 1",
    ]


def test_behind_the_record_the_sequencer_is_live_and_grants() -> None:
    again = Again(fan())
    assert again.beyond() == ["grant 3 knowing 2"]
    # b's turn had ended, but at 9.0: nothing of it is recorded.
    assert again.replay.running == [0, 1]
    again.again.ends("b", fuel=900)
    assert again.again.ends("a", emit(1, b'"x"'))[:2] == ["tag 2.1", "output 1: x"]


def test_a_turn_whose_effect_was_lost_runs_again() -> None:
    again = Again(fan(), entries=2)
    assert again.beyond() == ["grant 1 knowing 0"]
    assert again.replay.running == [0, 1]
    script = again.again
    script.ends("a", infer(7, item=1))
    script.ends("b", fuel=900)
    script.steps(1, (1, 7))
    assert script.history() == again.script.history()[2:]


def test_before_the_first_entry_every_agent_is_in_its_turn_0() -> None:
    again = Again(fan(), entries=0)
    assert again.beyond() == ["tag 0.0", "grant 1 knowing 0"]
    assert again.replay.running == [0, 1]
    assert again.past.turns(0) == []


def test_a_turn_that_ran_on_while_the_record_went_on_does_not_hold_it_back() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", timer(1, 5))
    script.ends("b")
    script.ends("a")
    script.burnt("b", 900)  # Its effect cannot come before 9.0.
    assert script.sequencer.tag == (5, 0)
    again = Again(script)
    assert again.run()[-1] == "wake a#2 at 5.0: TIMER 1/0"
    assert again.replay.running == [0, 1]
    # It burns less now than it had shown before: that is another run.
    with pytest.raises(Diverged, match=r"turn 1 of agent b takes effect at 4\.0 by its 400 fuel"):
        again.again.ends("b", fuel=400)


def test_open_tickets_and_their_cancels_are_known() -> None:
    script = Script("a")
    script.start()
    script.ends("a")
    script.ends("a", infer(1), infer(2), timer(9, 3))
    script.steps(1, (2, 2))
    script.ends("a", encode(Kind.CANCEL, id=1))
    again = Again(script)
    again.run()
    shown = [again.again.shown(action) for action in again.replay.open_tickets()]
    assert shown == ["ticket 1 of a due 1", "revoke 1 due 3"]


TOOLS = "[tools.t]\ncommand = ['x']"


def calling() -> Script:
    script = Script("a tools = ['t']", rest=TOOLS)
    script.start()
    script.ends("a")
    calls = [encode(Kind.TOOL_CALL, b"in%d" % n, id=n, peer=0) for n in (1, 2, 3)]
    script.ends("a", *calls, encode(Kind.CANCEL, id=3))
    return script


def test_a_tool_call_is_open_until_it_is_answered_or_stopped() -> None:
    script = calling()
    again = Again(script)
    again.run()
    shown = [again.again.shown(call) for call in again.replay.open_calls()]
    assert shown == ["tool 0 for a call 1: in1", "tool 0 for a call 2: in2"]


def test_a_tool_call_whose_answer_was_kept_is_not_made_again() -> None:
    script = calling()
    entries = len(script.history())
    script.comes(What.TOOL, 1, b"out")
    again = Again(script, entries)
    again.run()
    assert [call.call for call in again.replay.open_calls()] == [2]
    # And it takes effect without anybody giving it.
    log = again.again.ends("a")
    assert "wake a#3 at 1.0: TOOL_RESULT 1/0 out" in log


# -- what diverges ---------------------------------------------------------------------------------


def test_an_entry_that_is_not_the_recorded_one_is_named_with_both_sides() -> None:
    script = fan()
    history = script.history()
    history[1] = history[1].replace(b"in1", b"in2")
    past = Past(history)
    with pytest.raises(Diverged, match=r"at 0\.1: recorded is .*in2.*, found .*in1"):
        list(Replay(script.another([]).sequencer, past).run())


def test_without_comparing_another_entry_passes() -> None:
    script = fan()
    history = script.history()
    history[1] = history[1].replace(b"in1", b"in2")
    done = list(Replay(script.another([]).sequencer, Past(history), compare=False).run())
    assert bodies(done) == script.history()


def test_a_missing_step_is_a_record_that_goes_on_where_the_sequencer_does_not() -> None:
    script = fan()
    history = [body for body in script.history() if next(decode(body)).kind != Kind.STEP]
    with pytest.raises(Diverged, match=r"goes on at 2\.0, but the sequencer waits behind 0\.2"):
        list(Replay(script.another([]).sequencer, Past(history)).run())


def test_a_record_that_cannot_have_happened_diverges() -> None:
    script = fan()
    history = script.history()
    step = next(n for n, body in enumerate(history) if next(decode(body)).kind == Kind.STEP)
    history.insert(step, history[step])
    with pytest.raises(Diverged, match=r"does not fit together: step 1 was reported after step 1"):
        list(Replay(script.another([]).sequencer, Past(history)).run())


# -- a record that is cut in the middle of something -----------------------------------------------


def stepping(schedule: str = "") -> Script:
    """Steps 1 to 3 run while b works; they are hashed before the tag 4.0, the last."""
    source = "[sources.s]\nkind = 'timer'\nevery_ms = 1\nto = ['a']"
    script = Script("a\nb", schedule=schedule, rest=source)
    script.start()
    script.ends("a")
    script.ends("b")
    script.ends("a", infer(1))
    script.burnt("b", 900)
    for step in (1, 2):
        script.steps(step)
    script.steps(3, (1, 1))
    return script


def test_steps_at_the_end_of_a_record_are_in_it_and_not_written_again() -> None:
    script = stepping()
    history = script.history()
    assert place_of(history[-1]) == place_of(history[-2]) == (4, 0)
    again = Again(script, entries=len(history) - 1)
    assert again.run()[-1] == "step 3"
    assert again.replay.beyond == [actions.Grant(5, 4)]
    log = again.again.ends("b", fuel=900)
    assert log[:2] == ["tag 4.0", "wake a#2 at 4.0: RESULT 1/0 of 1"]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("schedule", ["", "lookahead = 2\ncredit = 1"])
def test_what_comes_from_outside_comes_behind_the_steps_of_the_record(
    steps: int, schedule: str
) -> None:
    script = stepping(schedule)
    again = Again(script, entries=len(script.history()) - 4 + steps)
    assert again.run()[-1] == f"step {steps}"
    event = again.again.sequencer.outside(What.EVENT, 0)
    assert event.tag >= (steps + 1, 0)


def test_a_limit_that_ends_the_run_behind_the_record_ends_it_again() -> None:
    script = Script("a\nb", fleet="turns_max = 2")
    script.start()
    script.ends("a")
    script.ends("b")
    assert script.sequencer.finished
    again = Again(script, entries=len(script.history()) - 1)
    said = again.run()
    assert said[-2:] == ["wake a#1 at 0.1: START", "wake b#1 at 0.1: START"]
    beyond = [again.again.shown(action) for action in again.replay.beyond]
    assert beyond == ["tag 0.2", "stopped: turns_max = 2 is passed"]


def test_outside_events_that_were_kept_are_pending_and_later_ones_follow_them() -> None:
    script = stepping()
    entries = len(script.history())
    event = script.sequencer.outside(What.EVENT, 0)
    script.sequencer.pump()
    past = Past(script.history()[: entries - 4], [event.record()])
    again = script.another(past.kept)
    replay = Replay(again.sequencer, past)
    list(replay.run())
    later = again.sequencer.outside(What.EVENT, 0)
    assert (later.number, later.tag) == (2, event.tag)


# -- arrival order ---------------------------------------------------------------------------------


def arriving() -> Script:
    """a asks, b works; a's next turn has ended at 0.3, and that is all that is left of it."""
    script = Script("a\nb", schedule=ARRIVAL)
    script.start()
    script.ends("a", infer(1))
    script.ends("b")
    return script


def test_a_choice_of_which_only_the_record_is_left_wins() -> None:
    script = arriving()
    entries = len(script.history())
    script.ends("a", send(1, b"hi"))
    assert script.kept() != []
    again = Again(script, entries)
    again.run()
    assert again.replay.running == [0, 1]
    live = again.again
    # b ends first now, and is put behind: the tag of a, which comes first, is awaited.
    assert live.ends("b") == ["keep 0 1 0"]
    log = live.ends("a", send(1, b"hi"))
    assert log[0] == "tag 0.3"
    assert not any(line.startswith("keep") for line in log)


def test_the_engines_choice_is_kept_once() -> None:
    script = arriving()
    entries = len(script.history())
    choice = (DUE, 1, 0)
    script.sequencer.step_reported(replace(report(0), ordered=(choice,)))
    kept = [
        *script.kept(),
        *[a.record for a in script.sequencer.pump() if isinstance(a, actions.Keep)],
    ]
    past = Past(script.history()[:entries], kept)
    again = script.another(past.kept)
    replay = Replay(again.sequencer, past)
    list(replay.run())
    (issue,) = replay.open_tickets()
    assert isinstance(issue, actions.Issue)
    assert issue.ticket.due == 0
    again.sequencer.step_reported(replace(report(0), ordered=(choice,)))
    again.sequencer.step_reported(replace(report(1), ordered=((DUE, 2, 1),)))
    said = [again.shown(action) for action in again.sequencer.pump()]
    assert said == [f"keep {DUE} 2 1"]


def test_a_repeat_of_a_resumed_run_has_its_history() -> None:
    # As `verify` does it: the whole record, nothing behind it.
    script = arriving()
    entries = len(script.history())
    script.ends("a", send(1, b"hi"))
    again = Again(script, entries)
    again.run()
    live = again.again
    live.ends("b")
    live.ends("a", send(1, b"hi"))
    history = [*again.past.entries, *live.history()]
    kept = [*again.past.kept, *live.kept()]
    whole = script.another(kept)
    assert bodies(list(Replay(whole.sequencer, Past(history, kept)).run())) == history


def test_a_turn_of_the_record_is_fed_with_what_the_sequencer_made_of_it() -> None:
    script = Script("a")
    script.start()
    script.ends("a", encode(Kind.SUBSCRIBE), fuel=5)
    past = Past(script.history())
    reason = past.turn(0, 0).reason
    assert reason.startswith("record 0 (SUBSCRIBE")
    assert past.effect(0, 0) == Turn(0, 5, Outcome.PROTOCOL, reason, encode(Kind.SUBSCRIBE))
    assert Again(script).run()[-1] == "finished: "


def test_an_event_behind_a_cut_is_met_though_nobody_runs_and_no_step_is_left() -> None:
    feed = '[sources.feed]\nkind = "stdin"\nto = ["a"]'
    script = Script("a", rest=feed)
    script.start()
    script.ends("a")
    script.ends("a")
    assert script.sequencer.waits_for() == []
    script.comes(What.EVENT, 0, b"line")
    past = Past(script.history(), script.kept())
    step = place_of(past.entries[-1])[0]
    assert step > 0
    again = script.another(past.kept)
    fleet = replace(again.sequencer.world.fleet, turns_max=1000)
    replay = Replay(again.sequencer, past, changes=[(step, fleet)])
    assert bodies(list(replay.run())) == past.entries
    assert replay.running == [0]
