"""The records of messaging, tools, sources and routing, as the test guests write and read them."""

import json
from types import ModuleType
from typing import Any

import pytest

from lockstep.engine.record import (
    FLAG_CALL,
    FLAG_ERROR,
    FLAG_REPLY,
    FLAG_TOPIC,
    PEER_ALL,
    PEER_NONE,
    TOPIC_SHIFT,
    Kind,
    Outcome,
    Record,
    encode,
)

AGENTS = ["asks", "answers", "listens"]
NAMES = {"topics": ["weather", "news"], "tools": ["grep", "sort"], "sources": ["feed", "tick"]}
NEWS = FLAG_TOPIC | 1 << TOPIC_SHIFT


def records(
    h: ModuleType, guest: str, config: dict[str, object], *batches: bytes, index: int = 0
) -> list[list[Record]]:
    """What a guest writes in the turn of START, and in each of ``batches``."""
    played = h.play(guest, [h.start(config, AGENTS, index, **NAMES), *batches])
    assert (played.accident, played.turns[0].records) == ("", ())
    return [list(turn.records) for turn in played.turns[1:]]


def message(payload: bytes, *, peer: int, flags: int = 0, id: int = 0, item: int = 0) -> bytes:
    return encode(Kind.MESSAGE, payload, flags=flags, id=id, item=item, peer=peer)


def log(text: bytes) -> Record:
    return Record(Kind.LOG, 0, 1, 0, PEER_NONE, text)


def emit(item: int, payload: bytes, peer: int = PEER_NONE, flags: int = 0) -> Record:
    return Record(Kind.EMIT, flags, 0, item, peer, payload)


def test_publishing_names_the_topic_in_the_flags_and_nobody_as_peer(h: ModuleType) -> None:
    start, item = records(h, "chat", {"publish": "news"}, h.item(3, b"rain"))
    assert start == []
    assert item == [Record(Kind.SEND, NEWS, 3, 3, PEER_NONE, b"rain"), emit(3, b"rain")]


def test_broadcast_goes_to_everybody_else(h: ModuleType) -> None:
    _, item = records(h, "chat", {"broadcast": 1}, h.item(3, b"rain"))
    assert item == [Record(Kind.SEND, 0, 3, 3, PEER_ALL, b"rain"), emit(3, b"rain")]


def test_subscriber_hears_a_topic_until_it_has_heard_enough(h: ModuleType) -> None:
    heard = message(b"rain", peer=2, flags=NEWS, id=9)
    config = {"subscribe": "news", "hear": 2}
    start, first, second = records(h, "chat", config, heard, heard)
    assert start == [Record(Kind.SUBSCRIBE, NEWS, 0, 0, PEER_NONE, b"")]
    assert first == [log(b"topic 1:rain")]
    assert second == [log(b"topic 1:rain"), Record(Kind.SUBSCRIBE, NEWS, 1, 0, PEER_NONE, b"")]


def test_call_is_answered_and_the_reply_emitted(h: ModuleType) -> None:
    """Both sides, the message carried by hand."""
    _, (call,) = records(h, "chat", {"call": "answers"}, h.item(3, b"rain?"))
    assert call == Record(Kind.SEND, FLAG_CALL, 3, 3, 1, b"rain?")
    asked = message(call.payload, peer=0, flags=call.flags, id=call.id, item=call.item)
    _, (reply,) = records(h, "chat", {}, asked, index=1)
    assert reply == Record(Kind.SEND, FLAG_REPLY, 3, 3, 0, b"1:rain?")
    answered = message(reply.payload, peer=1, flags=reply.flags, id=reply.id, item=reply.item)
    _, (output,) = records(h, "chat", {"call": "answers"}, answered)
    assert output == emit(3, b"1:rain?")


def test_calls_may_be_answered_later_and_in_another_order(h: ModuleType) -> None:
    calls = [message(b"?", peer=0, flags=FLAG_CALL, id=n, item=n) for n in (7, 8, 9)]
    batches = (calls[0], calls[1] + calls[2], h.CLOSE)
    _, none, two, last = records(h, "chat", {"hold": 2}, *batches, index=1)
    assert (none, [reply.id for reply in two], [reply.id for reply in last]) == ([], [8, 7], [9])


def test_call_that_comes_back_gives_the_item_up(h: ModuleType) -> None:
    back = encode(Kind.UNDELIVERED, b"rain?", flags=FLAG_CALL, id=3, item=3, peer=1)
    plain = encode(Kind.UNDELIVERED, b"hello", id=1, peer=2)
    _, got = records(h, "chat", {"call": "answers"}, back + plain)
    assert got == [emit(3, b"nobody answered", flags=FLAG_ERROR), log(b"back from 2:hello")]


def test_cancelled_item_is_told_from_a_cancelled_request(h: ModuleType) -> None:
    cancelled = encode(Kind.CANCELLED, b"too late", item=4)
    _, got = records(h, "chat", {}, cancelled)
    assert got == [log(b"cancelled 4:too late")]
    assert records(h, "caller", {}, cancelled)[1] == []


