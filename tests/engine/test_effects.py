"""A turn's records: checked as a whole; each kind's shape; what survives a failed turn."""

import struct
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine import effects
from lockstep.engine.effects import (
    REQUESTS_OPEN_MAX,
    TIMER_STEPS_MAX,
    TIMERS_OPEN_MAX,
    Limits,
    Turn,
)
from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_ERROR,
    FLAG_RAW,
    FLAG_REPLY,
    FLAG_TOPIC,
    GUEST_KINDS,
    PEER_ALL,
    PEER_NONE,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    encode,
)

LIMITS = Limits(agents=3, models=2, items=5, topics=2, tools=2)
TOPIC_1 = FLAG_TOPIC | 1 << TOPIC_SHIFT
U32 = 2**32 - 1


def record(kind: int, **fields: object) -> Record:
    values = {"flags": 0, "id": 0, "item": 0, "peer": PEER_NONE, "payload": b"", **fields}
    return Record(kind, **values)  # type: ignore[arg-type]


class Free:
    """A standing in which everything is allowed, but for what a test takes away."""

    def __init__(
        self,
        in_use: Iterable[int] = (),
        open_requests: int = 0,
        may_emit: Callable[[int, int, bool], str] = lambda item, peer, given_up: "",
        may_finish: Callable[[int], str] = lambda item: "",
        open_timers: int = 0,
        calls: Iterable[int] = (),
        open_calls: int = 0,
        awaited: Iterable[tuple[int, int]] = (),
        tools: Iterable[int] = (0, 1),
        tame: bool = False,
    ) -> None:
        self._tame = tame
        self._in_use, self._calls, self._awaited = list(in_use), list(calls), list(awaited)
        self._tools = list(tools)
        self.open_requests, self.open_timers = open_requests, open_timers
        self.open_calls = open_calls
        self.may_emit, self.may_finish = may_emit, may_finish

    def in_use(self, request: int) -> bool:
        return request in self._in_use

    def call_in_use(self, number: int) -> bool:
        return number in self._calls

    def may_reply(self, caller: int, number: int) -> bool:
        return (caller, number) in self._awaited

    def may_use(self, tool: int) -> bool:
        return tool in self._tools

    def may_cancel_run(self) -> bool:
        return not self._tame


def check(records: list[Record], **standing: Any) -> str:
    return effects.check(records, LIMITS, Free(**standing))


