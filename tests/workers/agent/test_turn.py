"""What a turn has written: lines, records, limits, and what survives a failure."""

from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import PEER_NONE, Kind, Outcome, decode, encode
from lockstep.workers.agent import turn as turns
from lockstep.workers.agent.spec import GuestStopped
from lockstep.workers.agent.turn import STDERR, STDOUT, TurnRecords

EMIT = encode(Kind.EMIT, b"out", item=1)
LOG = encode(Kind.LOG, b"said", id=2)


def test_output_becomes_one_log_record_per_line(h: ModuleType) -> None:
    turn = TurnRecords(h.spec(b""))
    turn.log(STDOUT, b"one\ntw")
    turn.log(STDERR, b"bad\xff\n\n")
    turn.log(STDOUT, b"o\nrest")
    turn.submit(EMIT)
    data, count = turn.finish(Outcome.BLOCKED)
    records = list(decode(data))
    assert count == len(records) == 6
    assert [(r.kind, r.id, r.peer, r.payload) for r in records[:5]] == [
        (Kind.LOG, 1, 1, b"one"),
        (Kind.LOG, 3, 2, b"bad?"),
        (Kind.LOG, 3, 2, b""),
        (Kind.LOG, 1, 1, b"two"),
        (Kind.LOG, 1, 1, b"rest"),
    ]
    assert data.endswith(EMIT)
    assert turn.finish(Outcome.BLOCKED) == (b"", 0)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_logs_survive_a_turn_that_failed(h: ModuleType, outcome: Outcome) -> None:
    turn = TurnRecords(h.spec(b""))
    turn.submit(EMIT + LOG)
    data, count = turn.finish(outcome)
    good = outcome in (Outcome.BLOCKED, Outcome.RETURNED)
    assert (data, count) == ((EMIT + LOG, 2) if good else (LOG, 1))


def test_limits_are_named_and_exact(h: ModuleType) -> None:
    def fill(limit: str, most: int, *parts: bytes) -> None:
        turn = TurnRecords(h.spec(b"", **{limit: most}))
        for part in parts:
            turn.submit(part) if part[:1] == b"\x24" or len(part) > 20 else turn.log(1, part)

    for limit, exact, parts in [
        ("log_lines_max", 3, (b"a\nb\n", b"c")),
        ("log_lines_max", 2, (b"a\n", LOG)),
        ("log_bytes_max", 6, (b"ab", LOG)),
        ("log_bytes_max", 4, (b"a\nb\n",)),
        ("turn_out_bytes_max", 80, (EMIT, LOG)),
        ("record_bytes_max", 35, (EMIT,)),
        ("record_bytes_max", 37, (b"abc", b"de")),
    ]:
        fill(limit, exact, *parts)
        with pytest.raises(GuestStopped, match=f"^{limit} = {exact - 1}: ") as stop:
            fill(limit, exact - 1, *parts)
        assert stop.value.outcome == Outcome.OVER_LIMIT


@pytest.mark.parametrize("kind", [0, Kind.ITEM, 32, 42, Kind.END, Kind.READY, Kind.STOP, 65535])
def test_kinds_that_are_not_a_guests_are_refused(h: ModuleType, kind: int) -> None:
    with pytest.raises(ProtocolError, match=f"kind {kind}: not one that a guest may write"):
        TurnRecords(h.spec(b"")).submit(EMIT + encode(kind))


@pytest.mark.parametrize("peer", [0, STDOUT, STDERR, PEER_NONE - 1])
def test_a_guests_log_that_claims_to_be_its_standard_output_is_refused(
    h: ModuleType, peer: int
) -> None:
    turn = TurnRecords(h.spec(b""))
    turn.log(STDOUT, b"said by the host\n")
    with pytest.raises(ProtocolError, match=f"LOG with peer {peer}, expected {PEER_NONE} "):
        turn.submit(LOG + encode(Kind.LOG, b"forged", id=1, peer=peer))
    (record,) = decode(turn.finish(Outcome.PROTOCOL)[0])
    assert (record.peer, record.payload) == (STDOUT, b"said by the host")


def test_malformed_records_are_refused_as_a_whole(h: ModuleType) -> None:
    turn = TurnRecords(h.spec(b""))
    for bad in (EMIT[:-8], EMIT + b"\0" * 8, EMIT + EMIT[:31], EMIT[:-1] + b"\1"):
        with pytest.raises(ProtocolError, match="record at byte"):
            turn.submit(bad)
    assert turn.finish(Outcome.BLOCKED) == (b"", 0)


RECORDS = st.builds(
    lambda kind, size, item, peer: encode(kind, b"x" * size, item=item, peer=peer),
    kind=st.one_of(st.just(Kind.SEND), st.sampled_from([*Kind]), st.integers(0, 65535)),
    size=st.one_of(st.just(8), st.integers(0, 70)),
    item=st.integers(0, 2**64 - 1),
    peer=st.sampled_from([0, PEER_NONE]),
)
SPOILT = st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 255)), max_size=1)


@given(
    records=st.one_of(st.lists(RECORDS, max_size=12), RECORDS.map(lambda record: [record] * 20)),
    spoilt=SPOILT,
    cut=st.sampled_from([0, 0, 0, 1, 8, 32]),
    size_max=st.sampled_from([64, 96, 1 << 18]),
)
def test_both_quick_looks_and_the_slow_one_refuse_the_same_in_the_same_words(
    h: ModuleType,
    records: list[bytes],
    spoilt: list[tuple[int, int]],
    cut: int,
    size_max: int,
) -> None:
    data = bytearray(b"".join(records))
    for place, value in spoilt:
        if data:
            data[place % len(data)] = value
    data = data[: len(data) - cut]

    def judged(look: Callable[[bytes, int], int | None]) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turns, "count_plain", look)
            patch.setattr(turns, "count_plain_batch", look)
            turn = TurnRecords(h.spec(b"", record_bytes_max=size_max))
            try:
                turn.submit(bytes(data))
            except (ProtocolError, GuestStopped) as error:
                return type(error), str(error)
            return turn.finish(Outcome.BLOCKED), turn.finish(Outcome.TRAPPED)

    slow = judged(lambda data, size_max: None)
    assert judged(turns.count_plain) == slow
    assert judged(turns.count_plain_batch) == slow


@pytest.mark.parametrize("sizes", [(64,), (1, 64, 65)])
def test_plain_records_need_no_closer_look(sizes: tuple[int, ...]) -> None:
    data = b"".join(encode(Kind.SEND, bytes(size), peer=1) for size in sizes) * 50
    count = 50 * len(sizes)
    assert turns.count_plain(data, 97) == turns.count_plain_batch(data, 97) == count
    assert turns.count_plain(data, 95) is turns.count_plain_batch(data, 95) is None


@pytest.mark.parametrize("count", [1, 100])
def test_logs_among_many_records_survive_a_turn_that_failed(h: ModuleType, count: int) -> None:
    turn = TurnRecords(h.spec(b""))
    turn.submit((EMIT + LOG) * count)
    assert turn.finish(Outcome.TRAPPED) == (LOG * count, count)
