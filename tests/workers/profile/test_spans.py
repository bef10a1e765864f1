"""Tracks of processes: what was written is there, whatever became of the process and the disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.profile import spans as spans_module
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import (
    CHUNK_BYTES_MIN,
    HEADER_BYTES,
    RECORD_BYTES,
    Kind,
    Role,
    Spans,
)
from lockstep.workers.profile.tracks import RECORDS, Tracks, read, spans_of

IN_A_CHUNK = CHUNK_BYTES_MIN // RECORD_BYTES


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The place of a run in the test's folder."""
    made = Place()
    made.make(tmp_path)
    return made


def begun(
    place: Place, role: Role = Role.SUPERVISOR, bytes_max: int = 1 << 30, **more: int
) -> Spans:
    """A track that is open."""
    made = Spans(place, role, 0, role.name.lower(), bytes_max, **more)
    made.open()
    return made


def written(run: Path, number: int = 0) -> list[tuple[int, ...]]:
    """The records of a track."""
    return list(spans_of(read(run).all[number].records))


def test_records_have_the_layout_that_is_drawn() -> None:
    assert RECORDS.itemsize == RECORD_BYTES == 40
    names = RECORDS.fields or {}
    assert [(name, names[name][1]) for name in RECORDS.names or ()] == [
        ("start", 0), ("end", 8), ("a", 16), ("b", 24), ("c", 32), ("kind", 36)
    ]  # fmt: skip
    assert CHUNK_BYTES_MIN % RECORD_BYTES == CHUNK_BYTES_MIN % 4096 == HEADER_BYTES % 4096 == 0


def test_what_is_written_over_many_chunks_is_read_in_order(place: Place, tmp_path: Path) -> None:
    track = begun(place)
    count = 20 * IN_A_CHUNK + 3
    for number in range(count):
        track.add(Kind.PASS, number, number + 5, number, 2, 3)
    assert written(tmp_path) == [(n, n + 5, n, 2, 3, Kind.PASS) for n in range(count)]
    (found,) = read(tmp_path).all
    assert (found.pid, found.name, found.stopped) == (os.getpid(), "supervisor", "")


def test_what_was_noted_before_there_was_a_folder_is_in_the_file(tmp_path: Path) -> None:
    place = Place()
    track = begun(place)
    track.add(Kind.PREPARE, 1, 2)
    assert list(tmp_path.iterdir()) == []
    place.make(tmp_path)
    track.add(Kind.PASS, 3, 4)
    track.open()
    track.add(Kind.PASS, 5, 6)
    assert [(start, kind) for start, *_, kind in written(tmp_path)] == [
        (1, Kind.PREPARE), (3, Kind.PASS), (5, Kind.PASS)
    ]  # fmt: skip


