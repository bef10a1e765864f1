"""Room: the arithmetic of a fleet that is too large, before anything starts."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from lockstep import shm
from lockstep.engine.errors import UsageError
from lockstep.workers import room
from lockstep.workers.agent import engine_config

MIB = 1 << 20


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """A machine of these files under /proc and /sys/fs/cgroup; ``__`` stands for a slash."""
    monkeypatch.setattr(room, "PROC", folder / "proc")
    monkeypatch.setattr(room, "CGROUPS", folder / "cgroup")
    (folder / "proc").mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def resources() -> dict[str, room.Resource]:
    """By name."""
    return {each.name: each for each in room.resources(65_536)}


def test_this_machine_has_room_for_a_few_agents_and_says_what_limits_it() -> None:
    room.check(3, 65_536)
    found = resources()
    assert list(found) == ["memory", "shared memory", "descriptors", "processes"]
    assert all(each.agents is None or each.agents > 3 for each in found.values())
    assert found["memory"].where and found["processes"].where


def test_a_fleet_that_is_too_large_is_refused_with_the_arithmetic_of_all_that_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(
        tmp_path,
        monkeypatch,
        proc__meminfo="MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\nSwapFree: 0 kB\n",
        proc__sys__kernel__pid_max="500\n",
    )
    with pytest.raises(UsageError) as refused:
        room.check(1000, 65_536)
    memory, processes = str(refused.value).split("\n")
    assert memory.startswith("1000 agents need 3258.3 MiB of memory (1000 x 3.3 MiB + 0.5 MiB), ")
    assert "there is 1024.0 MiB (/proc/meminfo: " in memory and "`record_bytes_max`" in memory
    assert processes == (
        "1000 agents need 1008 processes (1000 x 1 + 8), there are 500 (kernel.pid_max); "
        "raise that limit, or fewer `replicas`"
    )


def test_agents_that_are_not_forked_need_more_of_everything() -> None:
    forked, fresh = (
        {each.name: each for each in room.resources(65_536, platform=shm.platform_of(name))}
        for name in ("linux", "portable")
    )
    assert fresh["memory"].each - forked["memory"].each == 21 * MIB
    assert (forked["descriptors"].each, fresh["descriptors"].each) == (2, 4)
    # The slot of the board alone, or both rings, too.
    assert forked["shared memory"].each == 192
    assert fresh["shared memory"].each == 192 + room.pair_bytes(65_536)


def test_smaller_records_make_room() -> None:
    small, large = room.resources(1024)[0], room.resources(1 << 20)[0]
    assert small.each - room.AGENT_BYTES == room.pair_bytes(1024) < 16_384
    assert large.each - room.AGENT_BYTES == room.pair_bytes(1 << 20) > 4 * MIB


def test_swap_counts_and_the_memory_limit_of_an_agent_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch, proc__meminfo="MemAvailable: 1024 kB\nSwapFree: 2048 kB\n")
    assert resources()["memory"].free == 3 * MIB
    assert resources()["memory"].each < 4 * MIB


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        (
            "0::/a/b\n",
            {
                "cgroup__memoryDOTmax": "max\n",
                "cgroup__a__memoryDOTmax": str(64 * MIB),
                "cgroup__a__memoryDOTcurrent": str(40 * MIB),
                "cgroup__a__memoryDOTstat": f"anon 1\nfile {9 * MIB}\nshmem {3 * MIB}\n",
                "cgroup__a__b__memoryDOTmax": "max\n",
                "cgroup__a__b__memoryDOTcurrent": "0\n",
            },
        ),
        (
            "5:cpu,memory:/a\n0::/\n",
            {
                "cgroup__memory__memoryDOTlimit_in_bytes": str(2**63 - 4096),
                "cgroup__memory__memoryDOTusage_in_bytes": "0",
                "cgroup__memory__a__memoryDOTlimit_in_bytes": str(64 * MIB),
                "cgroup__memory__a__memoryDOTusage_in_bytes": str(40 * MIB),
                "cgroup__memory__a__memoryDOTstat": (
                    f"file 7\ntotal_cache {9 * MIB - 7}\ntotal_shmem {3 * MIB}\n"
                ),
            },
        ),
    ],
)
def test_the_tightest_group_counts_and_file_pages_can_be_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str]
) -> None:
    meminfo = "MemAvailable: 1048576 kB\n"
    machine(
        tmp_path,
        monkeypatch,
        proc__meminfo=meminfo,
        proc__self__cgroup=groups,
        **files,
    )
    memory = resources()["memory"]
    assert memory.free == (64 - 40 + 9 - 3) * MIB
    assert "/cgroup/" in memory.where and "/a/memory." in memory.where


def test_a_group_that_allows_few_processes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(
        tmp_path,
        monkeypatch,
        proc__self__cgroup="0::/box\n",
        cgroup__box__pidsDOTmax="40\n",
        cgroup__box__pidsDOTcurrent="12\n",
    )
    assert resources()["processes"].free == 28
    with pytest.raises(UsageError, match=r"21 agents need 29 processes .*there are 28 .*box/pids"):
        room.check(21, 1024)
    room.check(20, 1024)


def test_a_machine_that_says_nothing_limits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch)
    monkeypatch.setattr(room, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    room.check(10_000, 65_536)
    found = resources()["descriptors"].arithmetic(2)
    assert found == "2 agents need 198 descriptors (2 x 2 + 194), no limit (ulimit -Hn)"


def test_the_soft_limit_of_descriptors_is_raised_as_far_as_the_hard_one_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 300))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert room.raise_descriptor_limit(10)
    assert not room.raise_descriptor_limit(10_000)
    assert room.raise_descriptor_limit(10, snapshots=10)
    assert not room.raise_descriptor_limit(10, snapshots=87)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**6, 10**6))
    assert room.raise_descriptor_limit(10)
    assert asked == [(214, 300), (300, 300), (224, 300), (300, 300)]


def test_every_socket_needs_room_for_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    limits = {resource.RLIMIT_NOFILE: (100, 300)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which, free))
    assert [room.descriptors(n).besides for n in (0, 1, 2)] == [194, 260, 326]
    room.check(20, 1024, sockets=1)
    with pytest.raises(UsageError, match=r"21 agents need 302 descriptors \(21 x 2 \+ 260\)"):
        room.check(21, 1024, sockets=1)


def test_processes_of_this_user_are_counted_by_threads() -> None:
    assert room._own_threads() >= len(os.listdir("/proc/self/task"))  # noqa: PTH208


def test_addresses_are_counted_as_guests_reserve_them() -> None:
    assert room.GUEST_ADDRESSES == engine_config.MEMORY_RESERVED_BYTES
