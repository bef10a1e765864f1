"""Messages between agents: topics, broadcast, calls, and senders that wait for room (rule 9)."""

from script import Script, call, infer, reply, send, subscribe, to_topic

from lockstep.engine import actions
from lockstep.engine.record import PEER_ALL, Kind, Outcome, decode, encode

CLOSING = ["wake a#2 at 0.3: CLOSE 0/0", "wake c#2 at 0.3: CLOSE 0/0"]

# -- topics, broadcast ------------------------------------------------------------------------


def test_a_topic_reaches_its_subscribers_in_order_of_agents_the_sender_too() -> None:
    script = Script("a topics = ['news']\nb\nc topics = ['news']", schedule="topics = ['news']")
    script.start()
    script.ends("b")
    script.ends("c")
    log = script.ends("a", to_topic(0, b"hi"))
    assert log == [
        "tag 0.1",
        "wake a#1 at 0.1: START, MESSAGE 0/0 hi",
        "wake b#1 at 0.1: START",
        "wake c#1 at 0.1: START, MESSAGE 0/0 hi",
    ]
    message = list(decode(script.actions[-1].events))[1]  # type: ignore[union-attr]
    assert (message.kind, message.flags, message.peer) == (Kind.MESSAGE, 4, 0)


def test_subscriptions_change_where_they_are_said_and_end_with_the_agent() -> None:
    script = Script("a\nb topics = ['x']\nc", schedule="topics = ['x', 'y']")
    script.start()
    script.ends("a", subscribe(1), to_topic(1, b"mine"), subscribe(1, off=True), to_topic(1, b"-"))
    script.ends("b", outcome=Outcome.RETURNED)
    log = script.ends("c")
    assert log[-2:] == [
        "wake a#1 at 0.1: START, MESSAGE 0/0 mine",
        "wake c#1 at 0.1: START",
    ]
    script.ends("a")
    # A word in an empty room: b was the only one there.
    assert script.ends("c", to_topic(0, b"nobody")) == ["tag 0.2", "tag 0.3", *CLOSING]


def test_a_broadcast_reaches_every_other_living_agent() -> None:
    script = Script("a\nb\nc")
    script.start()
    script.ends("b", outcome=Outcome.RETURNED)
    script.ends("c")
    log = script.ends("a", encode(Kind.SEND, b"all", peer=PEER_ALL))
    assert "wake c#1 at 0.1: START, MESSAGE 0/0 all" in log
    assert not any("UNDELIVERED" in line for line in log) or "bury b: " in log
    script.ends("a", encode(Kind.SEND, b"again", peer=PEER_ALL))
    assert script.ends("c")[-1] == "wake c#2 at 0.2: MESSAGE 0/0 again"


# -- calls ------------------------------------------------------------------------------------


def test_a_call_is_answered_once_under_its_number() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", call(1, 7, b"what?"))
    assert script.ends("b")[-1] == "wake b#1 at 0.1: START, MESSAGE 7/0 what?"
    script.ends("a")
    log = script.ends("b", reply(0, 7, b"that"))
    assert log[-1] == "wake a#2 at 0.2: MESSAGE 7/0 that"
    # The number is free again, and a second reply has nobody who waits for it.
    script.ends("a", call(1, 7, b"again?"))
    script.ends("b", reply(0, 7), reply(0, 7))
    assert script.sequencer.world.failures == [
        (
            "b",
            "protocol: record 1 (SEND, kind 33, item 0): agent 0 does not wait for a reply to a "
            "call 7",
        )
    ]


def test_a_call_whose_callee_ends_comes_back() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", call(1, 7, b"what?"))
    script.ends("b")
    script.ends("a")
    log = script.ends("b", outcome=Outcome.TRAPPED, reason="oops")
    assert log[-2:] == ["bury b: trapped: oops", "wake a#2 at 0.2: UNDELIVERED 7/0"] or log[-1] == (
        "wake a#2 at 0.2: UNDELIVERED 7/0"
    )
    events = next(a for a in reversed(script.actions) if isinstance(a, actions.Wake)).events
    (back,) = decode(events)
    assert (back.flags, back.peer) == (8, 1)


def test_a_call_that_still_lay_in_the_mailbox_comes_back_once_with_its_words() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", call(1, 7, b"what?"), send(1, b"and"))
    log = script.ends("b", outcome=Outcome.TRAPPED, reason="oops")
    assert log[-1] in (
        "wake a#1 at 0.1: START, UNDELIVERED 7/0 what?, UNDELIVERED 0/0 and",
        # b ended first: then they bounce where they are sent.
        "wake a#1 at 0.1: START, UNDELIVERED 7/0 what?, UNDELIVERED 0/0 and",
    )


def test_a_reply_to_a_caller_that_is_gone_comes_back() -> None:
    script = Script("a\nb")
    script.start()
    script.ends("a", call(1, 7, b"what?"))
    script.ends("b")
    script.ends("a", outcome=Outcome.RETURNED)
    script.ends("b", reply(0, 7, b"that"))
    wakes = [line for line in map(script.shown, script.actions) if line.startswith("wake b#2")]
    assert wakes == ["wake b#2 at 0.2: UNDELIVERED 7/0 that"]


