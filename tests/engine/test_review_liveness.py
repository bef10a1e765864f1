"""What an independent review found: runs that stand still, or wait where nobody asked them to.

Each is expected to fail until the rule in its name holds; then its mark must go.
"""

from script import Script, emit, infer, send, timer

from lockstep.engine.outside import What
from lockstep.engine.record import Kind, decode

ARRIVAL = "order = 'arrival'"


def lines(script: Script, start: str) -> list[str]:
    return [line for line in map(script.shown, script.actions) if line.startswith(start)]


def test_items_cancelled_before_they_entered_do_not_stop_admission_for_ever() -> None:
    bounds = "items_in_flight_max = 1\nitems_reordered_max = 1"
    script = Script("a input = 'broadcast'", items=3, schedule=bounds)
    script.start()
    script.ends("a")
    script.comes(What.CANCEL_ITEM, 3, b"by a person")
    script.ends("a", emit(1, b'"x"'), fuel=200)  # Its work lets the cancel at 1.0 come first.
    assert lines(script, "output") == ["output 1: x"]
    assert lines(script, "wake a")[-1].endswith("ITEM 0/2 in2"), "the output waits for it"


def test_in_arrival_order_nobody_waits_for_who_still_works_however_much_is_said() -> None:
    script = Script("a\nb", schedule=ARRIVAL)
    script.start()
    script.ends("a")
    for _ in range(600):  # b stays in its turn 0.
        assert lines(script, "wake a")[-1] == script.shown(script.actions[-1])
        script.ends("a", send(0, b"and on"))


def test_in_arrival_order_nobody_waits_for_who_was_woken_by_the_same_jump() -> None:
    script = Script("a\nb", schedule=ARRIVAL)
    script.start()
    script.ends("a", timer(1, 40))
    script.ends("b", timer(1, 40))
    script.ends("a")
    script.ends("b")
    assert script.sequencer.tag == (40, 0)
    assert "ticket 1 of a due 40" in script.ends("a", infer(3)), "b's turn is none of its business"


def test_a_circle_is_freed_by_a_message_of_the_circle() -> None:
    script = Script("x\na mailbox_max = 1\nb mailbox_max = 1")
    script.start()
    script.ends("x", *[send(1, b"%d" % n) for n in range(50)])
    script.ends("a", *[send(2, b"%d" % n) for n in range(3)])
    script.ends("b", *[send(1, b"%d" % n) for n in range(3)])
    forced = [r for e in script.history() for r in decode(e) if r.kind == Kind.FORCED]
    # x is not in it: its 49 messages over the bound of 1 help nobody.
    assert {record.payload for record in forced} <= {b"a -> b -> a", b"b -> a -> b"}
    assert all(script.names[record.peer] in "ab" for record in forced)


def test_a_repeat_ends_where_the_record_does_though_a_request_is_open() -> None:
    first = Script("a", schedule=ARRIVAL)
    first.start()
    first.ends("a", infer(1))
    first.ends("a")  # Killed here: when ticket 1 was due is in no record.
    again = Script("a", schedule=ARRIVAL, recorded=first.kept())
    again.start()
    again.ends("a", infer(1))
    again.ends("a")
    assert again.history()[: len(first.history())] == first.history()
    assert again.sequencer.finished


def test_running_turns_leave_nothing_behind_in_arrival_order() -> None:
    script = Script("a", schedule=ARRIVAL)
    script.start()
    script.ends("a")
    for _ in range(100):
        script.ends("a", send(0, b"again"))
    assert len(script.sequencer._running._lows) < 50
