"""The sequencer in small hand-written scenarios: whole logs of what it wants done."""

import pytest
from script import QUANTUM, Script, emit, infer, report, send, timer

from lockstep.engine import actions
from lockstep.engine.effects import Turn
from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.engine.record import Kind, Outcome, decode, encode
from lockstep.engine.strict_json import loads

# -- start, echo, end -----------------------------------------------------------------------------


def test_an_echo_is_woken_answers_and_is_closed_once() -> None:
    script = Script("a input = 'broadcast'", items=1)
    assert script.start() == ["tag 0.0", "grant 1 knowing 0"]
    # START and what came meanwhile are delivered at the F of turn 0 (rule 16).
    assert script.ends("a") == ["tag 0.1", "wake a#1 at 0.1: START, ITEM 0/1 in1"]
    assert script.ends("a", emit(1, b'"x"')) == [
        "tag 0.2",
        "output 1: x",
        "tag 0.3",
        "wake a#2 at 0.3: CLOSE 0/0",
    ]
    assert script.ends("a") == ["tag 0.4", "tag 0.5", "finished: "]
    assert script.sequencer.finished
    assert script.sequencer.world.counts.turns == 3


def test_start_tells_the_roster_and_the_config() -> None:
    script = Script("a replicas = 2\nb config = { k = 1 }")
    script.start()
    for agent in ("a.0", "a.1", "b"):
        script.ends(agent)
    starts = [next(decode(w.events)) for w in script.actions if isinstance(w, actions.Wake)]
    assert [(s.kind, s.id, s.item, s.peer) for s in starts] == [
        (Kind.START, 0, 3, 0),
        (Kind.START, 1, 3, 1),
        (Kind.START, 0, 3, 2),
    ]
    assert loads(starts[2].payload) == {
        "agent": "b",
        "agents": ["a.0", "a.1", "b"],
        "models": ["m"],
        "topics": [],
        "tools": [],
        "sources": [],
        "config": {"k": 1},
    }


def test_a_start_record_larger_than_a_record_may_be_is_refused_before_the_run() -> None:
    with pytest.raises(
        UsageError, match=r"START of agent a \(its config and 1 names\) has 1\d{3} "
    ):
        Script(f"a config = {{ k = '{'x' * 1000}' }}", fleet="record_bytes_max = 1024")


def test_the_fuel_before_the_first_turn_call_delays_start() -> None:
    script = Script("a delay = 3")
    script.start()
    assert script.ends("a", fuel=QUANTUM) == [
        "tag 3.0",
        "wake a#1 at 3.0: START",
        "grant 4 knowing 0",
    ]


def test_what_was_submitted_before_the_first_turn_call_takes_effect() -> None:
    script = Script("a")
    script.start()
    assert script.ends("a", infer(1)) == [
        "ticket 1 of a due 1",
        "tag 0.1",
        "wake a#1 at 0.1: START",
    ]


# -- messages -------------------------------------------------------------------------------------


def test_two_agents_exchange_messages_at_the_tags_their_fuel_says() -> None:
    script = Script("a\nb")
    log = [
        script.start(),
        script.ends("a", send(1, b"hi"), send(1, b"ho")),
        script.ends("b"),
        script.ends("b", send(0, b"yo"), fuel=250),
        script.ends("a"),
        script.ends("a"),
        script.ends("a"),
        script.ends("b"),
    ]
    assert log == [
        ["tag 0.0", "grant 1 knowing 0"],
        [],  # b may still send to a at 0.1.
        [
            "tag 0.1",
            "wake a#1 at 0.1: START",
            "wake b#1 at 0.1: START, MESSAGE 0/0 hi, MESSAGE 0/0 ho",
        ],
        [],
        ["tag 0.2", "tag 2.0", "wake a#2 at 2.0: MESSAGE 0/0 yo", "grant 3 knowing 0"],
        ["tag 2.1", "tag 2.2", "wake a#3 at 2.2: CLOSE 0/0", "wake b#2 at 2.2: CLOSE 0/0"],
        [],
        ["tag 2.3", "tag 2.4", "finished: "],
    ]