GOOD = {
    "send": record(Kind.SEND, peer=2, item=5, id=2**64 - 1, payload=b"x"),
    "send without item": record(Kind.SEND, peer=0),
    "send to everybody": record(Kind.SEND, peer=PEER_ALL),
    "send to a topic": record(Kind.SEND, flags=TOPIC_1),
    "call": record(Kind.SEND, flags=FLAG_CALL, id=9, peer=1),
    "emit": record(Kind.EMIT, item=1),
    "emit to a successor": record(Kind.EMIT, item=1, peer=2),
    "give up": record(Kind.EMIT, item=1, flags=FLAG_ERROR, payload=b"tired"),
    "subscribe": record(Kind.SUBSCRIBE, flags=TOPIC_1),
    "subscribe no more": record(Kind.SUBSCRIBE, flags=FLAG_TOPIC, id=1),
    "tool call": record(Kind.TOOL_CALL, id=7, item=5, peer=1, payload=b"in"),
    "cancel an item": record(Kind.CANCEL, item=5),
    "cancel the run": record(Kind.CANCEL, peer=PEER_ALL),
    "infer": record(Kind.INFER, peer=1, item=0, id=7),
    "raw infer": record(Kind.INFER, peer=0, item=5, flags=FLAG_RAW),
    "cancel": record(Kind.CANCEL, id=7),
    "timer": record(Kind.SET_TIMER, item=1, payload=struct.pack("<Q", 1)),
    "numbered timer": record(Kind.SET_TIMER, id=2**64 - 1, payload=struct.pack("<Q", 1)),
    "longest timer": record(Kind.SET_TIMER, payload=struct.pack("<Q", TIMER_STEPS_MAX)),
    "log": record(Kind.LOG, id=3, item=1, payload=b"x"),
    "standard output": record(Kind.LOG, peer=1),
    "standard error": record(Kind.LOG, peer=2),
    "done": record(Kind.DONE),
    "done for an item": record(Kind.DONE, item=5),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_well_formed_record_takes_effect(name: str) -> None:
    assert check([GOOD[name]]) == ""


NO_SUCH = "this version serves no such record from a guest"
BAD = [
    (record(0), f"record 0 (?, kind 0, item 0): {NO_SUCH}"),
    (record(Kind.ITEM), f"record 0 (ITEM, kind 2, item 0): {NO_SUCH}"),
    (record(Kind.SUBSCRIBE), "record 0 (SUBSCRIBE, kind 37, item 0): flags 0, expected TOPIC (4)"),
    (record(Kind.SUBSCRIBE, flags=FLAG_TOPIC, id=2), "id 2, expected 0 (subscribe) or 1 (no more)"),
    (record(Kind.SUBSCRIBE, flags=FLAG_TOPIC, peer=0), f"peer 0, expected {PEER_NONE} (nobody)"),
    (record(Kind.SUBSCRIBE, flags=FLAG_TOPIC | 2 << TOPIC_SHIFT), "topic 2, expected one below 2"),
    (record(Kind.TOOL_CALL), f"peer {PEER_NONE}, expected a tool below 2"),
    (record(Kind.SEND, flags=TOPIC_1, peer=0), f"peer 0, expected {PEER_NONE} (nobody)"),
    (record(Kind.SEND, flags=FLAG_CALL, peer=PEER_ALL), f"peer {PEER_ALL}, expected an agent"),
    (record(Kind.SEND, flags=FLAG_CALL | FLAG_REPLY, peer=0), "flags 24, expected 0 or 4 or 8 or"),
    (record(Kind.SEND, flags=FLAG_CALL | 1 << TOPIC_SHIFT, peer=0), "flags 264, expected 0 or 4"),
    (record(Kind.CANCEL, id=1, item=1), "id 1, expected 0 where an item is cancelled"),
    (record(Kind.CANCEL, id=1, peer=PEER_ALL), "id 1, expected 0 where the run is cancelled"),
    (record(Kind.CANCEL, item=1, peer=PEER_ALL), "item 1, expected 0 where the run is cancelled"),
    (record(Kind.END), f"record 0 (END, kind 64, item 0): {NO_SUCH}"),
    (record(2**16 - 1), f"record 0 (?, kind 65535, item 0): {NO_SUCH}"),
    (record(Kind.SEND, peer=3), "peer 3, expected an agent below 3"),
    (record(Kind.SEND), f"peer {PEER_NONE}, expected an agent below 3"),
    (record(Kind.SEND, peer=0, item=6), "item 6, expected 0 to 5"),
    (record(Kind.SEND, peer=0, flags=1), "flags 1, expected 0 or 4 or 8 or 16"),
    (record(Kind.EMIT), "item 0, expected 1 to 5"),
    (record(Kind.EMIT, item=6), "item 6, expected 1 to 5"),
    (record(Kind.EMIT, item=1, peer=3), "peer 3, expected an agent below 3"),
    (record(Kind.EMIT, item=1, flags=1), "flags 1, expected 0 or 2"),
    (record(Kind.EMIT, item=1, flags=2, peer=0), "where an item is given up"),
    (record(Kind.EMIT, item=1, id=1), "id 1, expected 0"),
    (record(Kind.INFER, peer=2), "peer 2, expected a model below 2"),
    (record(Kind.INFER, peer=0, item=2**64 - 1), "item 18446744073709551615, expected 0 to 5"),
    (record(Kind.INFER, peer=0, flags=2), "flags 2, expected 0 or 1"),
    (record(Kind.INFER, peer=0, flags=3), "flags 3, expected 0 or 1"),
    (record(Kind.CANCEL, item=6), "item 6, expected 0 to 5"),
    (record(Kind.CANCEL, peer=0), f"peer 0, expected {PEER_NONE} (nobody)"),
    (record(Kind.CANCEL, id=7, payload=b"now"), "payload of 3 bytes, expected none"),
    (record(Kind.SET_TIMER, payload=b"1234567"), "payload of 7 bytes, expected 8"),
    (record(Kind.SET_TIMER, payload=bytes(9)), "payload of 9 bytes, expected 8"),
    (record(Kind.SET_TIMER, payload=bytes(8)), f"0 steps, expected 1 to {TIMER_STEPS_MAX}"),
    (
        record(Kind.SET_TIMER, payload=b"\xff" * 8),
        f"{2**64 - 1} steps, expected 1 to {TIMER_STEPS_MAX}",
    ),
    (record(Kind.SET_TIMER, peer=0, payload=struct.pack("<Q", 1)), "peer 0, expected"),
    (record(Kind.LOG, id=4), "level 4, expected 0 to 3"),
    (record(Kind.LOG, peer=0), f"peer 0, expected one of {(PEER_NONE, 1, 2)}"),
    (record(Kind.LOG, peer=3), f"peer 3, expected one of {(PEER_NONE, 1, 2)}"),
    (record(Kind.DONE, peer=1), f"peer 1, expected {PEER_NONE} (nobody)"),
    (record(Kind.DONE, item=6), "item 6, expected 0 to 5"),
    (record(Kind.DONE, flags=4), "flags 4, expected 0"),
    (record(Kind.DONE, id=2**64 - 1), "id 18446744073709551615, expected 0"),
    (record(Kind.DONE, item=5, payload=b"x"), "payload of 1 bytes, expected none"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_malformed_record_names_its_field_and_limit(bad: Record, message: str) -> None:
    assert message in check([bad])


def test_the_place_of_the_first_bad_record_is_named() -> None:
    why = check([record(Kind.LOG), record(Kind.EMIT, item=9), record(0)])
    assert why == "record 1 (EMIT, kind 34, item 9): item 9, expected 1 to 5"


def test_a_request_number_must_not_wait_already() -> None:
    ask = record(Kind.INFER, peer=0, id=7)
    waits = "request number 7 waits for its answer already"
    assert waits in check([ask], in_use=[7])
    assert waits in check([ask, record(Kind.LOG), ask])
    assert check([ask], in_use=[8]) == ""
    # A number is free again only when its answer was seen: cancelling does not free it.
    assert waits in check([record(Kind.CANCEL, id=7), ask], in_use=[7])


def test_open_requests_are_bounded_over_turns() -> None:
    asks = [record(Kind.INFER, peer=0, id=n) for n in range(3)]
    assert check(asks, open_requests=REQUESTS_OPEN_MAX - 3) == ""
    assert f"record 2 (INFER, kind 35, item 0): more than {REQUESTS_OPEN_MAX} requests" in check(
        asks, open_requests=REQUESTS_OPEN_MAX - 2
    )


def test_timers_that_have_not_fired_are_bounded_over_turns() -> None:
    timers = [record(Kind.SET_TIMER, id=7, payload=struct.pack("<Q", 1))] * 3
    assert check(timers, open_timers=TIMERS_OPEN_MAX - 3) == ""
    assert f"record 2 (SET_TIMER, kind 38, item 0): more than {TIMERS_OPEN_MAX} timers" in check(
        timers, open_timers=TIMERS_OPEN_MAX - 2
    )


def test_requests_and_tool_calls_share_their_numbers_and_their_bound() -> None:
    ask = record(Kind.INFER, peer=0, id=7)
    use = record(Kind.TOOL_CALL, peer=0, id=7)
    waits = "request number 7 waits for its answer already"
    assert waits in check([ask, use])
    assert waits in check([use], in_use=[7])
    assert "more than" in check([use], open_requests=REQUESTS_OPEN_MAX)


def test_a_tool_that_the_fleet_did_not_give_the_agent_is_refused() -> None:
    assert "does not let the agent call this tool" in check(
        [record(Kind.TOOL_CALL, peer=1)], tools=[0]
    )


def test_only_an_agent_that_may_cancels_the_run() -> None:
    assert "may_cancel_run" in check([record(Kind.CANCEL, peer=PEER_ALL)], tame=True)


def test_a_call_number_must_not_wait_already() -> None:
    call = record(Kind.SEND, flags=FLAG_CALL, id=3, peer=0)
    waits = "call 3 waits for its reply already"
    assert waits in check([call], calls=[3])
    assert waits in check([call, call])
    assert f"more than {REQUESTS_OPEN_MAX} calls" in check([call], open_calls=REQUESTS_OPEN_MAX)
    # Numbers of calls and of requests are not the same numbers.
    assert check([call, record(Kind.INFER, peer=0, id=3)]) == ""


def test_a_reply_needs_somebody_who_waits_for_it_and_goes_out_once() -> None:
    reply = record(Kind.SEND, flags=FLAG_REPLY, id=3, peer=2)
    nobody = "agent 2 does not wait for a reply to a call 3"
    assert nobody in check([reply])
    assert check([reply], awaited=[(2, 3)]) == ""
    assert nobody in check([reply, reply], awaited=[(2, 3)])


def test_a_cancel_of_a_number_that_was_never_used_is_no_error() -> None:
    assert check([record(Kind.CANCEL, id=12345)], in_use=[7]) == ""


def test_one_emit_per_item_and_turn() -> None:
    emit = record(Kind.EMIT, item=1)
    assert check([emit, record(Kind.EMIT, item=2)]) == ""
    assert "record 1 (EMIT, kind 34, item 1): a second EMIT in one turn" in check([emit, emit])


def test_the_schedule_may_refuse_an_emit_or_a_done_for_an_item() -> None:
    assert "item 2): not yours" in check(
        [record(Kind.EMIT, item=2)], may_emit=lambda item, *_: "not yours" if item == 2 else ""
    )
    refusing = {"may_finish": lambda item: "not its end"}
    assert "item 2): not its end" in check([record(Kind.DONE, item=2)], **refusing)
    assert check([record(Kind.DONE)], **refusing) == ""


@given(
    st.builds(
        record,
        st.sampled_from(sorted(GUEST_KINDS)) | st.integers(0, 2**16 - 1),
        flags=st.integers(0, 3) | st.integers(0, 2**16 - 1),
        id=st.integers(0, 5) | st.integers(0, 2**64 - 1),
        item=st.integers(0, 7) | st.integers(0, 2**64 - 1),
        peer=st.integers(0, 4) | st.integers(0, U32),
        payload=st.binary(max_size=10),
    )
)
def test_no_record_makes_the_check_raise(any_record: Record) -> None:
    why = check([any_record])
    assert why == "" or why.startswith("record 0 (")
    if not why:
        assert any_record.kind in GUEST_KINDS


# -- whole turns ----------------------------------------------------------------------------------


def turn(outcome: int, data: bytes) -> Turn:
    return Turn(4, 100, outcome, "why", data)


LOG_AND_SEND = encode(Kind.LOG, b"log", id=1) + encode(Kind.SEND, peer=0)


@pytest.mark.parametrize("outcome", [Outcome.BLOCKED, Outcome.RETURNED])
def test_a_turn_that_ended_well_keeps_its_records(outcome: int) -> None:
    settled, records = effects.settle(turn(outcome, LOG_AND_SEND))
    assert settled.outcome == outcome
    assert [r.kind for r in records] == [Kind.LOG, Kind.SEND]


@pytest.mark.parametrize("outcome", [o for o in Outcome if o > Outcome.RETURNED])
def test_a_failed_turn_keeps_its_logs_only(outcome: int) -> None:
    settled, records = effects.settle(turn(outcome, LOG_AND_SEND))
    assert (settled.outcome, settled.reason) == (outcome, "why")
    assert [r.payload for r in records] == [b"log"]


@pytest.mark.parametrize("cut", range(1, 8))
def test_bytes_that_are_no_records_are_a_protocol_failure(cut: int) -> None:
    settled, records = effects.settle(turn(Outcome.BLOCKED, LOG_AND_SEND[:-cut]))
    assert settled.outcome == Outcome.PROTOCOL
    assert "record at byte 40" in settled.reason
    assert settled.fuel == 100
    assert records == []


def test_only_well_formed_logs_survive_a_failed_turn() -> None:
    good = record(Kind.LOG, id=3, peer=2)
    bad = [
        record(Kind.LOG, id=4),
        record(Kind.LOG, peer=7),
        record(Kind.LOG, flags=1),
        record(Kind.SEND),
    ]
    assert effects.logs_of([*bad, good]) == [good]