# -- mailboxes --------------------------------------------------------------------------------


def test_a_sender_waits_for_room_and_gets_on_when_the_mailbox_is_taken() -> None:
    script = Script("a\nb mailbox_max = 1")
    script.start()
    script.ends("a", send(1, b"1"), send(1, b"2"), infer(5), send(0, b"self"))
    # b's turn 0 ends in the same tag: it takes the first, and a goes on a microstep later.
    assert script.ends("b") == ["tag 0.1", "wake b#1 at 0.1: START, MESSAGE 0/0 1"]
    assert script.ends("b") == [
        "ticket 1 of a due 1",
        "tag 0.2",
        "wake a#1 at 0.2: START, MESSAGE 0/0 self",
        "wake b#2 at 0.2: MESSAGE 0/0 2",
    ]


def test_a_parked_turn_is_not_over_and_what_comes_for_it_waits() -> None:
    script = Script("a\nb mailbox_max = 1\nc")
    script.start()
    script.ends("a", send(1, b"1"), send(1, b"2"), send(1, b"3"))
    script.ends("c", send(0, b"for a"))
    script.ends("b")  # Takes 1; a goes on with 2 and parks again in front of 3.
    script.ends("c")
    assert script.ends("b") == ["tag 0.2", "wake b#2 at 0.2: MESSAGE 0/0 2"]
    assert script.ends("b")[1] == "wake a#1 at 0.3: START, MESSAGE 0/0 for a"


def test_a_message_that_must_not_wait_comes_back() -> None:
    script = Script("a\nb mailbox_max = 1; mailbox_full = 'fail'")
    script.start()
    script.ends("a", send(1, b"1"), send(1, b"2", id=9))
    log = script.ends("b")
    assert log[1:] == [
        "wake a#1 at 0.1: START, UNDELIVERED 9/0 2",
        "wake b#1 at 0.1: START, MESSAGE 0/0 1",
    ]


def test_everything_but_messages_has_room_of_its_own() -> None:
    script = Script("a mailbox_max = 1; input = 'broadcast'", items=5)
    script.start()
    log = script.ends("a", send(0, b"only one"))
    assert log[-1].count("ITEM") == 5


def test_a_sender_that_waits_for_who_ends_gets_its_messages_back() -> None:
    script = Script("a\nb mailbox_max = 1")
    script.start()
    script.ends("a", send(1, b"1"), send(1, b"2"))
    script.ends("b", outcome=Outcome.RETURNED)
    wakes = [line for line in map(script.shown, script.actions) if line.startswith("wake a")]
    assert len(wakes) == 1
    assert wakes[0].endswith("START, UNDELIVERED 0/0 1, UNDELIVERED 0/0 2")


def circle(cycle: str) -> Script:
    """a and b each send the other one message too many."""
    script = Script("a mailbox_max = 1\nb mailbox_max = 1", schedule=f"mailbox_cycle = '{cycle}'")
    script.start()
    script.ends("a", send(1, b"1"), send(1, b"2"), send(1, b"3"))
    script.ends("b", send(0, b"1"), send(0, b"2"), send(0, b"3"))
    return script


def test_a_circle_of_waiting_senders_is_a_tag_with_its_names_in_history() -> None:
    script = circle("accept")
    forced = [
        record
        for entry in script.history()
        for record in decode(entry)
        if record.kind == Kind.FORCED
    ]
    assert forced
    assert forced[0].payload in (b"a -> b -> a", b"b -> a -> b")
    while script.sequencer.waits_for():
        for agent in script.sequencer.waits_for():
            script.ends(script.names[agent])
    delivered = [line for line in map(script.shown, script.actions) if line.startswith("wake")]
    assert sum(line.count("MESSAGE") for line in delivered) == 6
    assert script.shown(script.actions[-1]) == "finished: "


def test_a_circle_stops_the_run_where_the_fleet_says_so() -> None:
    script = circle("stop")
    assert script.shown(script.actions[-1]) in (
        "stopped: agents wait for room with one another: a -> b -> a",
        "stopped: agents wait for room with one another: b -> a -> b",
    )


def test_an_agent_that_fills_its_own_mailbox_is_a_circle_of_one() -> None:
    script = Script("a mailbox_max = 1")
    script.start()
    log = script.ends("a", send(0, b"1"), send(0, b"2"))
    assert log[-1] == "wake a#1 at 0.2: START, MESSAGE 0/0 1, MESSAGE 0/0 2"


def test_no_circle_is_forced_while_the_engine_may_still_answer_somebody() -> None:
    script = Script("a mailbox_max = 1\nb")
    script.start()
    script.ends("b")
    script.ends("a", infer(1), send(0, b"1"), send(0, b"2"))
    assert script.ends("b")[-1] == "grant 5 knowing 0"
    assert not any(r.kind == Kind.FORCED for entry in script.history() for r in decode(entry))
    log = script.steps(1, (1, 1))
    assert log[0:2] == ["step 1", "tag 2.0"]
    assert "wake a#1 at 2.1: START, MESSAGE 0/0 1, RESULT 1/0 of 1, MESSAGE 0/0 2" in log
