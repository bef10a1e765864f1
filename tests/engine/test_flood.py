"""Floods: a turn of plain messages routed as columns says what the slow way says, to the byte."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script import Script, send

from lockstep.engine import flood
from lockstep.engine.record import FLAG_CALL, Kind, encode

FLEET = "a mailbox_max = 8\nb mailbox_max = 5; mailbox_full = 'fail'\nc\nd mailbox_max = 3"

MESSAGES = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=20)), max_size=20)
EVEN = st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=9, max_size=9)), max_size=20)


def played(turns: Sequence[bytes]) -> tuple[list[str], list[bytes], list[bytes]]:
    """Four agents with these turns 0; what the sequencer did, said and hashed as text."""
    script = Script(FLEET)
    log = script.start()
    for name, records in zip("abcd", turns, strict=True):
        log += script.ends(name, records)
    while script.sequencer.waits_for():
        for agent in script.sequencer.waits_for():
            log += script.ends(script.names[agent])
    texts = [a.entry.text for a in script.actions if hasattr(a, "entry")]
    return log, script.history(), texts


@settings(max_examples=60)
@given(st.lists(MESSAGES | EVEN, min_size=4, max_size=4))
def test_a_flood_has_the_history_of_its_messages_one_by_one(
    turns: list[list[tuple[int, bytes]]],
) -> None:
    data = [b"".join(send(peer, payload, id=7) for peer, payload in turn) for turn in turns]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flood, "BYTES_MIN", 1)
        fast = played(data)
        patch.setattr(flood, "BYTES_MIN", 2**40)
        slow = played(data)
    assert fast == slow


@pytest.mark.parametrize(
    "other",
    [
        encode(Kind.LOG, b"log"),
        encode(Kind.SEND, peer=9),
        encode(Kind.SEND, peer=1, item=3),
        encode(Kind.SEND, peer=1, id=4, flags=FLAG_CALL),
        b"\x01" * 40,
    ],
)
def test_a_turn_with_anything_else_in_it_is_no_flood(other: bytes) -> None:
    records = send(1, b"x" * 64) * 40
    limits = flood.Limits(agents=4, models=0, items=2)
    assert flood.Flood.of(0, records, limits) is not None
    assert flood.Flood.of(0, records + other, limits) is None


def test_a_short_turn_is_no_flood() -> None:
    limits = flood.Limits(agents=4, models=0, items=2)
    assert flood.Flood.of(0, send(1, b"x"), limits) is None
