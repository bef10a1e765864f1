"""Room: what so many agents need of the machine, and what there is of it.

Looked at before anything starts, so that a fleet that is too large ends with the arithmetic and
not with a machine that swaps, kills and refuses. What an agent needs is what a small one was
measured to cost: its limit ``memory_bytes_max`` is a ceiling, not a need, and is not counted. So
nothing is refused that could run; what its guests allocate on top is theirs to find room for.
"""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep import shm
from lockstep.engine.errors import UsageError
from lockstep.workers.engine_links import EngineMemory
from lockstep.workers.links import ring_slice_bytes
from lockstep.workers.outside.lines import CLIENTS_MAX

# Proportional memory of a small agent's process that has worked, measured with 200 and with 1,000
# of them, its page tables and its kernel memory included (docs/decisions.md).
AGENT_BYTES = 3 << 20
FRESH_AGENT_BYTES = 24 << 20  # Of one that is not forked, measured with 8.
GUEST_ADDRESSES = 1 << 32  # Reserved for each guest, whatever its memory may grow to.
DESCRIPTORS_BESIDES = 128  # Files of the run, doors, other processes; some to spare.
SOCKET_DESCRIPTORS = CLIENTS_MAX + 2  # It, its clients, and one that is told so and sent away.
PROCESSES_BESIDES = 8  # The supervisor, the inference process and its threads, a compiling child.
SHARED_MEMORY = Path("/dev/shm")
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_LIMITLESS = 1 << 60  # Version 1 of cgroups says "no limit" by a number like this.


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that agents use up.

    Attributes:
        name: Of the resource, for people.
        each: What one agent needs.
        besides: What a run needs without any agent.
        free: What there is; None: nothing limits it.
        where: What limits it.
        cure: What helps.
        is_bytes: Or things that are counted.
    """

    name: str
    each: int
    besides: int
    free: int | None
    where: str
    cure: str
    is_bytes: bool = True

    @property
    def agents(self) -> int | None:
        """How many agents there is room for; None: any number."""
        return None if self.free is None else max(self.free - self.besides, 0) // self.each

    def needed(self, agents: int) -> int:
        """What so many agents need."""
        return self.besides + agents * self.each

    def arithmetic(self, agents: int) -> str:
        """``1000 agents need ... (each ..., besides ...), there is ...``"""
        of = " of" if self.is_bytes else ""
        verb = "is" if self.is_bytes else "are"
        free = "no limit" if self.free is None else f"there {verb} {self.text(self.free)}"
        return (
            f"{agents} agents need {self.text(self.needed(agents))}{of} {self.name} "
            f"({agents} x {self.text(self.each)} + {self.text(self.besides)}), {free}"
            + (f" ({self.where})" if self.where else "")
        )

    def text(self, amount: int) -> str:
        """An amount with its unit."""
        return size_text(amount) if self.is_bytes else str(amount)


def size_text(amount: int) -> str:
    """Bytes, for people."""
    if amount < 100 << 10:
        return f"{amount / 2**10:.1f} KiB"
    return f"{amount / 2**20:.1f} MiB" if amount < 10 << 30 else f"{amount / 2**30:.1f} GiB"


def check(
    agents: int, record_bytes_max: int, sockets: int = 0, platform: shm.Platform | None = None
) -> None:
    """Refuse a fleet that cannot fit.

    Args:
        agents: Of the fleet.
        record_bytes_max: Of the fleet: it decides the size of the rings.
        sockets: Its sources that are sockets.
        platform: That it will run on; None: what is best here.

    Raises:
        UsageError: something does not suffice; all that does not is named, with the arithmetic.
    """
    lacking = [
        f"{each.arithmetic(agents)}; {each.cure}"
        for each in resources(record_bytes_max, sockets=sockets, platform=platform)
        if each.agents is not None and each.agents < agents
    ]
    lacking += addresses_lacking() if agents else ()
    if lacking:
        raise UsageError("\n".join(lacking))


def addresses_lacking() -> Iterator[str]:
    """What to say of a limit of addresses that no agent's process can live with."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < GUEST_ADDRESSES:
        yield (
            f"each agent reserves {GUEST_ADDRESSES / 2**30:.1f} GiB of addresses for its guest, "
            f"mostly unused, and a process may have {limit / 2**30:.1f} GiB; "
            "ulimit -v unlimited (systemd: no LimitAS=)"
        )


def pair_bytes(record_bytes_max: int) -> int:
    """Bytes of both rings of one agent."""
    return 2 * shm.page_aligned(ring_slice_bytes(record_bytes_max))