def test_tool_is_called_by_its_name_and_its_answer_emitted(h: ModuleType) -> None:
    answer = encode(Kind.TOOL_RESULT, b"a\nb\n", id=2, item=2, peer=1)
    _, call, output = records(h, "caller", {"tool": "sort"}, h.item(2, b"b\na\n"), answer)
    assert call == [Record(Kind.TOOL_CALL, 0, 2, 2, 1, b"b\na\n")]
    assert output == [emit(2, b"a\nb\n")]


def test_tool_that_failed_gives_the_item_up_with_its_reason(h: ModuleType) -> None:
    why = b'{"error": "exit status 2", "status": 2, "stderr": ""}'
    answer = encode(Kind.TOOL_RESULT, why, flags=FLAG_ERROR, id=2, item=2, peer=0)
    assert records(h, "caller", {}, answer)[1] == [emit(2, why, flags=FLAG_ERROR)]


def test_tool_call_is_cancelled_by_its_number(h: ModuleType) -> None:
    timer = encode(Kind.TIMER, id=2, item=2)
    gone = encode(Kind.CANCELLED, id=2, item=2, peer=0)
    _, call, cancel, output = records(h, "caller", {"cancel": 1}, h.item(2, b"x"), timer, gone)
    assert [record.kind for record in call] == [Kind.TOOL_CALL, Kind.SET_TIMER]
    assert cancel == [Record(Kind.CANCEL, 0, 2, 0, PEER_NONE, b"")]
    assert output == [emit(2, b"cancelled")]


@pytest.mark.parametrize(("guest", "payload"), [("caller", b"!12"), ("router", b'{"cancel": 12}')])
def test_item_is_cancelled_by_its_number(h: ModuleType, guest: str, payload: bytes) -> None:
    _, got = records(h, guest, {}, h.item(2, payload))
    assert got == [Record(Kind.CANCEL, 0, 0, 12, PEER_NONE, b""), emit(2, payload)]


def test_events_of_sources_are_logged_passed_on_and_counted(h: ModuleType) -> None:
    line = encode(Kind.EVENT, b"hello", id=1, peer=0)
    tick = encode(Kind.EVENT, id=5, peer=1)
    config = {"done": 2, "forward": "listens"}
    _, first, second = records(h, "ticker", config, line, tick)
    assert first == [log(b"0 1 hello"), Record(Kind.SEND, 0, 1, 0, 2, b"hello")]
    assert second[0] == log(b"1 5 ")
    assert second[-1] == Record(Kind.DONE, 0, 0, 0, PEER_NONE, b"")


ROUTED = [  # (payload, the ITEM's id, who gets it and with which flags)
    ({"to": "listens"}, 0, (2, 0)),
    ({"to": "nowhere"}, 0, (PEER_NONE, 0)),
    ({"to": "answers", "loops": 2}, 1, (1, 0)),
    ({"to": "answers", "loops": 2}, 2, (PEER_NONE, 0)),
    ({"fails": 2}, 0, (PEER_NONE, FLAG_ERROR)),
    ({"fails": 2}, 1, (PEER_NONE, FLAG_ERROR)),
    ({"fails": 2}, 2, (PEER_NONE, 0)),
    ({"x": 1}, 0, (PEER_NONE, 0)),
]


@pytest.mark.parametrize(("task", "attempt", "expected"), ROUTED)
def test_router_does_what_the_item_says(
    h: ModuleType, task: dict[str, object], attempt: int, expected: tuple[int, int]
) -> None:
    payload = json.dumps(task).encode()
    item = encode(Kind.ITEM, payload, id=attempt, item=5)
    _, (output,) = records(h, "router", {"routes": 1}, item)
    assert (output.peer, output.flags) == expected
    assert output.payload == (b"told to fail" if expected[1] else payload)
    _, (plain,) = records(h, "router", {}, item)
    assert plain.peer == PEER_NONE  # Only a router routes.


def test_router_emits_once_for_the_items_of_a_join(h: ModuleType) -> None:
    joined = h.item(5, b"{}", peer=0) + h.item(5, b"{}", peer=1) + h.item(6, b"{}", peer=0)
    _, outputs, again = records(h, "router", {}, joined, h.item(5, b"{}"))
    assert [output.item for output in outputs] == [5, 6]
    assert [output.item for output in again] == [5]


def test_names_that_are_not_there_have_no_index(h: ModuleType) -> None:
    for name in ("new", "newss", "", "weather\\u0020"):
        start, item = records(h, "chat", {"publish": name}, h.item(1, b"x"))
        assert (start, item) == ([], [emit(1, b"x")]), name