def test_whoever_ends_first_the_log_is_the_same() -> None:
    logs = []
    for order in ("ab", "ba"):
        script = Script("a\nb")
        script.start()
        said = {"a": infer(1), "b": send(0, b"x")}
        logs.append([script.ends(agent, said[agent]) for agent in order][1])
    assert logs[0] == logs[1]


def test_events_for_an_agent_whose_turn_is_not_over_are_kept_until_its_effects() -> None:
    script = Script("a\nb")
    script.start()
    assert script.ends("a") == []
    assert script.ends("b", fuel=500) == ["tag 0.1", "wake a#1 at 0.1: START"]
    assert script.ends("a", send(1, b"1")) == [
        "tag 0.2",
        "tag 5.0",
        "wake b#1 at 5.0: START, MESSAGE 0/0 1",
        "grant 4 knowing 0",
    ]


def test_a_message_to_an_agent_that_has_ended_comes_back() -> None:
    script = Script("a\nb")
    log = [
        script.start(),
        script.ends("a", send(1, b"early", id=7), fuel=100),
        script.ends("b", encode(Kind.DONE)),
        script.ends("a", send(1, b"late", id=8)),
        script.ends("a"),
        script.ends("a"),
    ]
    assert log == [
        ["tag 0.0", "grant 1 knowing 0"],
        [],
        [
            "bury b: ",
            "tag 0.1",
            "tag 1.0",
            "wake a#1 at 1.0: START, UNDELIVERED 7/0 early",
            "grant 2 knowing 0",
        ],
        ["tag 1.1", "wake a#2 at 1.1: UNDELIVERED 8/0 late"],
        ["tag 1.2", "tag 1.3", "wake a#3 at 1.3: CLOSE 0/0"],
        ["tag 1.4", "tag 1.5", "finished: "],
    ]


def test_the_return_of_main_takes_effect_and_a_non_zero_exit_fails_the_agent() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", send(1, b"bye"), outcome=Outcome.RETURNED)
    assert script.ends("b") == [
        "bury a: ",
        "tag 0.1",
        "wake b#1 at 0.1: START, MESSAGE 0/0 bye",
    ]
    assert script.ends("b", send(0, b"?")) == ["tag 0.2", "wake b#2 at 0.2: UNDELIVERED 0/0 ?"]
    assert script.ends("b", outcome=Outcome.EXITED, reason="code 3") == [
        "bury b: exited: code 3",
        "tag 0.3",
        "tag 0.4",
        "tag 0.5",
        "finished: ",
    ]
    assert script.sequencer.world.failures == [("b", "exited: code 3")]


# -- failures -------------------------------------------------------------------------------------


def test_a_trap_fails_items_cancels_requests_returns_mail_and_keeps_logs() -> None:
    script = Script("a input = 'broadcast'\nb input = 'broadcast'\nc", items=2)
    script.start()
    script.ends("c")
    script.ends("b")
    assert script.ends("a", infer(1), infer(2)) == [
        "ticket 1 of a due 1",
        "ticket 2 of a due 1",
        "tag 0.1",
        "wake a#1 at 0.1: START, ITEM 0/1 in1, ITEM 0/2 in2",
        "wake b#1 at 0.1: START, ITEM 0/1 in1, ITEM 0/2 in2",
        "wake c#1 at 0.1: START",
    ]
    script.ends("c")
    script.ends("b", send(0, b"hi"))
    what = [encode(Kind.LOG, b"oops", id=3), emit(1, b"no"), send(2, b"no")]
    assert script.ends("a", *what, outcome=Outcome.TRAPPED, reason="unreachable") == [
        "log a 3 0: oops",
        "revoke 1 due 1",
        "revoke 2 due 1",
        "bury a: trapped: unreachable",
        "tag 0.2",
        "output 1: agent a failed: trapped: unreachable",
        "output 2: agent a failed: trapped: unreachable",
        "wake b#2 at 0.2: UNDELIVERED 0/0 hi",
    ]
    assert script.sequencer.world.failures == [("a", "trapped: unreachable")]


