"""The limit of a blocked round trip: two C processes and two eventfds (bench/peer/pingpong.c).

Built once into the cache folder by `zig cc` (the package ziglang) or the system's compiler.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lockstep.bench.peers import cache_folder
from lockstep.engine.errors import UsageError

SOURCE = Path(__file__).parent / "peer" / "pingpong.c"
GET = "pip install ziglang, or a C compiler named cc"
BUILD_S_MAX = 300.0  # The first `zig cc` of a machine builds its own C library first.


def compiler() -> list[str] | None:
    """The command that compiles C here, if there is one."""
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    found = shutil.which("cc")
    return [found] if found else None


def program() -> Path | None:
    """The program, built if it is not there; None without a compiler.

    Raises:
        UsageError: the compiler refused it, or hangs.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    path = cache_folder() / f"pingpong-{digest}"
    if path.exists():
        return path
    command = compiler()
    if command is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(f".{os.getpid()}")
    try:
        done = subprocess.run([*command, "-O2", "-o", str(made), str(SOURCE)], check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=BUILD_S_MAX)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UsageError(f"{SOURCE.name}: {command[0]} took more than {BUILD_S_MAX:g} s") from None
    if done.returncode:
        raise UsageError(f"{SOURCE.name}: {' '.join(command)} refused it: {done.stderr.strip()}")
    made.replace(path)
    return path


def turns(path: Path, count: int) -> list[int]:
    """Nanoseconds of each of ``count`` round trips.

    Raises:
        UsageError: the program failed.
    """
    done = subprocess.run([path, str(count)], capture_output=True, text=True, check=False)
    times = [int(line) for line in done.stdout.split()]
    if done.returncode or len(times) != count:
        raise UsageError(f"{path.name}: exit status {done.returncode}, {len(times)} times")
    return times
