"""Huge pages: only new memory is moved, and it holds what it held."""

import ctypes
import mmap
import time
from pathlib import Path

import numpy as np
import pytest

from lockstep.workers.inference import huge_pages, step_limit
from lockstep.workers.inference.huge_pages import Filled, collapse_behind, mapped, page_bytes

MIB = 1 << 20
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
MAPS_TEXT = """\
00400000-00600000 rw-p 00000000 00:00 0                                  [heap]
00600000-00601000 r--p 00000000 00:00 0
00700000-00900000 rw-s 00000000 00:01 77                 /memfd:lockstep-kv (deleted)
00a00000-01e00000 rw-p 00000000 00:00 0
02000000-02200000 rw-p 00001000 08:01 9                                  /usr/lib/libc.so
7ff000000000-7ff000200000 rw-p 00000000 00:00 0                          [stack]
"""


def test_memory_of_ones_own_is_found_in_the_list_of_mappings(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text(MAPS_TEXT)
    assert mapped(tmp_path / "maps") == [(0x400000, 0x600000), (0xA00000, 0x1E00000)]
    assert mapped(tmp_path / "none") == []


def test_whole_pages_of_new_memory_are_moved_and_no_others() -> None:
    size = 2 * MIB
    now = [(0x400000, 0x600000), (0xA10000, 0x1E00000)]
    before = [(0x400000, 0x500000), (0x1000000, 0x1000010)]
    pages = list(huge_pages._pages(now, before, size))
    assert pages == [0xC00000, 0xE00000, 0x1200000, 0x1400000, 0x1600000, 0x1800000, 0x1A00000,
                     0x1C00000]  # fmt: skip


@pytest.mark.parametrize(("enabled", "found"), [
    ("always [madvise] never", 2097152), ("[always] madvise never", 2097152),
    ("always madvise [never]", 0),
])  # fmt: skip
def test_a_machine_that_is_told_never_is_left_alone(
    tmp_path: Path, enabled: str, found: int
) -> None:
    (tmp_path / "enabled").write_text(f"{enabled}\n")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    assert page_bytes(tmp_path) == found
    assert page_bytes(tmp_path / "none") == 0


def test_memory_that_was_moved_holds_what_it_held() -> None:
    before = mapped()
    memory = mmap.mmap(-1, 16 * MIB, flags=PRIVATE)
    array = np.frombuffer(memory, np.uint64)
    array[:] = np.arange(array.size)
    thread = collapse_behind(before)
    if thread is None:
        pytest.skip("no large pages here")
    thread.join()
    assert (array == np.arange(array.size)).all()


def test_memory_is_on_large_pages_afterwards() -> None:
    before = mapped()
    memory = mmap.mmap(-1, 16 * MIB, flags=PRIVATE)
    array = np.frombuffer(memory, np.uint8)
    array[:] = 1
    thread = collapse_behind(before)
    if thread is None:
        pytest.skip("no large pages here")
    thread.join()
    on_large = 0
    inside = False
    address = array.ctypes.data
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            first, end = (int(part, 16) for part in line.split()[0].split("-"))
            inside = first <= address < end
        elif inside and line.startswith("AnonHugePages:"):
            on_large = int(line.split()[1])
    if not on_large:
        pytest.skip("the kernel moved nothing: older than 6.1, or short of memory")
    assert on_large >= 12 * 1024


def test_what_moving_pages_takes_is_given_back_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(step_limit, "give_back", given.append)
    before = mapped()
    memory = mmap.mmap(-1, 16 * MIB, flags=PRIVATE)
    np.frombuffer(memory, np.uint8)[:] = 1
    others_s = time.process_time() - time.thread_time()
    thread = collapse_behind(before)
    if thread is None:
        pytest.skip("no large pages here")
    thread.join()
    others_s = time.process_time() - time.thread_time() - others_s
    assert len(given) >= 7  # Pages of 2 MiB.
    assert 0 < sum(given) < others_s


def resident(array: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    """Pages of 4 KiB that are there, for each large page."""
    libc = ctypes.CDLL(None)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    size, counts = 2 * MIB, []
    first = -(-array.ctypes.data // size) * size
    there = ctypes.create_string_buffer(size // mmap.PAGESIZE)
    for page in range(first, array.ctypes.data + array.nbytes - size + 1, size):
        assert libc.mincore(page, size, there) == 0
        counts.append(there.raw.count(1))
    return counts


def test_shared_memory_is_moved_as_it_is_filled_and_no_more_is_used() -> None:
    if page_bytes() != 2 * MIB:
        pytest.skip("no large pages of 2 MiB here")
    memory = mmap.mmap(-1, 16 * MIB)
    array = np.frombuffer(memory, np.uint64)
    half = array.size // 2
    array[:half] = np.arange(half)
    array[-1] = 7
    before = resident(array)
    filled = Filled(array.ctypes.data, array.nbytes)
    waiting = list(filled._pages)
    filled.move()
    assert len(waiting) - len(filled._pages) == sum(count >= 384 for count in before) > 0
    assert (array[:half] == np.arange(half)).all() and array[-1] == 7
    after = resident(array)
    assert [count for count in after if count < 384] == [count for count in before if count < 384]


def test_memory_that_has_gone_is_left_alone() -> None:
    memory = mmap.mmap(-1, 8 * MIB)
    array = np.frombuffer(memory, np.uint8)
    array[:] = 1
    filled = Filled(array.ctypes.data, array.nbytes)
    del array
    memory.close()
    filled.move()


def test_what_is_filled_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "LOOK_STEPS", 3)
    moved: list[int] = []
    memory = mmap.mmap(-1, 8 * MIB)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    filled = Filled(address, 8 * MIB)
    if not filled._pages:
        pytest.skip("no large pages here")
    monkeypatch.setattr(filled, "move", lambda: moved.append(1))
    for step in range(1, 10):
        filled.step()
        if filled._thread is not None:
            filled._thread.join()
        assert len(moved) == step // 3
    for nothing in (Filled(0, 0), Filled(address, 4096)):
        for _ in range(10):
            nothing.step()
        assert nothing._thread is None
