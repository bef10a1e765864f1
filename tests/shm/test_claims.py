"""Claims: what a dead process made is found by its file, where shared memory cannot be listed."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep.shm import claims
from lockstep.shm.claims import Claims
from lockstep.shm.platform import make_named

SHM = Path("/dev/shm")


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield claims.folder()
    assert list(claims.folder().iterdir()) == []  # Each test ends without claims.


def there(name: str) -> bool:
    return (SHM / name[1:]).exists()


def test_names_are_short_written_down_first_and_gone_with_the_end() -> None:
    mine = Claims()
    first, second = mine.next_name(), mine.next_name()
    assert first != second and all(len(name) <= 31 for name in (first, second))
    (file,) = claims.folder().glob("*.claims")
    assert file.read_text() == f"{first}\n{second}\n"
    make_named(first, 64).close()
    assert there(first) and not there(second)
    mine.close()
    mine.close()
    assert not there(first)


def test_sweep_removes_what_a_killed_process_claimed_and_nothing_of_a_living_one(fork) -> None:  # type: ignore[no-untyped-def]
    reading, writing = os.pipe()

    def live() -> None:
        mine = Claims()
        name = mine.next_name()
        make_named(name, 64)
        mine.next_name()  # Claimed and never made.
        os.write(writing, name.encode())
        signal.pause()

    child = fork(live)
    name = os.read(reading, 100).decode()
    assert claims.sweep() == [] and there(name)
    child.kill()
    assert claims.sweep() == [name] and not there(name)
    assert claims.sweep() == []
    os.close(reading)
    os.close(writing)


def test_names_of_two_are_never_the_same_and_neither_waits_for_the_other() -> None:
    mine, another = Claims(), Claims()  # As in two containers that have the same pid.
    names = [one.next_name() for one in (mine, another)]
    make_named(names[0], 64).close()
    make_named(names[1], 64).close()
    mine.close()
    assert [there(name) for name in names] == [False, True]
    another.close()
    assert not there(names[1])


@pytest.mark.parametrize(
    "text", ["/etc/passwd\n", "/lockstep-1/../x\n", "\n", "/lockstep-0-1-0", "\0\xff\n"]
)
def test_file_that_says_something_else_removes_nothing(text: str) -> None:
    other = f"/lockstep-0-{os.getpid()}-other"
    make_named(other, 64).close()
    (claims.folder() / "7.claims").write_bytes(text.encode("latin-1"))
    assert claims.sweep() == []
    assert there(other) and Path("/etc/passwd").exists()
    (SHM / other[1:]).unlink()


def test_folder_that_others_can_write_to_is_refused(folder_of_its_own: Path) -> None:
    folder_of_its_own.chmod(0o777)
    with pytest.raises(PermissionError, match="mode 0700"):
        claims.sweep()
    folder_of_its_own.rmdir()
    elsewhere = folder_of_its_own.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder_of_its_own.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="mode 0700"):
        Claims()
    folder_of_its_own.unlink()
