"""A ledger over a simulated disk: whatever fails, what was acknowledged stands and goes on."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from simdisk import Faults, Machine, PowerCut, SimDisk

from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.errors import JournalCorrupt, JournalError, JournalFull
from lockstep.engine.history import Entry
from lockstep.engine.journal import JournalReader, Scan
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import Kind, encode
from lockstep.workers import folder as folders
from lockstep.workers.folder import RunFolder
from lockstep.workers.journal_file import JournalFile
from lockstep.workers.journal_reading import segments
from lockstep.workers.ledger import Backend, Ledger
from lockstep.workers.storage import File
from lockstep.workers.sync import Ask, InlineSyncer

IDENTITY = {"seed": 1}
SEGMENT_BYTES = 1500  # A handful of entries: the runs here have several segments.
COUNT = 24
# Some are longer than a sector, one is longer than a segment.
ENTRIES = [
    Entry(encode(Kind.TAG, bytes([n + 1]) * (40 * n if n != 15 else 2000), id=n), b"%d" % n)
    for n in range(COUNT)
]
LINES = [b'{"id":%d}' % n for n in range(COUNT)]
KEPT = encode(Kind.ORDERED, id=3, item=9)


class World:
    """One run in a simulated machine.

    Attributes:
        machine: As it is now.
        told: Entries that were acknowledged to somebody outside.
    """

    def __init__(self, path: Path, level: str, faults: Faults | None = None) -> None:
        self.path, self.level = path, level
        self.machine = Machine(faults)
        self.told: list[int] = []
        self.folder = RunFolder.create(path / "run", path, "x")

    def backend(self) -> Backend:
        return Backend(
            lambda path: SimDisk(self.machine, path), lambda _level, storage: InlineSyncer(storage)
        )

    def create(self) -> Ledger:
        return Ledger.create(self.folder, self.level, IDENTITY, {}, SEGMENT_BYTES, self.backend())

    def resume(self) -> Ledger:
        return Ledger.resume(self.folder, self.level, SEGMENT_BYTES, self.backend())

    def entries(self) -> list[bytes]:
        storage = SimDisk(self.machine, self.folder.path / folders.JOURNALS)
        reader = JournalReader.of(Scan(segments(storage)))
        return list(reader.bodies(journal_format.HISTORY))

    def output(self) -> bytes:
        return SimDisk(self.machine, self.folder.path).read(folders.OUTPUT)

    def play(self, ledger: Ledger) -> None:
        """The run, from where its journal is; what is recorded is given again."""
        recorded = self.entries()
        assert recorded == [entry.body for entry in ENTRIES[: len(recorded)]]
        for number, entry in enumerate(ENTRIES):
            if number < len(recorded):
                ledger.recorded(entry)
            else:
                if number % 5 == 2:
                    ledger.keep(KEPT)
                ledger.append(entry)
            ledger.output(LINES[number])
            if number % 3 == 0:  # Several entries become visible at once.
                ledger.reveal()
                ledger.when_promised(lambda number=number: self.told.append(number))
        ledger.close()

    def live(self) -> Ledger | None:
        """A new run until something fails; the ledger, if there ever was one."""
        ledger = None
        try:
            ledger = self.create()
            self.play(ledger)
        except (JournalError, OSError):
            if ledger is not None:
                closed(ledger)
        except PowerCut:
            pass
        return ledger

    def shown(self) -> int:
        """Entries before lines that anybody may have seen."""
        return self.output().count(b"\n")


def closed(ledger: Ledger) -> None:
    """As the supervisor closes it after an error."""
    try:
        ledger.close()
    except (JournalError, OSError):
        pass


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[object]:
    numbers = itertools.count()
    made: list[World] = []

    def world(level: str, faults: Faults | None = None) -> World:
        path = tmp_path / str(next(numbers))
        path.mkdir()
        made.append(World(path, level, faults))
        return made[-1]

    yield world
    for each in made:
        each.folder.close()


def undisturbed_counts(worlds: object, level: str) -> Machine:
    world = worlds(level)  # type: ignore[operator]
    world.live()
    check_whole(world)
    return world.machine


def check_whole(world: World) -> None:
    """Everything of the run is there, once."""
    assert world.entries() == [entry.body for entry in ENTRIES]
    assert world.output() == b"".join(line + b"\n" for line in LINES)


def check_digest(ledger: Ledger, bodies: list[bytes]) -> None:
    """The ledger's digest is that of what its journal holds."""
    digest = Digest(identity_record(IDENTITY))
    for entry in ENTRIES[: len(bodies)]:
        digest.add(entry)
    assert ledger.digest.digest == digest.digest
    assert ledger.digest.digest_text == digest.digest_text


