"""Machine: what a figure was measured on. For people and for comparing reports; decides nothing."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lockstep.engine.compiled import is_compiled

PACKAGES = ("lockstep-runtime", "wasmtime", "onnxruntime", "onnxruntime-gpu", "numpy")


def describe() -> dict[str, Any]:
    """CPU, cores this process may use, memory, kernel, load, interpreter, form of this
    installation (docs/install.md), packages."""
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "form": "compiled" if is_compiled() else "pure Python",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def cpu_model(path: Path) -> str:
    """The first ``model name`` of a cpuinfo file; the architecture where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """The commit of the checkout that this installation is, with ``+`` if files were changed since;
    empty where it is none, or there is no git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "--no-optional-locks", "-C", str(root), "describe"]
    command += ["--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
