"""What a turn has written: lines, records, limits, and what survives a failure."""

from types import ModuleType

import pytest

from lockstep.engine.errors import ProtocolError
from lockstep.engine.record import PEER_NONE, Kind, Outcome, decode, encode
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