LEVELS = ["memory", "async", "sync"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("code", "short"), [(errno.ENOSPC, 0), (errno.EDQUOT, 9), (errno.ENOSPC, 700), (errno.EIO, 0)]
)
def test_whichever_write_fails_what_was_acknowledged_stands_and_the_run_goes_on(
    worlds: object, level: str, code: int, short: int
) -> None:
    for number in range(undisturbed_counts(worlds, level).writes):
        world = worlds(level, Faults(write=number, code=code, short=short))  # type: ignore[operator]
        ledger = world.live()
        if ledger is None:
            continue  # It failed before there was a run.
        bodies = world.entries()
        if level != "memory":
            assert max([*world.told, world.shown() - 1]) < len(bodies)
        check_digest(ledger, bodies)
        # A write that failed left nothing of itself.
        storage = SimDisk(world.machine, world.folder.path / folders.JOURNALS)
        journal = JournalReader.of(Scan(segments(storage)))
        assert journal.torn_bytes == 0 or journal.end.drop
        assert world.output().endswith(b"\n") or not world.output()
        assert "reserve" not in storage.names()
        world.machine = world.machine.after_crash()
        again = world.resume()
        world.play(again)
        check_whole(world)
        check_digest(again, world.entries())


@pytest.mark.parametrize("level", LEVELS)
def test_without_room_for_another_segment_the_run_stops_and_goes_on(
    worlds: object, level: str
) -> None:
    stopped = 0
    for number in range(undisturbed_counts(worlds, level).makes):
        world = worlds(level, Faults(make=number))  # type: ignore[operator]
        ledger = world.live()
        if ledger is None:
            continue
        stopped += 1
        check_digest(ledger, world.entries())
        world.machine = world.machine.after_crash()
        world.play(world.resume())
        check_whole(world)
    assert stopped > 2


@pytest.mark.parametrize("level", LEVELS)
def test_whichever_sync_fails_it_is_never_tried_again_and_the_run_goes_on(
    worlds: object, level: str
) -> None:
    stopped = 0
    for number in range(undisturbed_counts(worlds, level).syncs):
        world = worlds(level, Faults(sync=number))  # type: ignore[operator]
        ledger = world.live()
        assert world.machine.syncs_after_failure == 0
        if ledger is None:
            continue
        stopped += 1
        if level != "memory":
            assert max([*world.told, world.shown() - 1]) < len(world.entries())
        # Going on, the segment that the kernel may take for clean is written over first.
        world.machine = world.machine.after_crash()
        world.play(world.resume())
        check_whole(world)
        SimDisk(world.machine, world.folder.path).sync_names()  # As writing the summary does.
        world.machine = world.machine.after_power_cut(random.Random(number))
        check_whole(world)  # The run was closed: it is on the disk.
    assert stopped > 3


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_power_cut_at_any_operation_loses_at_most_what_the_level_says(
    worlds: object, ordered: bool, level: str
) -> None:
    resumed = refused = 0
    for number in range(undisturbed_counts(worlds, level).operations):
        world = worlds(level, Faults(cut=number))  # type: ignore[operator]
        if world.live() is None:
            continue
        told = max([*world.told, -1]) if level == "sync" else -1
        world.machine = world.machine.after_power_cut(random.Random(number), ordered)
        try:
            again = world.resume()
        except JournalCorrupt:
            # Sectors of one write may arrive in any order: that cannot be told from damage.
            assert not ordered or not world.machine.names
            refused += 1
            continue
        resumed += 1
        bodies = world.entries()
        assert told < len(bodies)
        assert bodies == [entry.body for entry in ENTRIES[: len(bodies)]]
        world.play(again)
        check_whole(world)
        check_digest(again, world.entries())
    assert resumed > 20
    if ordered:
        assert refused == 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_crash_of_the_program_at_any_operation_loses_nothing_that_was_written(
    worlds: object, level: str
) -> None:
    for number in range(undisturbed_counts(worlds, level).operations):
        world = worlds(level, Faults(cut=number))  # type: ignore[operator]
        if world.live() is None:
            continue
        if level != "memory":
            assert max([*world.told, world.shown() - 1]) < len(world.entries())
        world.machine = world.machine.after_crash()
        world.play(world.resume())
        check_whole(world)


