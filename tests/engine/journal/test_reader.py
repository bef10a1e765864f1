"""Journal reader: every byte is checked before it is believed."""

import struct
import tracemalloc
import zlib
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import JournalCorrupt, JournalError, JournalVersion
from lockstep.engine.journal import JournalReader, JournalWriter, Scan
from lockstep.engine.journal import format as fmt
from lockstep.engine.journal.recovery import Found
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS

OTHER_RUN = bytes(16)
BODIES = ((fmt.IDENTITY, b"i"), (fmt.HISTORY, b"h"))


def contents(reader: JournalReader) -> list[tuple[int, bytes]]:
    return [(frame.kind, frame.body) for frame in reader.frames]


def corrupt(data: bytes) -> str:
    with pytest.raises(JournalCorrupt) as error:
        JournalReader(data, "runs/7/journal.0")
    return str(error.value)


def test_what_was_written_is_read(write: Any) -> None:
    bodies = ((fmt.IDENTITY, b"i"), (fmt.ENVIRONMENT, b"e"), (fmt.HISTORY, b"h" * 99))
    parts = write(bodies)
    reader = JournalReader(b"".join(parts), "j")
    assert contents(reader) == list(bodies)
    assert reader.torn_bytes == 0
    assert reader.header == fmt.SegmentHeader(JOURNAL_FORMAT, LOGIC_FLAGS, bytes(range(16)), 0, 0)
    assert [frame.number for frame in reader.frames] == [0, 1, 2]
    assert [frame.offset for frame in reader.frames] == [64, 120, 176]
    assert list(reader.bodies(fmt.HISTORY)) == [b"h" * 99]


def test_a_journal_without_frames_is_whole(write: Any) -> None:
    assert JournalReader(write(())[0], "j").frames == []


@given(st.lists(st.tuples(st.sampled_from(fmt.KINDS), st.binary(max_size=50)), max_size=8))
def test_any_bodies_survive(bodies: list[tuple[int, bytes]]) -> None:
    class Sink:
        data = b""

        def write(self, data: bytes) -> None:
            self.data += data

    sink = Sink()
    writer = JournalWriter(sink, OTHER_RUN)
    for kind, body in bodies:
        writer.append(kind, body)
    assert contents(JournalReader(sink.data, "j")) == bodies
    assert writer.frames == len(bodies)


def test_a_torn_tail_at_any_byte_is_cut_and_counted(write: Any) -> None:
    parts = write()
    data = b"".join(parts)
    whole = contents(JournalReader(data, "j"))
    ends = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
    for cut in range(fmt.SEGMENT_BYTES, len(data) + 1):
        reader = JournalReader(data[:cut], "j")
        frames = sum(1 for end in ends[1:] if end <= cut)
        assert contents(reader) == whole[:frames], cut
        assert reader.torn_bytes == cut - ends[frames], cut


def test_a_torn_segment_header_is_no_journal(write: Any) -> None:
    data = b"".join(write())
    for cut in range(fmt.SEGMENT_BYTES):
        assert f"{cut} bytes, a header has 64" in corrupt(data[:cut])


def test_bytes_that_are_no_journal_are_named() -> None:
    assert "no journal segment: its first bytes are 504b030414000000" in corrupt(
        b"PK\3\4\x14" + bytes(100)
    )


def test_a_journal_without_any_segment_is_refused() -> None:
    with pytest.raises(JournalCorrupt, match="no journal segment"):
        JournalReader.of(Scan([]))


def test_no_flipped_bit_is_ever_believed(write: Any) -> None:
    data = b"".join(write())
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(JournalCorrupt):
            JournalReader(bytes(flipped), "j")


def test_no_flipped_bit_before_a_torn_tail_is_believed(write: Any) -> None:
    parts = write()
    for left in (1, 47, 48, 50):
        data = b"".join(parts[:-1]) + parts[-1][:left]
        whole = contents(JournalReader(data, "j"))
        for bit in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                reader = JournalReader(bytes(flipped), "j")
            except JournalCorrupt:
                continue
            # A bit of the torn frame itself: it does not count either way.
            assert bit // 8 >= len(data) - left
            assert (contents(reader), reader.torn_bytes) == (whole, left)


def test_damage_is_told_with_its_place_and_what_became_of_the_data(write: Any) -> None:
    parts = write()
    damaged = bytearray(b"".join(parts))
    damaged[len(parts[0]) + len(parts[1]) + fmt.FRAME_BYTES] ^= 1
    message = corrupt(bytes(damaged))
    assert message.startswith("runs/7/journal.0: frame 1 at byte 128: checksum ")
    assert message.endswith(
        ", and 3 valid frames follow it. This is damage, not a torn write; nothing was cut"
    )


def test_damage_in_a_header_tells_how_many_whole_frames_follow(write: Any) -> None:
    parts = write()
    damaged = bytearray(b"".join(parts))
    damaged[-len(parts[-1]) - len(parts[-2])] ^= 1
    assert "frame 3 at byte 272: header checksum" in corrupt(bytes(damaged))
    assert "and 1 valid frame follows it" in corrupt(bytes(damaged))


def test_what_looks_like_a_frame_inside_a_torn_body_does_not_make_it_damage(write: Any) -> None:
    inner, _ = fmt.encode_frame(fmt.HISTORY, b"an agent may send anything", bytes(32))
    parts = write((*BODIES, (fmt.HISTORY, inner * 3 + b"end")))
    data = b"".join(parts)[:-8]
    assert JournalReader(data, "j").torn_bytes == len(parts[-1]) - 8


