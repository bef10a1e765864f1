"""History entries and digests: each logical thing counts, nothing else does."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.history import TEXT_PART, TICKET_PAYLOAD, Entry, TagEntry, step_entry
from lockstep.engine.record import Kind, decode, encode
from lockstep.engine.wire import RESULT_SLOT, FromEngine, StepReport, step_report


def digest_of(*entries: Entry, identity: bytes = b"") -> tuple[str, str]:
    digest = Digest(identity)
    for entry in entries:
        digest.add(entry)
    return digest.digest, digest.digest_text


def tag_entry(
    tag: tuple[int, int] = (3, 4), records: tuple[bytes, ...] = (), text: str = ""
) -> Entry:
    entry = TagEntry(tag)
    for record in records:
        entry.add(record)
    if text == "message":
        entry.message(1, 2, b"hello")
    elif text == "output":
        entry.output(1, 2, b"hello")
    return entry.close()


def test_an_entry_begins_with_its_tag_and_keeps_its_records_in_order() -> None:
    records = (encode(Kind.TURN, b"events", id=1, peer=2), encode(Kind.ADMIT, item=3))
    tag, turn, admit = decode(tag_entry(records=records).body)
    assert (tag.kind, tag.id, tag.peer) == (Kind.TAG, 3, 4)
    assert (turn.kind, turn.payload) == (Kind.TURN, b"events")
    assert (admit.kind, admit.item) == (Kind.ADMIT, 3)


def test_a_message_and_an_output_are_text_and_not_the_same() -> None:
    assert tag_entry().text == b""
    assert tag_entry(text="message").text == TEXT_PART.pack(1, 1, 2, 5) + b"hello"
    assert tag_entry(text="output").text == TEXT_PART.pack(2, 1, 2, 5) + b"hello"


def report(**changes: int) -> StepReport:
    values = {"slot": 1, "ticket": 4, "token": 7, "position": 2, "status": 0, "step": 9, **changes}
    rows = [
        (FromEngine.TOKEN, 0, values["slot"], values["ticket"], values["token"],
         values["position"]),
        (FromEngine.END, 0, 0, values["ticket"], values["status"], 3),
        (FromEngine.STEP, 0, 0, 0, values["step"], 0),
    ]  # fmt: skip
    return step_report(np.array(rows, RESULT_SLOT), encode(Kind.RESULT, b"answer", id=1))


def test_a_step_entry_holds_slots_and_answers_and_its_tokens_are_text() -> None:
    entry = step_entry(report(), [(2, 5, [7, -1])])
    (step,) = decode(entry.body)
    assert (step.kind, step.id) == (Kind.STEP, 9)
    assert step.payload == report().body
    assert entry.text == TEXT_PART.pack(3, 2, 5, 8) + b"\7\0\0\0\xff\xff\xff\xff"


@pytest.mark.parametrize("field", ["slot", "ticket", "token", "position", "status", "step"])
def test_every_field_of_a_step_counts(field: str) -> None:
    changed = digest_of(step_entry(report(**{field: 60}), []))
    assert changed[0] != digest_of(step_entry(report(), []))[0]


ENTRIES = (
    tag_entry(
        (0, 1),
        (
            encode(Kind.TURN, b"events", id=1, peer=2),
            encode(Kind.EFFECT, b"records", flags=0, id=1, item=1234, peer=2),
            encode(Kind.TICKET, TICKET_PAYLOAD.pack(7, 1, 40), id=1, item=3, peer=2),
            encode(Kind.REVOKE, bytes(8), id=1),
            encode(Kind.ADMIT, item=1),
            encode(Kind.OUTCOME, b"output", item=1, peer=2),
            encode(Kind.FAILED, b"why", flags=2, peer=1),
        ),
        "message",
    ),
    step_entry(report(), [(2, 5, [7])]),
    tag_entry((9, 0), (encode(Kind.STOP, b"reason"),), "output"),
)


@given(st.data())
def test_any_changed_bit_of_a_history_changes_the_digest(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(ENTRIES) - 1))
    body = bytearray(ENTRIES[number].body)
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    changed = list(ENTRIES)
    changed[number] = Entry(bytes(body), ENTRIES[number].text)
    assert digest_of(*changed)[0] != digest_of(*ENTRIES)[0]
    assert digest_of(*changed)[1] == digest_of(*ENTRIES)[1]


def orders() -> Iterator[tuple[Entry, ...]]:
    a, b, c = ENTRIES
    yield from [(a, c, b), (b, a, c), (c, b, a), (a, b), (a, b, c, c)]


def test_order_and_number_of_entries_count() -> None:
    digests = [digest_of(*ENTRIES), *(digest_of(*order) for order in orders())]
    assert len(dict.fromkeys(d for d, _ in digests)) == len(digests)


def test_the_text_digest_follows_what_was_said_only() -> None:
    quiet = Entry(ENTRIES[0].body + encode(Kind.ADMIT, item=2), ENTRIES[0].text)
    assert digest_of(quiet)[1] == digest_of(ENTRIES[0])[1]
    assert digest_of(quiet)[0] != digest_of(ENTRIES[0])[0]


def test_the_identity_is_part_of_the_digest_and_not_of_the_text() -> None:
    a, b = (identity_record({"seed": n, "threads": 2}) for n in (1, 2))
    assert digest_of(identity=a)[0] != digest_of(identity=b)[0]
    assert digest_of(identity=a)[1] == digest_of(identity=b)[1]
    assert identity_record({"threads": 2, "seed": 1}) == a
    (record,) = decode(a)
    assert (record.kind, record.payload) == (Kind.IDENTITY, b'{"seed":1,"threads":2}')
