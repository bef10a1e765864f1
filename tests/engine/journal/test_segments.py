"""Journals of several segments: one chain, whose parts cannot be exchanged."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lockstep.engine.errors import JournalCorrupt, JournalVersion
from lockstep.engine.journal import End, JournalReader, JournalWriter, Scan, Segment
from lockstep.engine.journal import format as fmt

FIRST = ((fmt.IDENTITY, b"i"), (fmt.ENVIRONMENT, b"e"), (fmt.HISTORY, b"one"))
SECOND = ((fmt.HISTORY, b"two"), (fmt.HISTORY, b"three"))
THIRD = ((fmt.KEPT, b"kept"), (fmt.HISTORY, b"four"))
GROUPS = (FIRST, SECOND, THIRD)


def read(segments: list[Segment]) -> JournalReader:
    return JournalReader.of(Scan(segments))


def corrupt(segments: list[Segment]) -> str:
    with pytest.raises(JournalCorrupt) as error:
        read(segments)
    return str(error.value)


def numbered(segments: list[Segment]) -> list[Segment]:
    """Named as if they were a whole journal in this order."""
    last = len(segments) - 1
    return [Segment(f"journal.{n}", n, each.data, n == last) for n, each in enumerate(segments)]


def changed(segments: list[Segment], number: int, data: bytes) -> list[Segment]:
    return [
        each._replace(data=data) if each.number == number else each for each in numbered(segments)
    ]


def test_segments_are_read_as_one_journal(segments: Any) -> None:
    journal = read(segments(*GROUPS))
    assert [(f.kind, f.body) for f in journal.frames] == [*FIRST, *SECOND, *THIRD]
    assert [f.number for f in journal.frames] == list(range(7))
    assert [f.segment for f in journal.frames] == [0, 0, 0, 1, 1, 2, 2]
    assert [f.offset for f in journal.frames] == [64, 120, 176, 64, 120, 64, 120]
    assert (journal.end.segment, journal.end.offset, journal.end.frames) == (2, 176, 7)
    assert not journal.torn_bytes and not journal.end.why


def test_a_segment_names_its_number_and_its_first_frame(segments: Any) -> None:
    for number, segment in enumerate(segments(*GROUPS)):
        fields = fmt.SEGMENT.unpack(segment.data[:60])
        assert (fields[4], fields[6]) == (number, (0, 3, 5)[number])


def test_segments_are_taken_one_at_a_time(segments: Any) -> None:
    asked = []

    def each() -> Any:
        for segment in segments(*GROUPS):
            asked.append(segment.number)
            yield segment

    seen = [(frame.segment, len(asked)) for frame in Scan(each()).frames()]
    assert seen == [(0, 1)] * 3 + [(1, 2)] * 2 + [(2, 3)] * 2


def test_a_segment_is_let_go_of_before_the_next_is_read(segments: Any) -> None:
    held: list[int] = []

    def each() -> Any:
        for one in segments(*GROUPS):
            segment = Segment(*one)
            alone = sys.getrefcount(segment)
            yield segment
            held.append(sys.getrefcount(segment) - alone)

    assert len(list(Scan(each()).frames())) == 7
    assert held == [0, 0, 0]


def test_a_journal_goes_on_where_it_ends(segments: Any) -> None:
    whole = segments(*GROUPS)
    before = read(segments(FIRST, SECOND[:1]))

    class Memory:
        data = b""

        def write(self, data: bytes) -> None:
            self.data += data

    sink = Memory()
    writer = JournalWriter.resumed(sink, before)
    assert writer.frames == 4
    writer.append(*SECOND[1])
    assert whole[1].data[before.end.offset :] == sink.data
    sink.data = b""
    writer.next_segment()
    for kind, body in THIRD:
        writer.append(kind, body)
    assert sink.data == whole[2].data


def test_a_journal_truncated_at_any_byte_of_any_segment_is_cut_or_refused(segments: Any) -> None:
    whole = segments(*GROUPS)
    ends = {0: [64, 120, 176, 232], 1: [64, 120, 176], 2: [64, 120, 176]}
    for segment in whole:
        for size in range(len(segment.data)):
            cut = changed(whole, segment.number, segment.data[:size])
            if not segment.last:
                # Behind a whole frame the next segment does not fit, before it the frame is torn.
                assert "This is damage" in corrupt(cut), (segment.number, size)
                continue
            journal = read(cut)
            stands = max([end for end in ends[2] if end <= size], default=0)
            assert journal.torn_bytes == size - stands
            frames = 5 + (stands >= 120) + (stands >= 176)
            assert journal.end.drop == (stands == 0)
            expected = (2, stands) if stands else (1, 176)
            assert (journal.end.segment, journal.end.offset) == expected
            assert len(journal.frames) == journal.end.frames == frames


def test_no_flipped_bit_of_any_segment_is_believed(segments: Any) -> None:
    whole = segments(*GROUPS)
    for segment in whole:
        for bit in range(len(segment.data) * 8):
            data = bytearray(segment.data)
            data[bit // 8] ^= 1 << bit % 8
            with pytest.raises((JournalCorrupt, JournalVersion)):
                read(changed(whole, segment.number, bytes(data)))


def test_a_missing_segment_is_refused(segments: Any) -> None:
    whole = segments(*GROUPS)
    assert "journal.2: segment 2, expected 1" in corrupt([whole[0], whole[2]])
    assert "journal.1: segment 1, expected 0" in corrupt(whole[1:])
    # Renamed over the gap.
    assert "segment 2, expected 1" in corrupt(numbered([whole[0], whole[2]]))


def test_swapped_and_doubled_segments_are_refused(segments: Any) -> None:
    zero, one, two = segments(*GROUPS)
    for order in ([zero, two, one], [one, zero, two], [zero, one, one, two], [zero, zero, one]):
        assert "expected" in corrupt(numbered(order))


def test_a_segment_of_another_run_is_refused(segments: Any) -> None:
    whole, other = segments(*GROUPS), segments(*GROUPS, run_id=bytes(16))
    message = corrupt(changed(whole, 2, other[2].data))
    assert f"run_id {bytes(16).hex()}, expected {bytes(range(16)).hex()}" in message


def test_a_segment_of_another_history_of_the_same_run_is_refused(segments: Any) -> None:
    whole = segments(*GROUPS)
    other = segments(FIRST, ((fmt.HISTORY, b"2"), (fmt.HISTORY, b"3")), THIRD)
    assert "a record is missing, doubled, swapped" in corrupt(changed(whole, 2, other[2].data))


def test_only_the_last_segment_may_be_torn(segments: Any) -> None:
    whole = segments(*GROUPS)
    message = corrupt(changed(whole, 1, whole[1].data + b"torn"))
    assert message.startswith("journal.1: frame 5 at byte 176: 4 bytes, a frame header has 48")
    torn = read(changed(whole, 2, whole[2].data + b"torn"))
    assert torn.torn_bytes == 4


def test_a_last_segment_that_was_only_made_is_as_if_it_were_not_there(segments: Any) -> None:
    whole = segments(*GROUPS)
    before = read(segments(FIRST, SECOND))
    for data in (b"", whole[2].data[:63], bytes(4096)):
        journal = read(changed(whole, 2, data))
        assert journal.end == End(
            1, 176, 5, before.end.link, len(data), drop=True, why=journal.end.why
        )


def test_room_that_was_never_written_is_torn(segments: Any) -> None:
    whole = segments(*GROUPS)
    for zeros in (8, 48, 512, 5000):
        journal = read(changed(whole, 2, whole[2].data + bytes(zeros)))
        assert journal.torn_bytes == zeros and len(journal.frames) == 7


def test_sectors_that_never_arrived_are_torn_and_anything_else_is_damage(segments: Any) -> None:
    body = bytes(range(1, 256)) * 8
    whole = segments(FIRST, ((fmt.HISTORY, body), (fmt.HISTORY, body)))
    data = whole[1].data
    frame = 64 + 48 + len(body)
    for sector in range(512, len(data), 512):
        lost = data[:sector] + bytes(len(data) - sector)
        journal = read(changed(whole, 1, lost))
        assert journal.torn_bytes == len(data) - (frame if sector > frame else 64)
        assert "This is damage" in corrupt(changed(whole, 1, lost + b"more"))
    # A disk does not lose part of a sector.
    part = data[: sector + 8] + bytes(len(data) - sector - 8)
    assert "This is damage" in corrupt(changed(whole, 1, part))


def test_zeros_at_a_frames_own_end_do_not_make_its_damage_a_torn_write(segments: Any) -> None:
    # The frame ends eight bytes behind a sector's start, in zeros of its own.
    body = b"x" * (512 - 64 - 48) + bytes(8)
    whole = segments(FIRST, ((fmt.HISTORY, body),))
    data = bytearray(whole[1].data)
    assert len(data) == 520 and not any(data[512:])
    data[200] ^= 1
    assert "This is damage" in corrupt(changed(whole, 1, bytes(data)))
