"""What `lockstep doctor` looks at without loading anything heavy."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lockstep.engine.compiled import is_compiled
from lockstep.engine.version import VERSION

OK, OFF, WARN, FAIL = "ok", "off", "warn", "fail"

PYTHON_LOW = (3, 11)
# Distribution, from this version on, below that one: as setup.cfg says (a test compares).
PACKAGES = (
    ("numpy", "2.2", "3"),
    ("wasmtime", "50", "51"),
    ("posix_ipc", "1.2", "2"),
    ("psutil", "6", "8"),
    ("click", "8.1", "9"),
    ("tokenizers", "0.22", "0.24"),
    ("jinja2", "3.1", "4"),
)
# Extra, what it is for, its distributions: likewise.
EXTRAS = (
    ("http", "`lockstep serve --http`", (
        ("starlette", "0.46", "2"), ("uvicorn", "0.34", "1"), ("prometheus_client", "0.21", "1"),
    )),
    ("hub", "`lockstep model pull`", (("huggingface_hub", "1", "3"),)),
)  # fmt: skip
RUNTIMES = ("onnxruntime-gpu", "onnxruntime")  # One of them.
RUNTIME_RANGE = ("1.31", "1.32")
AGENTS_EXPECTED = 256  # Fewer is worth a warning.
MEMORY_LOW_BYTES = 1 << 30
DISK_LOW_BYTES = 256 << 20
# x86-64-v2: what machine code of guests is made for (workers/agent/engine_config.py).
NEEDED = {"x86_64": ("ssse3", "sse4_1", "sse4_2", "popcnt", "cx16"), "aarch64": ()}
USEFUL = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "asimddp",
    "i8mm",
    "bf16",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor.

    Attributes:
        name: What was looked at.
        state: `OK`, `OFF` (optional, and not there), `WARN` (a run is possible, something will be
            missing) or `FAIL`.
        found: What is there.
        cure: What to do; empty where nothing is to be done.
    """

    name: str
    state: str
    found: str
    cure: str = ""


def python() -> Check:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    low = ".".join(map(str, PYTHON_LOW))
    if sys.version_info < PYTHON_LOW:
        return Check("python", FAIL, found, f"use Python {low} or newer")
    return Check("python", OK, found)


def installation() -> Check:
    """Version, and form: docs/install.md."""
    form = "its hot modules compiled" if is_compiled() else "pure Python"
    return Check("lockstep", OK, f"{VERSION}, {form}")


def system() -> Check:
    """Operating system and machine type."""
    found = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() not in NEEDED:
        return Check("system", FAIL, found, f"use Linux on {' or '.join(NEEDED)}")
    return Check("system", OK, found)


def packages() -> Iterator[Check]:
    """Every package that a run needs, and its version; then those of extras."""
    for name, low, high in PACKAGES:
        yield _package(name, name, low, high)
    there = next((name for name in RUNTIMES if _version(name)), RUNTIMES[0])
    yield _package("onnxruntime", there, *RUNTIME_RANGE)
    for extra in EXTRAS:
        yield _extra(*extra)


def _extra(extra: str, purpose: str, parts: Sequence[tuple[str, str, str]]) -> Check:
    label = f"extra {extra}"
    missing = [name for name, _, _ in parts if _version(name) is None]
    if missing:
        needs = f"{purpose} needs pip install 'lockstep-runtime[{extra}]'"
        return Check(label, OFF, f"{missing[0]} is not installed: {needs}")
    found = [_package(label, *part) for part in parts]
    whole = Check(label, OK, ", ".join(check.found for check in found))
    return next((check for check in found if check.state != OK), whole)


def _package(label: str, name: str, low: str, high: str) -> Check:
    found = _version(name)
    cure = f"pip install '{name}>={low},<{high}'"
    if found is None:
        return Check(label, FAIL, f"{name} is not installed", cure)
    if not _numbers(low) <= _numbers(found) < _numbers(high):
        return Check(label, WARN, f"{name} {found}, expected {low} or newer, below {high}", cure)
    return Check(label, OK, f"{name} {found}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: ``1.31.0rc1`` is (1, 31)."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def descriptors() -> Check:
    """How many files a process may open, in agents."""
    from lockstep.workers import room

    found = room.descriptors()
    if found.agents is None:
        return Check("descriptors", OK, "no limit")
    text = f"at most {found.free}, enough for {found.agents} agents"
    state = FAIL if found.agents < 1 else WARN if found.agents < AGENTS_EXPECTED else OK
    return Check("descriptors", state, text, "" if state == OK else "raise `ulimit -Hn`")


def machine() -> Check:
    """Cores and memory that this process may use."""
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0))
    total, free = memory.total / 2**30, memory.available / 2**30
    found = f"{cores} cores, {free:.1f} GiB of memory available ({total:.1f} GiB in all)"
    if memory.available < MEMORY_LOW_BYTES:
        return Check("machine", WARN, found, "end other programs, or use a smaller model")
    return Check("machine", OK, found)


def cpu(text: str | None = None) -> Check:
    """The processor, and what of it decides speed.

    Args:
        text: Of /proc/cpuinfo; None: read it.
    """
    if text is None:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    lines = dict(line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line)
    values = {key.strip(): value.strip() for key, value in lines.items()}
    features = (values.get("flags") or values.get("Features") or "").split()
    model = values.get("model name") or platform.machine()
    missing = [name for name in NEEDED.get(platform.machine(), ()) if name not in features]
    useful = " ".join(name for name in USEFUL if name in features)
    if missing:
        cure = "guests are compiled for x86-64-v2: use another machine or another CPU type of it"
        return Check("cpu", FAIL, f"{model}, without {' '.join(missing)}", cure)
    if platform.machine() == "x86_64" and "avx2" not in features:
        return Check("cpu", WARN, f"{model}, without avx2", "it works; models will be slow")
    return Check("cpu", OK, f"{model}: {useful}")


def folders() -> Iterator[Check]:
    """Where run folders and temporary files go."""
    cure = "change to a folder of yours, or give `run --run-dir`"
    yield _folder("working folder", Path.cwd(), WARN, cure)
    yield _folder("temp folder", Path(tempfile.gettempdir()), FAIL, "set TMPDIR")


def _folder(name: str, path: Path, state: str, cure: str) -> Check:
    try:
        with tempfile.TemporaryFile(dir=path, prefix=".lockstep-doctor-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Check(name, state, f"{path}: cannot write there: {error.strerror}", cure)
    free = shutil.disk_usage(path).free
    if free < DISK_LOW_BYTES:
        return Check(name, WARN, f"{path}: {free >> 20} MiB free", "make room: journals grow")
    return Check(name, OK, f"{path}: writable, {free / 2**30:.1f} GiB free")