def exchanged(h: ModuleType, guest: str, *configs: dict[str, object]) -> list[int]:
    """Play a fleet by hand, turn by turn; the number of messages of each turn of each agent."""
    names = [f"agent.{n}" for n in range(len(configs))]
    inbox: list[list[bytes]] = [[h.start(c, names, n)] for n, c in enumerate(configs)]
    history: list[list[bytes]] = [[] for _ in configs]
    counts = []
    while any(inbox):
        sent: list[list[bytes]] = [[] for _ in configs]
        for index, waiting in enumerate(inbox):
            if not waiting:
                continue
            history[index].append(b"".join(waiting))
            last: Any = h.play(guest, history[index]).last
            counts.append(len(last.records))
            for record in last.records:
                fields = {"id": record.id, "item": record.item, "peer": index}
                sent[record.peer].append(encode(Kind.MESSAGE, record.payload, **fields))
        inbox = sent
    return counts


def test_flood_sends_all_its_rounds_both_ways(h: ModuleType) -> None:
    config: dict[str, object] = {"messages": 5, "bytes": 16, "rounds": 3}
    assert exchanged(h, "bench/flood", config, config) == [5, 5, 5, 5, 5, 5, 0, 0]


def test_flood_one_way_sends_a_round_per_step(h: ModuleType) -> None:
    timer = encode(Kind.TIMER)
    config = {"peer": "listens", "messages": 2, "bytes": 0, "rounds": 2, "one_way": 1}
    first, second = records(h, "bench/flood", config, timer)
    assert [(r.kind, r.peer) for r in first] == [(33, 2), (33, 2), (Kind.SET_TIMER, PEER_NONE)]
    assert [(r.kind, r.peer) for r in second] == [(33, 2), (33, 2)]
    heard = message(b"", peer=0) * 3
    assert records(h, "bench/flood", {"rounds": 0}, heard) == [[], []]


def test_relay_passes_each_token_so_many_times(h: ModuleType) -> None:
    config: dict[str, object] = {"hops": 7, "tokens": 1}
    assert exchanged(h, "bench/relay", *[config] * 3) == [1, 0, 0, *[1] * 6, 0]
    two: dict[str, object] = {"hops": 4, "tokens": 2}
    assert sum(exchanged(h, "bench/relay", *[two] * 3)) == 8


def thought(h: ModuleType, items: int, **config: object) -> list[int]:
    """Fuel of the turns of ``items`` items without requests."""
    batches = [h.item(n, b"x") for n in range(1, items + 1)]
    played = h.play("bench/think", [h.start({"requests": 0, **config}), *batches])
    fuels: list[int] = played.fuels[2:]
    return fuels


def test_think_burns_the_fuel_it_is_told(h: ModuleType) -> None:
    base = thought(h, 1, fuel=0, tail=0)[0]
    (burnt,) = thought(h, 1, fuel=1_000_000, tail=0)
    assert abs(burnt - base - 1_000_000) < 10_000


def test_think_has_a_heavy_tail_whose_mean_is_the_fuel_told(h: ModuleType) -> None:
    fuels = sorted(thought(h, 4000, fuel=10_000, seed=3))
    base = thought(h, 1, fuel=0, tail=0)[0]
    burnt = [fuel - base for fuel in fuels]
    assert 8_000 < sum(burnt) / len(burnt) < 12_000
    assert 2_000 < burnt[0] < 3_000  # A quarter of the mean, never less.
    assert burnt[2000] < 8_000  # Half of the draws are below three quarters of the mean.
    assert burnt[-1] > 100_000


def test_think_draws_from_its_seed_and_place_only(h: ModuleType) -> None:
    first = thought(h, 50, fuel=10_000, seed=1)
    assert first == thought(h, 50, fuel=10_000, seed=1)
    assert first != thought(h, 50, fuel=10_000, seed=2)


def test_think_asks_as_often_as_told_and_emits_the_last_answer(h: ModuleType) -> None:
    def answer(turn: Any) -> bytes | None:
        if turn.end.turn < 2:
            config = {"requests": 3, "fuel": 100, "prompt_bytes": 40, "tokens": 5}
            return (h.start(config), h.item(7, b"x"))[turn.end.turn]  # type: ignore[no-any-return]
        requests = [r for r in turn.records if r.kind == Kind.INFER]
        return b"".join(h.raw_result(r, b"answer %d" % r.id) for r in requests) or None

    played = h.play("bench/think", answer=answer)
    requests = [r for turn in played.turns for r in turn.records if r.kind == Kind.INFER]
    assert [(r.id, r.item, r.peer) for r in requests] == [(7 * 64 + n, 7, 0) for n in (1, 2, 3)]
    prompts = [r.payload[24:] for r in requests]
    assert all(len(prompt) == 40 and prompt.isdigit() for prompt in prompts)
    assert len(set(prompts)) == 3
    assert played.emitted == [(7, b"answer %d" % requests[-1].id)]


def test_think_traps_on_more_requests_than_it_can_number(h: ModuleType) -> None:
    played = h.play("bench/think", [h.start({"requests": 64})])
    assert played.last.outcome == Outcome.TRAPPED