def resources(
    record_bytes_max: int,
    guest_bytes: int = 0,
    sockets: int = 0,
    platform: shm.Platform | None = None,
) -> list[Resource]:
    """Everything that agents use up, as it is now.

    Args:
        record_bytes_max: Of the fleet: it decides the size of the rings.
        guest_bytes: Memory of an agent beyond a small one's.
        sockets: Sources that are sockets.
        platform: As in `check`.
    """
    platform = platform or shm.platform_of()
    named = platform.slices_named
    pair, engine = pair_bytes(record_bytes_max), EngineMemory.slice_bytes(record_bytes_max)
    agent = AGENT_BYTES if platform.forks else FRESH_AGENT_BYTES
    memory, memory_where = free_memory()
    processes, processes_where = _processes()
    return [
        Resource(
            *("memory", agent + guest_bytes + pair, engine, memory, memory_where),
            "fewer `replicas`, a smaller `record_bytes_max`, or end other programs",
        ),
        Resource(
            "shared memory",
            shm.board_bytes(1) - shm.board_bytes(0) + named * pair,
            shm.board_bytes(0) + named * engine,
            *(_shared_memory(), str(SHARED_MEMORY)),
            "a smaller `record_bytes_max`, fewer `replicas`, or make it larger (docker run "
            "--shm-size=1g)",
        ),
        descriptors(sockets, platform),
        Resource(
            *("processes", 1, PROCESSES_BESIDES, processes, processes_where),
            *("raise that limit, or fewer `replicas`", False),
        ),
    ]


def agents_bytes(agents: int, record_bytes_max: int, platform: shm.Platform | None = None) -> int:
    """Memory that so many agents will need, arguments as of `check`."""
    return resources(record_bytes_max, platform=platform)[0].needed(agents)


def descriptors(sockets: int = 0, platform: shm.Platform | None = None) -> Resource:
    """Open files of the supervisor.

    Args:
        sockets: Sources that are sockets; the control socket comes on top.
        platform: As in `check`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Resource(
        name="descriptors",
        each=(platform or shm.platform_of()).agent_descriptors,
        besides=DESCRIPTORS_BESIDES + (1 + sockets) * SOCKET_DESCRIPTORS,
        free=None if hard == resource.RLIM_INFINITY else hard,
        where="ulimit -Hn",
        cure="raise `ulimit -Hn`, or fewer `replicas`",
        is_bytes=False,
    )


def raise_descriptor_limit(
    agents: int, sockets: int = 0, snapshots: int = 0, platform: shm.Platform | None = None
) -> bool:
    """Let this process open what so many agents, sockets and snapshots need, as far as it may.

    Args:
        agents: Of the fleet.
        sockets: Its sources that are sockets.
        snapshots: Agents of which there are snapshots; each needs one more descriptor.
        platform: As in `check`.

    Returns:
        Whether it may open so many. Snapshots are not worth a refusal: without them an agent is
        brought back all the same, only later.
    """
    needed = descriptors(sockets, platform).needed(agents) + snapshots
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return True
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most == needed


def _shared_memory() -> int | None:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None  # Who makes a segment will say what is wrong.
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def free_memory() -> tuple[int | None, str]:
    """Bytes that can be had without killing anybody, and what says so."""
    lines = _lines(PROC / "meminfo")
    fields = {key: int(rest.split()[0]) << 10 for key, _, rest in (x.partition(":") for x in lines)}
    found: list[tuple[int, str]] = []
    if "MemAvailable" in fields:
        free = fields["MemAvailable"] + fields.get("SwapFree", 0)
        found.append((free, "/proc/meminfo: MemAvailable + SwapFree"))
    for folder in _groups("memory"):
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, current = _number(folder / most), _number(folder / used)
            if limit is not None and current is not None:
                # The kernel gives file pages back before it kills.
                found.append((max(limit - current + _reclaimable(folder), 0), str(folder / most)))
    return min(found, default=(None, ""))


def _reclaimable(folder: Path) -> int:
    wanted = {"file", "total_cache"}  # Of version 2, of version 1. Shared memory is in them.
    shared = {"shmem", "total_shmem"}
    amounts = [line.split() for line in _lines(folder / "memory.stat")]
    total = sum(int(value) for key, value in amounts if key in wanted)
    return max(total - sum(int(value) for key, value in amounts if key in shared), 0)


def _processes() -> tuple[int | None, str]:
    """Processes that can still be started, and what limits them."""
    found: list[tuple[int, str]] = []
    running = sum(entry.name.isdigit() for entry in PROC.iterdir())
    for name in ("pid_max", "threads-max"):
        limit = _number(PROC / "sys/kernel" / name)
        if limit is not None:
            found.append((max(limit - running, 0), f"kernel.{name}"))
    for folder in _groups("pids"):
        limit, current = _number(folder / "pids.max"), _number(folder / "pids.current")
        if limit is not None and current is not None:
            found.append((max(limit - current, 0), str(folder / "pids.max")))
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard != resource.RLIM_INFINITY and os.geteuid() != 0:  # Root is not held to it.
        found.append((max(hard - _own_threads(), 0), "ulimit -Hu"))
    return min(found, default=(None, ""))


def _own_threads() -> int:
    """Threads of this user: what RLIMIT_NPROC counts."""
    total = 0
    for entry in PROC.iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                total += (entry / "task").stat().st_nlink - 2
        except OSError:
            continue  # It ended just now.
    return total


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the cgroups that this process is in, innermost first, of both versions."""
    for line in _lines(PROC / "self/cgroup"):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = CGROUPS / controller if names else CGROUPS
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(root):
                yield folder


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """A number in a file; None: it says "max", or is not there."""
    text = "".join(_lines(path)[:1])
    return int(text) if text.isdigit() and int(text) < _LIMITLESS else None
