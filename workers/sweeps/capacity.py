"""How many runs at a time: cores, memory and devices, by an arithmetic that is told."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockstep.engine.fleet import Fleet
from lockstep.workers import room
from lockstep.workers.sweeps.plan import model_folders

# The supervisor, the inference process with its libraries, what compiling takes for a moment.
RUN_BYTES = 256 << 20
WEIGHTS_FACTOR = 2  # The file's pages, and the copies that kernels are prepared with.
SHARE = 0.8  # Of free memory: something else may run here, too.
DEVICES = Path("/dev")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a machine has room for.

    Attributes:
        jobs: Runs at a time.
        text: The arithmetic, for people.
    """

    jobs: int
    text: str


def capacity(fleets: Sequence[Fleet], base: Path, runs: int, wanted: int = 0) -> Capacity:
    """How many runs at a time.

    Args:
        fleets: That are run; the largest counts.
        base: What paths of models are relative to.
        runs: How many there are.
        wanted: By a person, who knows better; 0: as many as there is room for.
    """
    cores, threads = len(os.sched_getaffinity(0)), max(map(_threads, fleets))
    limits = {f"{cores} cores / {threads} for each": cores // threads}
    free, _ = room.free_memory()
    if free is not None:
        each = max(_bytes(fleet, base) for fleet in fleets)
        have, need = f"{free / 2**30:.1f} GiB", f"{each / 2**30:.2f} GiB"
        text = f"{SHARE:.0%} of {have} memory / {need} for each (at least)"
        limits[text] = int(free * SHARE) // each
    if any(map(_on_device, fleets)):
        limits["one at a time on a GPU"] = 1
    limits[f"{runs} runs"] = runs
    most = max(min(limits.values()), 1)
    told = "; ".join(f"{text} = {count}" for text, count in limits.items())
    if wanted:
        return Capacity(
            max(min(wanted, runs), 1), f"--jobs {wanted}; there is room for {most}: {told}"
        )
    return Capacity(most, told)


def _threads(fleet: Fleet) -> int:
    """Cores that a run keeps busy: its models step one after the other, agents in between."""
    return max((model.intra_op_threads for model in fleet.models), default=1)


def _bytes(fleet: Fleet, base: Path) -> int:
    weights = sum(_weights(path) for path in dict.fromkeys(model_folders(base, fleet)))
    memory = next(each for each in room.resources(fleet.record_bytes_max) if each.is_bytes)
    return RUN_BYTES + WEIGHTS_FACTOR * weights + memory.needed(len(fleet.agents))


def _weights(folder: Path) -> int:
    return sum(_size(path) for path in _files(folder) if ".onnx" in path.name)


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [path for path in folder.rglob("*") if path.is_file()]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _on_device(fleet: Fleet) -> bool:
    asked = any(model.providers[:1] != ("cpu",) for model in fleet.models)
    return asked and any(DEVICES.glob("nvidia[0-9]*"))
