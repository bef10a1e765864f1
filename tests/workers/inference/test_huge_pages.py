"""Huge pages: only new memory is moved, and it holds what it held."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from lockstep.workers.inference import huge_pages
from lockstep.workers.inference.huge_pages import collapse_behind, mapped, page_bytes

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
