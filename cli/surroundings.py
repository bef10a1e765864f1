"""What `lockstep doctor` looks at around a run: limits and settings of the machine, and helpers."""

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from lockstep.cli.checks import FAIL, OFF, OK, RUNTIMES, WARN, Check

ADDRESSES_LOW_BYTES = 4_500 << 20  # Runs of small agents end below 4.3 GiB, found by trying.
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COLLAPSE_SINCE = (6, 1)  # Of Linux: MADV_COLLAPSE.
SYSTEMD = Path("/run/systemd/system")  # There, and only there, systemd is the service manager.
CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def runtimes() -> Iterator[Check]:
    """Two wheels of ONNX Runtime overwrite each other's files; nothing is said of one."""
    found = [name for name in RUNTIMES if _installed(name)]
    if len(found) > 1:
        text = f"{' and '.join(found)} are both installed and overwrite each other"
        cure = f"pip uninstall {' '.join(found)}, then pip install --force-reinstall {found[0]}"
        yield Check("runtimes", WARN, text, cure)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def address_space(limit: int | None = None) -> Check:
    """Each agent reserves 4 GiB of addresses for its guest, and a limit counts them as used.

    Args:
        limit: Bytes, as of RLIMIT_AS; None: this process's.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0] if limit is None else limit
    if limit == resource.RLIM_INFINITY:
        return Check("address space", OK, "no limit")
    found = f"limited to {limit / 2**30:.1f} GiB of which each agent reserves 4, mostly unused"
    state = FAIL if limit < ADDRESSES_LOW_BYTES else WARN
    return Check("address space", state, found, "ulimit -v unlimited (systemd: no LimitAS=)")


def cpu_quota(path: Path = CGROUP_CPU) -> Iterator[Check]:
    """A share of cores that a container may use; nothing is said where there is none."""
    try:
        quota, period = path.read_text().split()
        cores = int(quota) / int(period)
    except (OSError, ValueError):
        return  # No such file, or "max".
    have = len(os.sched_getaffinity(0))
    found = f"{cores:.1f} of {have} cores at a time ({path})"
    if cores < have:
        cure = "set intra_op_threads of models to no more than that, or raise the quota"
        yield Check("cpu quota", WARN, found, cure)


def huge_pages(path: Path = HUGE_PAGES, release: str = "") -> Check:
    """Whether weights can be moved to large pages, which a step reads faster.

    Args:
        path: The kernel's setting.
        release: Of the kernel; empty: this one's.
    """
    name = "large pages"
    try:
        setting = path.read_text().strip()
    except OSError:
        return Check(name, OFF, "this kernel has none; a step takes up to 20 % more CPU time")
    version = tuple(int(part) for part in (release or os.uname().release).split(".")[:2])
    if version < COLLAPSE_SINCE:
        return Check(name, OFF, "Linux 6.1 or newer can move weights to them")
    if "[never]" in setting:
        found = f"switched off ({path}: never): a step takes up to 20 % more CPU time"
        return Check(name, WARN, found, f"as root: echo madvise > {path}")
    return Check(name, OK, f"weights can be moved to them ({setting})")


def clock(now_s: float | None = None, installed: Path = Path(__file__)) -> Check:
    """A clock that is before the time at which this was installed is wrong.

    Args:
        now_s: Of the system's clock; None: now.
        installed: A file that is as old as the installation.
    """
    now_s, since_s = time.time() if now_s is None else now_s, installed.stat().st_mtime
    if now_s >= since_s:
        return Check("clock", OK, _date(now_s))
    found = (
        f"{_date(now_s)}, and this was installed at {_date(since_s)}: no result of a run depends "
        "on it, but times in logs do, and how old runs are (serve --keep-days)"
    )
    return Check("clock", WARN, found, "set the clock (timedatectl set-ntp true)")


def _date(moment_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment_s))


def cache(folder: str | None = None) -> Check:
    """Where proofs of models are kept between runs.

    Args:
        folder: Of the cache; None: this user's; empty: there is none.
    """
    from lockstep.workers.launch import cache_folder

    name = "cache folder"
    folder = cache_folder() if folder is None else folder
    if not folder:
        found = "neither XDG_CACHE_HOME nor HOME is set: each run tries its models again"
        return Check(name, WARN, found, "set HOME, or XDG_CACHE_HOME to a folder of yours")
    # As far as it is there: a look makes nothing that stays.
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        found = f"{folder}: cannot write there ({error.strerror}): each run tries its models again"
        return Check(name, WARN, found, "set XDG_CACHE_HOME to a folder of yours")
    return Check(name, OK, f"{folder}: writable")


def service_manager(path: Path = SYSTEMD) -> Check:
    """What `lockstep service install` writes a unit for."""
    if path.is_dir():
        return Check("systemd", OK, "runs here: `lockstep service install` writes a unit for it")
    found = "does not run here: `lockstep serve` runs in a terminal or under another manager"
    return Check("systemd", OFF, f"optional; {found}")