def test_answers_for_an_agent_that_has_failed_are_dropped() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", infer(1))
    script.ends("b")
    script.ends("b")
    script.ends("a", outcome=Outcome.OUT_OF_FUEL, reason="100 units")
    assert script.steps(1, (1, 1)) == [
        "step 1",
        "tag 2.0",
        "tag 2.1",
        "wake b#2 at 2.1: CLOSE 0/0",
        "grant 3 knowing 2",
    ]


def test_a_broken_protocol_lets_nothing_of_the_turn_take_effect_but_its_logs() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("b")
    log = encode(Kind.LOG, b"l", id=0, peer=2)
    assert script.ends("a", send(1, b"x"), log, emit(1, b"no"), infer(1)) == [
        "log a 0 2: l",
        "bury a: protocol: record 2 (EMIT, kind 34, item 1): item 1, expected 1 to 0",
        "tag 0.1",
        "wake b#1 at 0.1: START",
    ]


# -- requests -------------------------------------------------------------------------------------


def test_requests_are_dealt_one_per_agent_in_turn_and_answered_at_the_next_step() -> None:
    script = Script("a\nb")
    log = [
        script.start(),
        script.ends("a", infer(40), infer(41)),
        script.ends("b", infer(7), infer(8)),
        script.ends("a"),
        script.ends("b"),
        script.steps(1, (1, 40)),
        script.ends("a"),
        script.steps(2, (2, 7), (3, 41)),
    ]
    assert log == [
        ["tag 0.0", "grant 1 knowing 0"],
        [],
        [
            "ticket 1 of a due 1",
            "ticket 2 of b due 1",
            "ticket 3 of a due 1",
            "ticket 4 of b due 1",
            "tag 0.1",
            "wake a#1 at 0.1: START",
            "wake b#1 at 0.1: START",
        ],
        [],
        ["tag 0.2", "grant 5 knowing 0"],
        ["step 1", "tag 2.0", "wake a#2 at 2.0: RESULT 40/0 of 1", "grant 3 knowing 2"],
        ["tag 2.1", "grant 6 knowing 2"],
        [
            "step 2",
            "tag 3.0",
            "wake a#3 at 3.0: RESULT 41/0 of 3",
            "wake b#2 at 3.0: RESULT 7/0 of 2",
            "grant 4 knowing 3",
        ],
    ]
    counts = script.sequencer.world.counts
    assert (counts.tokens_in, counts.tokens_out, counts.steps) == (9, 3, 2)


def test_a_cancel_is_due_like_a_ticket_and_void_for_unknown_requests() -> None:
    script = Script("a")
    script.start()
    script.ends("a", infer(1))
    cancels = [encode(Kind.CANCEL, id=n) for n in (1, 9)]
    assert script.ends("a", *cancels, fuel=300) == ["grant 4 knowing 0"]
    assert script.steps(1) == ["grant 4 knowing 2"]
    assert script.steps(2) == [
        "step 1",
        "step 2",
        "revoke 1 due 4",
        "tag 3.0",
        "grant 7 knowing 3",
    ]


def test_a_cancel_reaches_what_was_written_before_it_and_nothing_behind_it() -> None:
    def asked(*records: bytes) -> list[str]:
        script = Script("a input = 'deal'")
        script.start()
        log = script.ends("a", *records)
        return [line for line in log if line.split()[0] in ("ticket", "revoke")]

    cancel = encode(Kind.CANCEL, id=7)
    before, behind = asked(cancel, infer(7)), asked(infer(7), cancel)
    assert len(before) == 1 and len(behind) == 2, (before, behind)
    assert before[0] == behind[0]


