"""Reading back: as much of the record as is enough, from any place on, checked as ever."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lockstep.engine.errors import JournalCorrupt
from lockstep.engine.history import Entry, TagEntry
from lockstep.engine.journal.parts import MARK_FRAMES
from lockstep.engine.past import Earlier, Past
from lockstep.engine.record import Kind, encode
from lockstep.workers.folder import RunFolder
from lockstep.workers.journal_file import LEVELS
from lockstep.workers.ledger import Backend, Ledger
from lockstep.workers.storage import Disk
from lockstep.workers.sync import Ask, InlineSyncer

INLINE = Backend(Disk, lambda _level, storage: InlineSyncer(storage))
TALKS, SILENT = 0, 1  # One agent has a turn at each tag, the other one only at the first.
COUNT = 20 * MARK_FRAMES + 100


def entry(step: int) -> Entry:
    tag = TagEntry((step, 0))
    for agent in (TALKS, SILENT) if not step else (TALKS,):
        tag.add(encode(Kind.TURN, b"", id=step, peer=agent))
        tag.add(encode(Kind.EFFECT, encode(Kind.LOG, b"%d" % step), id=step, peer=agent))
    return tag.close()


def kept(step: int) -> bytes:
    return encode(Kind.ORDERED, b"\0\0\0\0", id=step, item=step, peer=TALKS)


ENTRIES = [entry(step) for step in range(COUNT)]
BODIES = [each.body for each in ENTRIES]


def write(ledger: Ledger, first: int = 0, last: int = COUNT) -> Ledger:
    """Entries, some with something kept before them."""
    for step in range(first, last):
        if step % 7 == 0:
            ledger.keep(kept(step))
        ledger.append(ENTRIES[step])
        if step % 500 == 0:
            ledger.reveal()
    return ledger


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    yield made
    made.close()


@pytest.fixture
def ledger(folder: RunFolder) -> Iterator[Ledger]:
    """A run of several segments."""
    made = write(Ledger.create(folder, "async", {"a": 1}, {}, 200_000, INLINE))
    yield made
    made.close()


def whole(past: Past) -> bool:
    return past.whole


def segments(folder: RunFolder) -> list[Path]:
    return sorted((folder.path / "journal").glob("*.journal"))


def check(past: Past) -> None:
    """It is the end of what was written, with the number of its first entry."""
    skipped = past.skipped or 0
    assert list(past.entries) == BODIES[skipped:]
    steps = [int.from_bytes(record[8:16], "little") for record in past.kept]
    # What was kept just before the part's first entry may be in it.
    assert steps in (
        [s for s in range(first, COUNT) if s % 7 == 0] for first in (skipped, skipped + 1)
    )


def test_a_part_is_asked_about_until_it_is_enough(ledger: Ledger, folder: RunFolder) -> None:
    assert len(segments(folder)) > 3
    asked: list[Past] = []

    def enough(past: Past) -> bool:
        asked.append(past)
        return past.reaches(TALKS, COUNT - 2000)

    past = ledger.read_back(enough)
    assert past is asked[-1] and not past.whole and len(asked) > 1
    assert len(past.entries) < COUNT - 500
    for part in asked:
        check(part)
    assert past.turn(TALKS, COUNT - 2000).records == encode(Kind.LOG, b"%d" % (COUNT - 2000))
    for shorter, longer in pairwise(asked):
        assert len(shorter.entries) < len(longer.entries)


def test_for_an_agent_that_was_silent_for_long_it_widens_to_the_whole(ledger: Ledger) -> None:
    asked: list[int | None] = []

    def enough(past: Past) -> bool:
        asked.append(past.skipped)
        return past.count(SILENT) == 1  # Raises `Earlier` until its wake is there.

    past = ledger.read_back(enough)
    assert past.whole and len(asked) > 1 and None not in asked
    assert past.entries == BODIES and past.count(SILENT) == 1
    check(past)


def test_without_a_question_the_whole_is_read(ledger: Ledger) -> None:
    past = ledger.read_back()
    assert past.whole and past.entries == BODIES
    check(past)


@pytest.mark.parametrize("seed", range(8))
def test_a_part_of_any_length_has_the_same_turns(ledger: Ledger, seed: int) -> None:
    first = random.Random(seed).randrange(COUNT)
    past = ledger.read_back(lambda past: past.reaches(TALKS, first))
    expected = Past(BODIES)
    for number in range(first, COUNT):
        assert past.turn(TALKS, number) == expected.turn(TALKS, number)
    check(past)


def test_a_run_that_goes_on_marks_what_it_finds(folder: RunFolder) -> None:
    half = COUNT // 2
    write(Ledger.create(folder, "async", {"a": 1}, {}, 200_000, INLINE), 0, half).close()
    ledger = Ledger.resume(folder, "async", 200_000, INLINE)
    for each in ENTRIES[:half]:
        ledger.recorded(each)
    write(ledger, half)
    for back in (100, 1500, 2500, 3400):
        past = ledger.read_back(lambda past, back=back: past.reaches(TALKS, COUNT - back))  # type: ignore[misc]
        assert not past.whole
        check(past)
    assert ledger.read_back().entries == BODIES
    ledger.close()


@pytest.mark.parametrize("level", LEVELS)
def test_what_waits_for_the_next_segment_is_read_back(folder: RunFolder, level: str) -> None:
    class Late(InlineSyncer):
        """While it syncs a full segment, everything gathers for the next one."""

        asked = 0

        def answers(self, wait: bool) -> list[tuple[Ask, int]]:
            self.asked += 1
            return super().answers(wait) if wait or self.asked % 3 == 0 else []

    late = Backend(Disk, lambda _level, storage: Late(storage))
    ledger = Ledger.create(folder, level, {"a": 1}, {}, 4_000, late)
    for step in range(300):
        ledger.append(ENTRIES[step])
        assert ledger.read_back(lambda _: False).entries == BODIES[: step + 1]
        if step % 5 == 0:
            ledger._file._hear()  # As the loop says, when the sync process has said something.
    assert len(segments(folder)) > 3
    ledger.close()


def test_the_past_of_a_fork_is_reached_last(ledger: Ledger) -> None:
    # As if the run had been forked from another one, with three entries of its own kind.
    ledger.shared = Past([b"one", b"two", b"three"], [b"kept"])
    asked: list[int | None] = []

    def enough(past: Past) -> bool:
        asked.append(past.skipped)
        raise Earlier

    past = ledger.read_back(enough)
    assert past.whole and past.entries == [b"one", b"two", b"three", *BODIES]
    assert past.kept[0] == b"kept"
    assert asked[-1] == 3 and asked == sorted(asked, reverse=True)  # type: ignore[type-var]
    part = ledger.read_back(lambda past: len(past.entries) == COUNT)
    assert part.skipped == 3 and part.entries == BODIES


def test_a_run_of_which_nothing_is_recorded_has_an_empty_past(folder: RunFolder) -> None:
    ledger = Ledger.create(folder, "async", {"a": 1}, {}, 200_000, INLINE)
    past = ledger.read_back(lambda _: False)
    assert past.whole and past.entries == []
    ledger.close()


@pytest.mark.parametrize("far", [100, 12 * MARK_FRAMES])
def test_damage_is_found_where_it_is_read_and_only_there(
    ledger: Ledger, folder: RunFolder, far: int
) -> None:
    ledger.reveal(visible=True)
    needle = encode(Kind.LOG, b"%d" % (COUNT - far))
    (path,) = [each for each in segments(folder) if needle in each.read_bytes()]
    data = path.read_bytes()
    at = data.index(needle) + len(needle) - 1
    path.write_bytes(data[:at] + b"!" + data[at + 1 :])
    with pytest.raises(JournalCorrupt, match="checksum"):
        ledger.read_back()
    if far == 100:
        with pytest.raises(JournalCorrupt, match="checksum"):
            ledger.read_back(lambda _: True)
    else:
        assert not ledger.read_back(lambda _: True).whole
    path.write_bytes(data)


def test_what_is_missing_at_the_end_is_no_torn_tail(ledger: Ledger, folder: RunFolder) -> None:
    ledger.read_back()
    path = segments(folder)[-1]
    data = path.read_bytes()
    for end in (len(data) - 8, len(data) - len(ENTRIES[-1].body) - 48):  # Torn, and a whole frame.
        path.write_bytes(data[:end])
        with pytest.raises(JournalCorrupt, match=r"fewer bytes|bytes, a frame|of \d+ bytes"):
            ledger.read_back(lambda _: True)
    path.write_bytes(data)
