"""Arrival order (rule 11): what physically came first goes first, and is kept to be repeated."""

from script import Script, emit, infer, report, send, timer

from lockstep.engine.planner import CANCEL, DUE
from lockstep.engine.record import Kind, decode
from lockstep.engine.wire import FromEngine

ARRIVAL = "order = 'arrival'"


def test_a_turn_takes_effect_at_the_next_free_microstep_however_much_it_burnt() -> None:
    script = Script("a\nb", schedule=ARRIVAL)
    assert script.start() == ["tag 0.0", f"grant {2**48 + 1} knowing 0"]
    assert script.ends("b", send(0, b"hi"), fuel=10_000) == [
        "keep 0 0 0",
        "tag 0.1",
        "wake b#1 at 0.1: START",
    ]
    # a's turn 0 is not over: nothing waited for it.
    assert script.ends("a")[1:] == ["tag 0.2", "wake a#1 at 0.2: START, MESSAGE 0/0 hi"]


def test_the_engine_is_never_held() -> None:
    script = Script("a\nb", schedule=ARRIVAL)
    script.start()
    script.ends("a", infer(1))
    grants = [line for line in map(script.shown, script.actions) if line.startswith("grant")]
    assert len(grants) == 1
    assert script.sequencer.horizon.held_by() is None


def test_a_ticket_is_due_when_the_engine_takes_it_and_history_has_it_in_the_step() -> None:
    script = Script("a", schedule=ARRIVAL)
    script.start()
    script.ends("a", infer(1))
    script.ends("a")
    step = report(3, [(1, 1)])
    taken = type(step)(step.step, step.body, step.tokens, step.answers, ((DUE, 1, 3),))
    script.sequencer.step_reported(taken)
    log = [script.shown(action) for action in script.sequencer.pump()]
    assert log[0] == f"keep {DUE} 1 3"
    tickets = [r for entry in script.history() for r in decode(entry) if r.kind == Kind.TICKET]
    assert tickets[0].payload[:8] == bytes(8)


def test_steps_come_behind_what_the_sequencer_has_done_in_them() -> None:
    script = Script("a\nb", schedule=ARRIVAL)
    script.start()
    script.ends("a", infer(1))
    script.steps(0, (1, 1))
    # Step 0 is reported, so the current step is 1.
    assert script.ends("b")[1:] == ["tag 1.1", "wake b#1 at 1.1: START"]


def test_a_timer_of_an_idle_run_is_a_jump_but_waits_for_who_still_works() -> None:
    script = Script("a\nb", schedule=ARRIVAL)
    script.start()
    script.ends("a", timer(9, 40))
    script.ends("a")
    assert not any("40.0" in line for line in map(script.shown, script.actions))
    script.ends("b")
    log = script.ends("b")
    assert "wake a#2 at 40.0: TIMER 9/0" in log


def everything(script: Script, order: str) -> list[bytes]:
    """Turns end in this order, over and over, until the run has ended."""
    script.start()
    turns = {"a": [(emit(1, b'"x"'),), (send(1, b"for b"),)], "b": [(send(0, b"for a"),), ()]}
    while not script.sequencer.finished:
        for name in order:
            index = script.names.index(name)
            if index in script.sequencer.waits_for():
                records = turns[name].pop(0) if turns[name] else ()
                number = script.sequencer.world.agents[index].turn
                script.ends(name, *(records if number else ()))
    return script.history()


FLEET = "a input = 'broadcast'\nb"


def test_a_repeat_in_any_order_has_the_history_that_was_kept() -> None:
    first = Script(FLEET, items=1, schedule=ARRIVAL)
    history = everything(first, "ab")
    other = Script(FLEET, items=1, schedule=ARRIVAL)
    assert everything(other, "ba") != history
    again = Script(FLEET, items=1, schedule=ARRIVAL, recorded=first.kept())
    assert everything(again, "ba") == history
    assert again.kept() == first.kept()


def test_a_repeat_ends_where_the_record_does() -> None:
    first = Script(FLEET, items=1, schedule=ARRIVAL)
    history = everything(first, "ab")
    again = Script(FLEET, items=1, schedule=ARRIVAL, recorded=first.kept()[:3])
    cut = everything(again, "ba")
    assert script_end(again) == "stopped: the record of the order ends here"
    assert cut[:-1] == history[: len(cut) - 1]


def script_end(script: Script) -> str:
    return script.shown(script.actions[-1])


def test_the_numbers_of_the_record_are_those_of_the_wire() -> None:
    assert FromEngine.TAKEN == 7
    assert (DUE, CANCEL) == (1, 2)