def test_a_place_is_seen_by_who_was_forked_before_it_was_made(tmp_path: Path) -> None:
    place = Place()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        begun(place).add(Kind.PASS, 1, 2)
        os._exit(0)
    place.make(tmp_path)
    os.write(writing, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(reading)
    os.close(writing)
    assert [track.pid for track in read(tmp_path).all] == [child]


def test_a_killed_process_leaves_every_record_that_it_wrote(place: Place, tmp_path: Path) -> None:
    count = 3 * IN_A_CHUNK + 7
    child = os.fork()
    if child == 0:
        track = begun(place)
        for number in range(count):
            track.add(Kind.PASS, number, number + 1)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [start for start, *_ in written(tmp_path)] == list(range(count))


def test_a_record_without_a_kind_and_all_behind_it_are_not_read(
    place: Place, tmp_path: Path
) -> None:
    track = begun(place)
    for number in range(9):
        track.add(Kind.PASS, number, number + 1)
    (path,) = (tmp_path / "profile").iterdir()
    with open(path, "r+b") as file:  # As one that was killed in the middle of it leaves it.
        file.seek(HEADER_BYTES + 5 * RECORD_BYTES + 36)
        file.write(bytes(4))
    assert [start for start, *_ in written(tmp_path)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "junk", [b"\xff" * 40, (9).to_bytes(8, "little") + bytes(28) + b"\x0b\0\0\0"]
)
def test_records_that_make_no_sense_end_a_track(place: Place, tmp_path: Path, junk: bytes) -> None:
    track = begun(place)
    for number in range(4):
        track.add(Kind.PASS, number, number + 1)
    (path,) = (tmp_path / "profile").iterdir()
    with open(path, "r+b") as file:
        file.seek(HEADER_BYTES + 2 * RECORD_BYTES)
        file.write(junk)
    assert len(written(tmp_path)) == 2


@pytest.mark.parametrize(
    "record",
    [
        (Kind.WAIT, 1, 2, 0, 0, 7),
        (Kind.DECODE, 1, 2, 0, 1, 2**32 - 1),
        (Kind.WEIGHTS, 1, 1, 0, 2**40, 2**32 - 1),
        (Kind.STEP, 1, 2**63, 1, 0, 0),
        (Kind.TURN, 1, 2, 1, 2**63, 0),
        (Kind.ASKED, 1, 1, 2**64 - 1, 0, 0),
    ],
)
def test_numbers_that_no_process_writes_end_a_track(
    place: Place, tmp_path: Path, record: tuple[int, ...]
) -> None:
    track = begun(place)
    track.add(Kind.PASS, 1, 2)
    track.add(*record)
    track.add(Kind.PASS, 3, 4)
    assert len(written(tmp_path)) == 1


@pytest.mark.parametrize("bytes_max", [1_000, CHUNK_BYTES_MIN + 1_000, 20 * CHUNK_BYTES_MIN - 1])
def test_a_track_takes_no_more_room_than_its_limit(
    place: Place, tmp_path: Path, bytes_max: int
) -> None:
    track = begun(place, bytes_max=bytes_max)
    for number in range(30 * IN_A_CHUNK):
        track.add(Kind.PASS, number, number + 1)
    (path,) = (tmp_path / "profile").iterdir()
    assert path.stat().st_size <= HEADER_BYTES + bytes_max
    assert len(written(tmp_path)) == bytes_max // RECORD_BYTES


def test_a_track_ends_at_its_limit_and_says_so(place: Place, tmp_path: Path) -> None:
    track = begun(place, bytes_max=CHUNK_BYTES_MIN)
    for number in range(10 * IN_A_CHUNK):
        track.add(Kind.PASS, number, number + 1)
    (found,) = read(tmp_path).all
    assert (len(found.records), found.stopped) == (IN_A_CHUNK, "its limit")


def test_a_disk_without_room_ends_a_track_and_nothing_else(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = begun(place)
    real = os.posix_fallocate

    def full(descriptor: int, offset: int, size: int) -> None:
        if size > HEADER_BYTES + CHUNK_BYTES_MIN:
            raise OSError(28, os.strerror(28))
        real(descriptor, offset, size)

    monkeypatch.setattr(spans_module.os, "posix_fallocate", full)
    for number in range(3 * IN_A_CHUNK):
        track.add(Kind.PASS, number, number + 1)
    (found,) = read(tmp_path).all
    assert (len(found.records), found.stopped) == (IN_A_CHUNK, "no room on the disk")


def test_the_last_room_of_a_disk_is_left_to_the_run(place: Place, tmp_path: Path) -> None:
    track = begun(place, free_bytes_min=1 << 60)
    for number in range(2 * IN_A_CHUNK):
        track.add(Kind.PASS, number, number + 1)
    assert list((tmp_path / "profile").iterdir()) == []
    with pytest.raises(UsageError, match="the supervisor left no track"):
        read(tmp_path)


def test_files_that_are_no_tracks_are_named(place: Place, tmp_path: Path) -> None:
    begun(place).add(Kind.PASS, 1, 2)
    begun(place, Role.INFERENCE)
    folder = tmp_path / "profile"
    (folder / "a.spans").write_bytes(b"")
    (folder / "b.spans").write_bytes(b"\0" * 8192)
    (folder / "c.spans").write_bytes(os.urandom(8192))
    found: Tracks = read(tmp_path)
    assert found.unread == ["a.spans", "b.spans", "c.spans"]
    assert [track.role for track in found.all] == [Role.SUPERVISOR, Role.INFERENCE]


def test_a_folder_that_was_not_profiled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was not profiled"):
        read(tmp_path)
