"""Segments are whole or do not exist."""

import ctypes
import fcntl
import mmap
import os
import resource
import stat
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from memories import ours

from lockstep.shm import Segment, SegmentFull, attach, create, create_unlinked, next_name

SHM = Path("/dev/shm")


def open_targets() -> list[str]:
    targets = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(entry.readlink()))
        except FileNotFoundError:
            pass  # The descriptor that lists the folder.
    return targets


def test_created_segment_is_zero_reserved_and_private_to_the_user() -> None:
    name = next_name()
    segment = create(name, 10_000)
    status = (SHM / name[1:]).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == 10_000
    assert status.st_blocks * 512 >= 10_000  # No page is left to be found missing later.
    assert segment.memory == bytes(10_000)
    segment.unlink()
    segment.close()
    assert not (SHM / name[1:]).exists()


def test_taken_name_is_refused_and_its_segment_untouched() -> None:
    name = next_name()
    first = create(name, 64)
    first.memory[:] = b"x" * 64
    with pytest.raises(FileExistsError):
        create(name, 128)
    assert first.memory == b"x" * 64
    assert (SHM / name[1:]).stat().st_size == 64
    first.unlink()
    first.close()


def test_attached_observer_sees_writes_and_cannot_write() -> None:
    name = next_name()
    writer = create(name, 64)
    reader = attach(name)
    writer.memory[5] = 9
    assert reader.memory[5] == 9
    with pytest.raises(TypeError):
        reader.memory[5] = 1
    writer.unlink()
    writer.close()
    assert reader.memory[5] == 9  # The mapping outlives the name and its creator.
    reader.close()


def test_absent_or_unsized_segment_cannot_be_attached() -> None:
    with pytest.raises(FileNotFoundError):
        attach(next_name())
    name = next_name()
    (SHM / name[1:]).touch(0o600)
    with pytest.raises(FileNotFoundError, match="not ready"):
        attach(name)
    (SHM / name[1:]).unlink()


def test_unlinked_segment_never_shows_a_name() -> None:
    before = ours()
    segment = create_unlinked(4096)
    assert ours() == before
    segment.memory[:] = b"y" * 4096
    segment.close()


def test_nobody_can_shrink_or_grow_a_segment_without_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[int] = []
    make = os.memfd_create

    def make_and_keep(name: str, flags: int) -> int:
        descriptor = make(name, flags)
        kept.append(os.dup(descriptor))  # More than any process is ever given.
        return descriptor

    monkeypatch.setattr(os, "memfd_create", make_and_keep)
    segment = create_unlinked(3 * mmap.PAGESIZE)
    for size in (0, mmap.PAGESIZE, 4 * mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(kept[0], size)
    with pytest.raises(PermissionError):  # Nor can it be made unwritable.
        fcntl.fcntl(kept[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    segment.memory[-1] = 1
    segment.close()
    os.close(kept[0])


def test_limit_of_file_sizes_is_segment_full_and_not_a_signal(fork) -> None:  # type: ignore[no-untyped-def]
    def make() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (mmap.PAGESIZE, mmap.PAGESIZE))
        for function in (create_unlinked, partial(create, next_name())):
            with pytest.raises(SegmentFull, match=f"{2 * mmap.PAGESIZE} bytes needed"):
                function(2 * mmap.PAGESIZE)

    assert fork(make).join() == 0


def test_system_without_files_in_memory_gets_a_segment_whose_name_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    before = ours()
    segment = create_unlinked(4096)
    assert ours() == before
    segment.memory[:] = b"y" * 4096
    with pytest.raises(SegmentFull, match="free in /dev/shm"):
        create_unlinked(1 << 60)
    assert ours() == before
    segment.unlink()
    segment.close()


def test_other_side_of_a_named_segment_writes_what_its_creator_reads() -> None:
    name = next_name()
    mine = create(name, 64)
    theirs = attach(name, writable=True)
    theirs.memory[5] = 7
    assert mine.memory[5] == 7
    assert not [target for target in open_targets() if "lockstep" in target]
    theirs.close()
    mine.unlink()
    mine.close()


def test_no_descriptor_of_a_segment_stays_open() -> None:
    named, unnamed = create(next_name(), 4096), create_unlinked(4096)
    assert not [target for target in open_targets() if "lockstep" in target]
    for segment in (named, unnamed):
        for number in segment.descriptors():
            assert os.path.samestat(os.fstat(number), Path(os.devnull).stat())
        segment.unlink()
        segment.close()


def test_closing_gives_back_each_descriptor_and_works_twice() -> None:
    before = len(open_targets())
    for _ in range(3):
        segment = create_unlinked(4096)
        segment.close()
        segment.close()
    assert len(open_targets()) == before


def test_views_alive_at_close_are_named_and_closing_works_afterwards() -> None:
    segment = create_unlinked(4096)
    array = np.frombuffer(segment.memory, np.uint8)
    with pytest.raises(BufferError, match="close its rings"):
        segment.close()
    assert array[0] == 0
    del array
    segment.close()


@pytest.mark.parametrize("size", [0, -1])
def test_segment_without_bytes_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        create(next_name(), size)


def test_impossible_size_is_segment_full_and_leaves_nothing() -> None:
    before = ours()
    name, size = next_name(), 1 << 60
    with pytest.raises(SegmentFull) as caught:
        create(name, size)
    assert caught.value.needed_bytes == size
    assert 0 < caught.value.free_bytes < size
    with pytest.raises(SegmentFull, match="bytes free of memory") as caught:
        create_unlinked(size)
    assert 0 < caught.value.free_bytes < size
    assert ours() == before


def test_forked_child_does_not_remove_the_name_of_its_parent(fork) -> None:  # type: ignore[no-untyped-def]
    name = next_name()
    segment = create(name, 64)
    assert fork(segment.unlink).join() == 0
    assert (SHM / name[1:]).exists()
    segment.unlink()
    segment.unlink()
    segment.close()


def small_shared_memory(size_bytes: int) -> bool:
    """Put a small tmpfs over this process's /dev/shm; False if that is not allowed here."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, mounts, private_recursive = 0x10000000, 0x00020000, 0x44000
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(mounts if uid == 0 else mounts | user):
        return False
    if uid:  # Files need an owner that the new user namespace knows.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if libc.mount(b"none", b"/", None, private_recursive, None):
        return False
    options = f"size={size_bytes}".encode()
    return libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, options) == 0


def test_full_shared_memory_is_an_error_with_numbers_and_never_a_crash(fork) -> None:  # type: ignore[no-untyped-def]
    page, room = mmap.PAGESIZE, 1 << 20

    def fill() -> None:
        if not small_shared_memory(room):
            os._exit(77)
        kept: list[Segment] = []
        while True:
            try:
                kept.append(create(next_name(), 50 * page))
            except SegmentFull as error:
                assert error.needed_bytes == 50 * page
                assert error.free_bytes == room - len(kept) * 50 * page
                break
        for segment in kept:
            segment.memory[:] = bytes(len(segment.memory))  # Each byte is really there.
        name, count = next_name(), len(kept)
        try:
            create(name, room)
        except SegmentFull:
            assert len(list(SHM.iterdir())) == count
            kept.append(create(name, 5 * page))  # What was left is still to be had.
            kept.append(create_unlinked(2 * room))  # Lies elsewhere.
            os._exit(0)

    code = fork(fill).join()
    if code == 77:
        pytest.skip("no mount namespace allowed here")
    assert code == 0