@pytest.mark.parametrize("level", LEVELS)
def test_a_resume_that_is_cut_off_at_any_operation_can_be_resumed(
    worlds: object, level: str
) -> None:
    for number in range(30):
        world = worlds(level, Faults(cut=40))  # type: ignore[operator]
        assert world.live() is not None
        world.machine = world.machine.after_power_cut(random.Random(7))
        world.machine.faults.cut = number
        try:
            world.play(world.resume())
        except PowerCut:
            world.machine = world.machine.after_power_cut(random.Random(number))
            world.play(world.resume())
        check_whole(world)


def test_no_room_for_the_reserve_is_told_and_nothing_is_made(worlds: object) -> None:
    class Full(SimDisk):
        def allocate(self, name: str, size: int) -> None:
            raise OSError(errno.ENOSPC, "full")

    world = worlds("sync")  # type: ignore[operator]
    backend = world.backend()._replace(storage=lambda path: Full(world.machine, path))
    with pytest.raises(JournalFull, match="its reserve needs 262144 bytes, 0 are free"):
        Ledger.create(world.folder, "sync", IDENTITY, {}, SEGMENT_BYTES, backend)
    assert world.machine.names == {}


# -- mutants: each turns a test above red ------------------------------------------------


def test_without_the_fsync_a_power_cut_loses_what_was_acknowledged(
    worlds: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimDisk, "sync", lambda self, handle: self.machine.operation())
    with pytest.raises((AssertionError, KeyError)):
        test_a_power_cut_at_any_operation_loses_at_most_what_the_level_says(worlds, True, "sync")


def test_without_the_fsync_before_the_next_segment_its_tail_tears(
    worlds: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurried(file: JournalFile) -> None:
        file.flush()
        file._sealing = True
        file._make_next()
        file._hear()

    monkeypatch.setattr(JournalFile, "next_segment", hurried)
    with pytest.raises(AssertionError):
        test_a_power_cut_at_any_operation_loses_at_most_what_the_level_says(worlds, True, "async")


def test_a_sync_that_is_tried_again_is_found(
    worlds: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = InlineSyncer.ask

    def again(syncer: InlineSyncer, what: Ask, position: int) -> None:
        try:
            ask(syncer, what, position)
        except JournalError:
            ask(syncer, what, position)

    monkeypatch.setattr(InlineSyncer, "ask", again)
    with pytest.raises(AssertionError):
        test_whichever_sync_fails_it_is_never_tried_again_and_the_run_goes_on(worlds, "sync")


def test_a_partial_frame_that_is_left_is_found(
    worlds: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(File, "_cut", lambda _file: None)
    with pytest.raises(AssertionError):
        test_whichever_write_fails_what_was_acknowledged_stands_and_the_run_goes_on(
            worlds, "async", errno.EDQUOT, 9
        )


def test_a_segment_that_is_not_written_over_after_a_failed_sync_is_found(
    worlds: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = SimDisk.write

    def lazy(disk: SimDisk, handle: int, data: bytes | memoryview, offset: int) -> int:
        node = disk.machine.handles[handle]
        if bytes(data) == node.data[offset : offset + len(data)]:
            return len(data)  # It is there already.
        return write(disk, handle, data, offset)

    monkeypatch.setattr(SimDisk, "write", lazy)
    with pytest.raises((AssertionError, JournalCorrupt)):
        test_whichever_sync_fails_it_is_never_tried_again_and_the_run_goes_on(worlds, "sync")
