"""The ledger: what is shown was written, what was written goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockstep.engine import actions
from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.errors import Diverged, JournalCorrupt, JournalError, UsageError
from lockstep.engine.history import Entry
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import Kind, encode
from lockstep.workers import folder as folders
from lockstep.workers import journal_file
from lockstep.workers.folder import RunFolder
from lockstep.workers.journal_file import JournalFile
from lockstep.workers.journal_reading import read_journal, scan_journal
from lockstep.workers.ledger import Backend, Ledger
from lockstep.workers.storage import Disk
from lockstep.workers.sync import InlineSyncer

IDENTITY, ENVIRONMENT = {"a": 1}, {"b": 2}
STOP = encode(Kind.STOP)
INLINE = Backend(Disk, lambda _level, storage: InlineSyncer(storage))
Resume = Callable[..., Ledger]


def entry(number: int) -> Entry:
    return Entry(encode(Kind.TAG, b"x" * 50, id=number), b"said %d" % number)


def digest_of(*entries: Entry) -> tuple[str, str]:
    digest = Digest(identity_record(IDENTITY))
    for each in entries:
        digest.add(each)
    return digest.digest, digest.digest_text


def digest(ledger: Ledger) -> tuple[str, str]:
    return ledger.digest.digest, ledger.digest.digest_text


def create(folder: RunFolder, level: str = "async", segment_bytes_max: int = 1 << 20) -> Ledger:
    return Ledger.create(folder, level, IDENTITY, ENVIRONMENT, segment_bytes_max, INLINE)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder.create(tmp_path / "run", tmp_path, "x")
    yield made
    made.close()


@pytest.fixture
def stopped(folder: RunFolder) -> RunFolder:
    """A run of three entries and lines that was stopped, in several segments."""
    ledger = create(folder, segment_bytes_max=400)
    for number in range(3):
        ledger.append(entry(number))
        ledger.output(b'{"id":%d}' % number)
        ledger.log("a", actions.Log(0, 1, 1, (number, 0), b"line %d" % number))
        ledger.reveal()
    ledger.close()
    folder.write_json(folders.SUMMARY, {"state": "stopped"})
    return folder


@pytest.fixture
def resume(stopped: RunFolder) -> Iterator[Resume]:
    """Go on with it; the recorded part is given again."""
    made: list[Ledger] = []

    def go_on(entries: int = 3, lines: int = 3) -> Ledger:
        made.append(Ledger.resume(stopped, "async", 400, INLINE))
        for number in range(entries):
            made[-1].recorded(entry(number))
            made[-1].log("a", actions.Log(0, 1, 1, (number, 0), b"line %d" % number))
        for number in range(lines):
            made[-1].output(b'{"id":%d}' % number)
        return made[-1]

    return go_on


def output(folder: RunFolder) -> bytes:
    return (folder.path / folders.OUTPUT).read_bytes()


def last_segment(folder: RunFolder) -> Path:
    return sorted((folder.path / "journal").glob("*.journal"))[-1]


def everything(folder: RunFolder) -> dict[str, bytes]:
    files = sorted(path for path in folder.path.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("level", journal_file.LEVELS)
def test_a_ledger_reveals_output_after_its_entries(folder: RunFolder, level: str) -> None:
    ledger = create(folder, level)
    ledger.append(entry(0))
    ledger.output(b'{"id":1}')
    assert output(folder) == b""
    ledger.reveal()
    assert output(folder) == b'{"id":1}\n'
    ledger.close()
    journal = read_journal(folder.path)
    assert list(journal.bodies(journal_format.HISTORY)) == [entry(0).body]
    assert digest(ledger) == digest_of(entry(0))


def test_control_characters_of_an_agent_do_not_reach_the_log_file(folder: RunFolder) -> None:
    ledger = create(folder, "memory")
    ledger.log("a", actions.Log(0, 1, 1, (3, 4), b"red \x1b[31m\n\xff"))
    ledger.close()
    text = (folder.path / "logs/a.log").read_text()
    assert text == "3.4 info stdout: red \\x1b[31m\\x0a\N{REPLACEMENT CHARACTER}\n"


def test_a_run_has_its_first_records_on_the_disk_before_anything_happens(
    folder: RunFolder,
) -> None:
    ledger = create(folder, "memory")
    kinds = [frame.kind for frame in read_journal(folder.path).frames]
    assert kinds == [journal_format.IDENTITY, journal_format.ENVIRONMENT]
    ledger.close()


def test_room_is_held_back_while_a_run_lives_and_given_back_at_its_end(folder: RunFolder) -> None:
    ledger = create(folder)
    reserve = folder.path / "journal" / journal_file.RESERVE
    told = reserve.stat()
    assert told.st_size == journal_file.RESERVE_BYTES <= told.st_blocks * 512
    ledger.close()
    assert not reserve.exists()


def test_who_waits_is_called_in_order_and_never_after_the_end(folder: RunFolder) -> None:
    ledger = create(folder, "sync")
    said: list[str] = []
    ledger.append(entry(0))
    ledger.when_promised(lambda: said.append("first"))
    ledger.when_promised(lambda: said.append("second"))
    ledger.close()
    assert said == ["first", "second"]

    class Silent(InlineSyncer):
        def answers(self, wait: bool) -> list[object]:  # type: ignore[override]
            return super().answers(wait) if wait else []  # type: ignore[return-value]

    silent = Backend(Disk, lambda _level, storage: Silent(storage))
    again = Ledger.resume(folder, "sync", 1 << 20, silent)
    again.append(entry(1))
    again.output(b"{}")
    again.reveal()
    again.when_promised(lambda: said.append("never"))
    assert output(folder) == b""
    again.close()
    assert said == ["first", "second"] and output(folder) == b"{}\n"


def test_a_segment_that_is_full_is_followed_by_another(stopped: RunFolder) -> None:
    names = [path.name for path in sorted((stopped.path / "journal").iterdir())]
    assert names == ["00000000.journal", "00000001.journal"]
    journal = read_journal(stopped.path)
    assert [frame.segment for frame in journal.frames] == [0, 0, 0, 0, 1]
    assert [frame.body for frame in scan_journal(stopped.path).frames()] == [
        frame.body for frame in journal.frames
    ]


def test_what_is_written_and_what_is_gathered_is_read_back(folder: RunFolder) -> None:
    ledger = create(folder, "memory", 300)
    kept = encode(Kind.ORDERED, id=3, item=9)
    for number in range(5):
        ledger.append(entry(number))
    ledger.keep(kept)
    past = ledger.read_back()
    assert list(past.entries) == [entry(number).body for number in range(5)]
    assert list(past.kept) == [kept]
    ledger.close()


# -- going on ------------------------------------------------


def test_a_run_goes_on_as_if_it_had_never_stopped(
    stopped: RunFolder, resume: Resume, tmp_path: Path
) -> None:
    ledger = resume()
    assert (ledger.entries, ledger.cut) == (3, "")
    ledger.reveal()
    assert not (stopped.path / folders.SUMMARY).exists()
    ledger.append(entry(3))
    ledger.output(b'{"id":3}')
    ledger.reveal()
    ledger.close()
    assert ledger.entries == 4
    assert digest(ledger) == digest_of(*(entry(number) for number in range(4)))
    assert output(stopped) == b"".join(b'{"id":%d}\n' % number for number in range(4))
    log = (stopped.path / "logs/a.log").read_text()
    assert log == "".join(f"{number}.0 info stdout: line {number}\n" for number in range(3))
    journal = read_journal(stopped.path)
    assert journal.header.run_id == ledger.run_id
    bodies = list(journal.bodies(journal_format.HISTORY))
    assert bodies == [entry(number).body for number in range(4)]


def test_a_torn_tail_is_cut_and_said(stopped: RunFolder, resume: Resume) -> None:
    whole = last_segment(stopped).read_bytes()
    last_segment(stopped).write_bytes(whole + b"torn")
    ledger = resume()
    assert ledger.cut == (
        "4 bytes of a torn tail were cut "
        "(fewer bytes than a frame header: 4 bytes, a frame header has 48)"
    )
    ledger.close()
    assert last_segment(stopped).read_bytes() == whole


def test_a_segment_of_which_nothing_counts_is_removed(stopped: RunFolder, resume: Resume) -> None:
    empty = stopped.path / "journal/00000002.journal"
    empty.write_bytes(b"LKSTPJ")
    ledger = resume()
    assert ledger.cut.startswith("6 bytes of a torn tail were cut")
    assert not empty.exists()
    ledger.append(entry(3))
    ledger.close()
    assert len(read_journal(stopped.path).frames) == 6


def test_a_damaged_journal_is_refused_and_nothing_is_changed(
    stopped: RunFolder, resume: Resume
) -> None:
    path = last_segment(stopped)
    data = bytearray(path.read_bytes())
    data[150] ^= 1
    path.write_bytes(data)
    before = everything(stopped)
    with pytest.raises(JournalCorrupt, match="This is damage, not a torn write; nothing was cut"):
        resume()
    assert everything(stopped) == before


def test_a_journal_without_an_identity_cannot_be_gone_on_with(
    stopped: RunFolder, resume: Resume
) -> None:
    os.truncate(stopped.path / "journal/00000000.journal", 70)
    (stopped.path / "journal/00000001.journal").unlink()
    before = everything(stopped)
    with pytest.raises(JournalCorrupt, match="does not begin with an identity"):
        resume()
    assert everything(stopped) == before


def test_without_room_for_a_reserve_nothing_is_changed(
    stopped: RunFolder, monkeypatch: pytest.MonkeyPatch, resume: Resume
) -> None:
    last_segment(stopped).write_bytes(last_segment(stopped).read_bytes() + b"torn")
    before = everything(stopped)
    monkeypatch.setattr(journal_file, "RESERVE_BYTES", 1 << 60)
    with pytest.raises((UsageError, OSError), match=r"nothing was changed|File too large"):
        resume()
    assert everything(stopped) == before


def test_output_that_is_missing_is_written_and_a_torn_line_is_cut(
    stopped: RunFolder, resume: Resume
) -> None:
    (stopped.path / folders.OUTPUT).write_bytes(b'{"id":0}\n{"i')
    ledger = resume()
    ledger.reveal()
    assert output(stopped) == b'{"id":0}\n{"id":1}\n{"id":2}\n'
    ledger.close()


def test_output_that_is_not_there_is_made_again(stopped: RunFolder, resume: Resume) -> None:
    (stopped.path / folders.OUTPUT).unlink()
    ledger = resume()
    ledger.reveal()
    ledger.close()
    assert output(stopped) == b'{"id":0}\n{"id":1}\n{"id":2}\n'


def test_output_that_the_run_did_not_write_is_refused_with_its_line(
    stopped: RunFolder, resume: Resume
) -> None:
    for line in (b'{"id":7}\n', b'{"id":1} \n', b"\n", b'{"id"\n', b"\xff\x1b\n"):
        (stopped.path / folders.OUTPUT).write_bytes(b'{"id":0}\n' + line + b'{"id":2}\n')
        before = everything(stopped)
        ledger = resume(lines=1)
        with pytest.raises(Diverged, match=r"output\.jsonl: line 2 is '.*', the run says"):
            ledger.output(b'{"id":1}')
        ledger.close()
        assert everything(stopped) == before


def test_output_before_its_entries_is_matched_by_what_comes_live(
    stopped: RunFolder, resume: Resume
) -> None:
    # At `memory` lines are shown before their entries are written: a crash loses the latter.
    (stopped.path / folders.OUTPUT).write_bytes(b'{"id":0}\n{"id":1}\n{"id":2}\n{"id":3}\n')
    ledger = resume()
    ledger.append(entry(3))
    ledger.output(b'{"id":3}')
    ledger.output(b'{"id":4}')
    ledger.close()
    assert output(stopped) == b"".join(b'{"id":%d}\n' % number for number in range(5))


def test_a_run_that_ends_with_lines_left_over_says_so(stopped: RunFolder, resume: Resume) -> None:
    (stopped.path / folders.OUTPUT).write_bytes(b'{"id":0}\n{"id":1}\n{"id":2}\n{"id":3}\n')
    resume().close()  # Stopped again: they may still come.
    ledger = resume()
    ledger.append(Entry(STOP, b""))
    with pytest.raises(Diverged, match="has 1 lines more than the run said"):
        ledger.close()


# -- the file ------------------------------------------------


def journal(path: Path, level: str) -> JournalFile:
    storage = Disk(path)
    return JournalFile(storage, InlineSyncer(storage), level, 1 << 20)


@pytest.mark.parametrize("level", ["async", "sync"])
def test_what_nobody_sees_yet_is_written_a_little_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    now = 100.0
    monkeypatch.setattr(journal_file.time, "monotonic", lambda: now)
    file = journal(tmp_path, level)
    path = tmp_path / "00000000.journal"
    file.write(b"a")
    file.reveal(visible=True)
    file.write(b"b")
    assert file.behind
    file.reveal(visible=False)
    assert path.read_bytes() == b"a"
    now += 2 * journal_file.DELAY_S
    file.reveal(visible=False)
    assert path.read_bytes() == b"ab"
    assert not file.behind
    file.write(b"c")
    file.reveal(visible=True)
    assert path.read_bytes() == b"abc"
    file.close()


def test_memory_writes_a_mebibyte_at_a_time(tmp_path: Path) -> None:
    file = journal(tmp_path, "memory")
    path = tmp_path / "00000000.journal"
    for _ in range(15):
        file.write(bytes(1 << 16))
        file.reveal(visible=True)
    assert path.stat().st_size == 0 and not file.behind
    file.write(bytes(1 << 16))
    file.reveal(visible=False)
    assert path.stat().st_size == 1 << 20
    file.close()


def test_a_full_disk_stops_with_the_place_and_what_stands(tmp_path: Path) -> None:
    class Full(Disk):
        left = 12

        def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
            part = data[: self.left]
            self.left -= len(part)
            if not part:
                raise OSError(28, os.strerror(28))
            return super().write(handle, part, offset)

    storage = Full(tmp_path)
    file = JournalFile(storage, InlineSyncer(storage), "async", 1 << 20)
    file.write(b"12345678")
    file.reveal()
    file.write(b"more than there is room for")
    with pytest.raises(JournalError, match=r"cannot write: No space left.*8 bytes\) stands"):
        file.reveal()
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000000.journal"]
    file.close()
    assert (tmp_path / "00000000.journal").read_bytes() == b"12345678"