def test_a_cancel_of_an_answered_request_is_void() -> None:
    script = Script("a")
    script.start()
    script.ends("a", infer(1), timer(1, 2))
    script.ends("a", fuel=200)
    assert script.steps(1, (1, 1)) == [
        "step 1",
        "tag 2.0",
        "wake a#2 at 2.0: RESULT 1/0 of 1, TIMER 1/0",
        "grant 3 knowing 2",
    ]
    assert script.ends("a", encode(Kind.CANCEL, id=1))[0] == "tag 2.1"


def test_without_lookahead_a_request_is_due_at_its_own_step() -> None:
    script = Script("a", schedule="lookahead = 0")
    assert script.start() == ["tag 0.0", "grant 0 knowing 0"]
    assert script.ends("a", infer(1))[0] == "ticket 1 of a due 0"
    assert script.ends("a") == ["tag 0.2", "grant 4 knowing 0"]
    assert script.steps(0, (1, 1)) == [
        "step 0",
        "tag 1.0",
        "wake a#2 at 1.0: RESULT 1/0 of 1",
        "grant 1 knowing 1",
    ]


def test_the_horizon_never_passes_the_next_step_or_due_by_more_than_the_credit() -> None:
    script = Script("a", schedule="credit = 2")
    script.start()
    log = [script.ends("a", infer(1), fuel=500), script.ends("a"), script.steps(6), script.steps(7)]
    assert log == [
        ["ticket 1 of a due 6", "tag 5.0", "wake a#1 at 5.0: START", "grant 6 knowing 0"],
        ["tag 5.1", "grant 8 knowing 0"],
        ["grant 9 knowing 7"],
        ["grant 10 knowing 8"],
    ]


def test_published_fuel_lets_others_go_on_and_never_falls() -> None:
    script = Script("a\nb")
    script.start()
    log = [
        script.ends("a", send(0, b"x")),
        script.burnt("b", 99),
        script.burnt("b", 100),
        script.burnt("b", 50),
        script.burnt("b", 350),
        script.ends("a", fuel=200),
        script.ends("b", fuel=350),
    ]
    assert log == [
        [],
        [],  # Less than a quantum: b may still take effect at 0.1.
        ["tag 0.1", "wake a#1 at 0.1: START, MESSAGE 0/0 x"],
        [],
        [],
        ["tag 2.0", "grant 4 knowing 0"],
        ["tag 3.0", "wake b#1 at 3.0: START"],
    ]


# -- timers ---------------------------------------------------------------------------------------


def test_timers_fire_at_their_step_in_the_order_they_were_set() -> None:
    script = Script("a")
    script.start()
    log = [
        script.ends("a", timer(1, 4), timer(2, 2), timer(3, 2)),
        script.ends("a", timer(4, 1)),
        script.ends("a"),
        script.ends("a"),
        script.ends("a"),
    ]
    assert log == [
        ["tag 0.1", "wake a#1 at 0.1: START"],
        ["tag 0.2", "tag 1.0", "wake a#2 at 1.0: TIMER 4/0", "grant 2 knowing 0"],
        ["tag 1.1", "tag 2.0", "wake a#3 at 2.0: TIMER 2/0, TIMER 3/0", "grant 3 knowing 0"],
        ["tag 2.1", "tag 4.0", "wake a#4 at 4.0: TIMER 1/0", "grant 4 knowing 0"],
        ["tag 4.1", "tag 4.2", "wake a#5 at 4.2: CLOSE 0/0"],
    ]


def test_a_timer_waits_for_the_steps_before_it_while_a_request_is_open() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("b")
    script.ends("a", timer(1, 2), infer(1))
    script.ends("a")
    assert script.ends("b") == ["tag 0.2", "grant 3 knowing 0"]
    assert script.steps(1) == [
        "step 1",
        "tag 2.0",
        "wake a#2 at 2.0: TIMER 1/0",
        "grant 3 knowing 2",
    ]
    assert script.steps(2, (1, 1)) == ["grant 3 knowing 3"]
    assert script.ends("a") == [
        "tag 2.1",
        "step 2",  # After every tag of step 2.
        "tag 3.0",
        "wake a#3 at 3.0: RESULT 1/0 of 1",
        "grant 4 knowing 3",
    ]