def test_a_missing_frame_is_refused(write: Any) -> None:
    parts = write()
    for missing in range(1, len(parts) - 1):
        data = b"".join(part for n, part in enumerate(parts) if n != missing)
        assert "a record is missing, doubled, swapped or from another run" in corrupt(data)


def test_a_doubled_frame_is_refused(write: Any) -> None:
    parts = write()
    for doubled in range(1, len(parts)):
        for place in range(1, len(parts) + 1):
            data = b"".join([*parts[:place], parts[doubled], *parts[place:]])
            assert "missing, doubled, swapped" in corrupt(data)


def test_swapped_frames_are_refused(write: Any) -> None:
    header, *frames = write()
    for order in permutations(range(len(frames))):
        if list(order) != sorted(order):
            data = header + b"".join(frames[n] for n in order)
            assert "missing, doubled, swapped" in corrupt(data)


def test_frames_of_another_run_are_refused(write: Any) -> None:
    parts, others = write(), write(run_id=OTHER_RUN)
    for taken in range(len(parts)):
        data = b"".join(others[n] if n == taken else part for n, part in enumerate(parts))
        assert "missing, doubled, swapped or from another run" in corrupt(data)
    assert "from another run" in corrupt(b"".join(parts) + others[-1])
    assert "from another run" in corrupt(parts[0] + b"".join(others[1:]))


def test_a_frame_with_the_same_number_from_a_longer_history_is_refused(write: Any) -> None:
    history = tuple((fmt.HISTORY, b"%d" % n) for n in range(4))
    other = (history[0], (fmt.HISTORY, b"other"), *history[2:])
    a, b = write(history), write(other)
    assert "missing, doubled, swapped" in corrupt(b"".join([*a[:3], b[3], b[4]]))


@pytest.mark.parametrize("length", [2**30, 2**30 + 1, 2**31, 2**32 - 1])
def test_a_huge_length_allocates_nothing(write: Any, length: int) -> None:
    header = write(())[0]
    fields = (length, 0, 0, fmt.HISTORY, fmt.first_link(bytes(range(16))))
    frame = fmt.FRAME.pack(length, zlib.crc32(fmt.FRAME.pack(*fields)), *fields[2:])
    tracemalloc.start()
    try:
        if length > fmt.BODY_BYTES_MAX:
            assert "frame 0 at byte 64" in corrupt(header + frame + b"body")
        else:
            assert JournalReader(header + frame + b"body", "j").torn_bytes == 52
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [0, 5, 2**32 - 1])
def test_a_frame_of_an_unknown_kind_is_refused(write: Any, kind: int) -> None:
    frame, _ = fmt.encode_frame(kind, b"x", fmt.first_link(bytes(range(16))))
    assert "frame 0 at byte 64" in corrupt(write(())[0] + frame)


def test_padding_that_is_not_zero_is_refused(write: Any) -> None:
    parts = write()
    assert "padding is not zero" in corrupt(b"".join(parts)[:-1] + b"\1")


def segment(
    version: int = JOURNAL_FORMAT, flags: int = LOGIC_FLAGS, number: int = 0, sequence: int = 0
) -> bytes:
    return fmt.encode_segment(fmt.SegmentHeader(version, flags, bytes(16), number, sequence))


def test_a_segment_that_is_not_the_first_is_refused() -> None:
    assert "segment 1, expected 0" in corrupt(segment(number=1))
    assert "sequence 9, expected 0" in corrupt(segment(sequence=9))


@pytest.mark.parametrize(("offset", "size"), [(36, 4), (48, 12)])
def test_a_header_of_another_size_or_with_reserved_bytes_is_refused(offset: int, size: int) -> None:
    for place in range(offset, offset + size):
        data = bytearray(segment())
        data[place] ^= 1
        data[60:] = zlib.crc32(data[:60]).to_bytes(4, "little")
        assert "expected 64 bytes, reserved bytes 0" in corrupt(bytes(data))


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(JournalVersion, match=f"j: format 9, this Lockstep reads {JOURNAL_FORMAT}"):
        JournalReader(segment(version=9), "j")


@pytest.mark.parametrize("bit", [bit for bit in range(32) if not LOGIC_FLAGS >> bit & 1])
def test_rules_that_this_version_does_not_know_are_refused_by_name(bit: int) -> None:
    with pytest.raises(JournalVersion, match=f"j: logic flags {LOGIC_FLAGS | 1 << bit:#x}"):
        JournalReader(segment(flags=LOGIC_FLAGS | 1 << bit), "j")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(JournalError):
        JournalReader(data, "j")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_behind_a_header_are_torn_or_refused(data: bytes) -> None:
    try:
        reader = JournalReader(segment() + data, "j")
    except JournalCorrupt:
        return
    assert reader.frames == []
    assert reader.torn_bytes == len(data) < fmt.FRAME_BYTES


def test_a_segment_header_has_its_known_size() -> None:
    assert struct.calcsize("<8sII16sIIQ12sI") == fmt.SEGMENT_BYTES


# -- mutants: each turns a test above red ------------------------------------------------


def without(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not look at one thing."""
    fault = Scan._fault

    def lenient(scan: Scan, data: bytes, offset: int) -> object:
        told = fault(scan, data, offset)
        return None if told is not None and told[0] is found else told

    monkeypatch.setattr(Scan, "_fault", lenient)


def test_without_the_chain_check_swapped_frames_are_believed(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(Found.CHAIN, monkeypatch)
    for test in (test_swapped_frames_are_refused, test_frames_of_another_run_are_refused):
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            test(write)


def test_without_the_checksum_of_bodies_flipped_bits_are_believed(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(Found.BODY_BAD, monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_no_flipped_bit_is_ever_believed(write)