# -- items ----------------------------------------------------------------------------------------


def test_items_follow_in_the_next_microstep_and_stalled_ones_name_their_holder() -> None:
    script = Script("a input = 'broadcast'\nb", items=3, schedule="items_in_flight_max = 2")
    script.start()
    log = [
        script.ends("a"),
        script.ends("b"),
        script.ends("b"),
        script.ends("a", emit(2, b"2")),
        script.ends("a"),
        script.ends("a"),
        script.ends("b"),
    ]
    assert log == [
        [],
        [
            "tag 0.1",
            "wake a#1 at 0.1: START, ITEM 0/1 in1, ITEM 0/2 in2",
            "wake b#1 at 0.1: START",
        ],
        [],
        ["tag 0.2", "tag 0.3", "wake a#2 at 0.3: ITEM 0/3 in3"],
        ["tag 0.4", "tag 0.5", "wake a#3 at 0.5: CLOSE 0/0", "wake b#2 at 0.5: CLOSE 0/0"],
        [],
        [
            "tag 0.6",
            "tag 0.7",
            "output 1: stalled; it was held by a",
            "output 2: 2",
            "output 3: stalled; it was held by a",
            "finished: stalled",
        ],
    ]


def test_items_that_never_entered_are_accounted_for() -> None:
    script = Script("a input = 'broadcast'", items=3, schedule="items_in_flight_max = 1")
    script.start()
    script.ends("a")
    script.ends("a")
    assert script.ends("a") == [
        "tag 0.4",
        "tag 0.5",
        "output 1: stalled; it was held by a",
        "output 2: stalled; the item never entered",
        "output 3: stalled; the item never entered",
        "finished: stalled",
    ]


def test_an_item_for_an_agent_that_has_ended_fails_and_the_next_ones_too() -> None:
    script = Script("a input = 'deal'; replicas = 2", items=4)
    script.start()
    script.ends("a.0", outcome=Outcome.RETURNED)
    log = script.ends("a.1")
    gone = "agent a.0 ended before it emitted"
    assert log == [
        "bury a.0: ",
        "tag 0.1",
        f"output 1: {gone}",
        "wake a.1#1 at 0.1: START, ITEM 0/2 in2, ITEM 0/4 in4",
    ]
    said = script.ends("a.1", emit(2, b"2"), emit(4, b"4"))
    assert [line for line in said if line.startswith("output")] == [
        "output 2: 2",
        f"output 3: {gone}",
        "output 4: 4",
    ]


def test_a_conversation_passes_from_agent_to_agent_when_its_answers_are_seen() -> None:
    script = Script("a\nb", items=1, schedule="policy = 'round-robin'")
    script.start()
    script.ends("a")
    script.ends("b")
    script.ends("b")
    log = [
        script.ends("a", infer(5, item=1), emit(1, b"go")),
        script.steps(1, (1, 5)),
        script.ends("a"),
        script.ends("b", emit(1, b"end")),
    ]
    assert log == [
        ["ticket 1 of a due 1", "tag 0.2", "grant 5 knowing 0"],
        ["step 1", "tag 2.0", "wake a#2 at 2.0: RESULT 5/0 of 1", "grant 3 knowing 2"],
        ["tag 2.1", "wake b#2 at 2.1: ITEM 0/1 go"],
        [
            "tag 2.2",
            "output 1: end",
            "tag 2.3",
            "wake a#3 at 2.3: CLOSE 0/0",
            "wake b#3 at 2.3: CLOSE 0/0",
        ],
    ]


def test_what_an_agent_asks_after_close_is_still_answered() -> None:
    script = Script("a")
    script.start()
    script.ends("a")
    assert script.ends("a") == ["tag 0.2", "tag 0.3", "wake a#2 at 0.3: CLOSE 0/0"]
    script.ends("a", infer(1))
    assert script.steps(1, (1, 1))[:3] == [
        "step 1",
        "tag 2.0",
        "wake a#3 at 2.0: RESULT 1/0 of 1",
    ]
    assert script.ends("a")[-1] == "finished: "  # CLOSE comes once.


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("turns_max = 3", "turns_max = 3 is passed"),
        ("messages_max = 1", "messages_max = 1 is passed"),
    ],
)
def test_a_run_that_passes_a_limit_stops_at_that_tag(limit: str, reason: str) -> None:
    script = Script("a\nb", fleet=limit)
    script.start()
    script.ends("a", send(1, b"1"), send(1, b"2"))
    log = script.ends("b")
    assert [line for line in log if not line.startswith("wake")] == [
        "tag 0.1",
        "tag 0.2",
        f"stopped: {reason}",
    ]
    assert script.sequencer.finished


def test_a_run_that_reaches_its_last_step_stops_and_gives_up_its_items() -> None:
    script = Script("a input = 'broadcast'", items=1, fleet="steps_max = 2")
    script.start()
    script.ends("a", infer(1))
    assert script.ends("a") == ["tag 0.2", "grant 3 knowing 0"]  # Steps up to 2 may run.
    assert script.steps(1) == ["grant 3 knowing 2"]
    log = script.steps(2)
    assert log[-2:] == [
        "output 1: steps_max = 2 is reached; it was held by a",
        "stopped: steps_max = 2 is reached",
    ]


def test_a_timer_beyond_the_last_step_ends_the_run() -> None:
    script = Script("a", fleet="steps_max = 2")
    script.start()
    script.ends("a", timer(1, 3))
    assert script.ends("a")[-1] == "stopped: steps_max = 2 is reached"


# -- what must never come -------------------------------------------------------------------------


def test_a_turn_that_is_not_running_is_our_bug() -> None:
    script = Script("a")
    script.start()
    with pytest.raises(LockstepBug, match=r"agent 0 ended turn 3, expected turn 0 \(running\)"):
        script.sequencer.turn_ended(0, Turn(3, 0, 0, "", b""))
    script.sequencer.turn_ended(0, Turn(0, 0, 0, "", b""))
    with pytest.raises(LockstepBug, match=r"expected turn 0 \(not running\)"):
        script.sequencer.turn_ended(0, Turn(0, 0, 0, "", b""))


def test_fuel_of_a_turn_that_is_over_is_ignored() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a")
    script.sequencer.fuel_published(0, 0, 10**9)
    script.sequencer.fuel_published(1, 7, 10**9)
    assert script.sequencer.waits_for() == [1]


@pytest.mark.parametrize("second", [0, 1])
def test_steps_reported_out_of_order_are_our_bug(second: int) -> None:
    script = Script("a")
    script.start()
    script.ends("a", infer(1))
    script.steps(1)
    with pytest.raises(LockstepBug, match=f"step {second} was reported after step 1"):
        script.sequencer.step_reported(report(second))


def test_a_ticket_answered_twice_is_our_bug() -> None:
    script = Script("a")
    script.start()
    script.ends("a", infer(1))
    script.ends("a")
    script.sequencer.step_reported(report(1, [(1, 1), (1, 1)]))
    with pytest.raises(LockstepBug, match="ticket 1 was answered twice or never given"):
        script.sequencer.pump()


def test_overstated_fuel_is_our_bug_not_a_silent_reordering() -> None:
    script = Script("a\nb")
    script.start()
    script.burnt("b", 500)
    script.ends("a")
    with pytest.raises(LockstepBug, match=r"tag 0\.1 is pending after 0\.1"):
        script.ends("b", fuel=0)
