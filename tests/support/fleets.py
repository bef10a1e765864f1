"""Fleets for tests of whole runs: real processes, real guests, a real model."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lockstep.shm import BoardReader, Snapshot
from lockstep.workers.folder import LOCK

TESTS = Path(__file__).resolve().parent.parent
GUESTS = TESTS / "guests"
DATA = TESTS / "data"
MODEL = DATA / "genai-micro-fp32"


def items(folder: Path, count: int, text: str = "say {}") -> Path:
    """An input file."""
    path = folder / "input.jsonl"
    lines = [json.dumps({"id": n, "text": text.format(n)}) for n in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


def fleet(folder: Path, text: str) -> Path:
    """A fleet file; ``GUESTS``, ``DATA`` and ``MODEL`` in the text become paths."""
    path = folder / "fleet.toml"
    path.write_text(
        text.replace("GUESTS", str(GUESTS)).replace("MODEL", str(MODEL)).replace("DATA", str(DATA))
    )
    return path


CHAIN = """
[fleet]
name = "chain"
seed = 5
[schedule]
policy = "dag"
items_in_flight_max = 6
fuel_per_step = 20_000
[models.default]
path = "MODEL"
providers = ["cpu"]
rows_max = 4
tokens_max = 128
prefill_tokens_per_step = 16
[agents.burner]
module = "GUESTS/burner.wasm"
config = { loops = 9000 }
[agents.asker]
module = "GUESTS/asker.wasm"
after = ["burner"]
replicas = 3
input = "deal"
config = { tokens = 12, temperature = 0.9 }
[agents.echo]
module = "GUESTS/echo.wasm"
after = ["asker"]
"""

CONVERSATION = """
[fleet]
name = "talk"
seed = 11
[schedule]
policy = "round-robin"
rounds_max = 2
items_in_flight_max = 3
[models.default]
path = "MODEL"
providers = ["cpu"]
rows_max = 4
tokens_max = 384
[agents.ann]
module = "GUESTS/talker.wasm"
[agents.ben]
module = "GUESTS/talker.wasm"
[agents.cat]
module = "GUESTS/talker.wasm"
"""

LLAMA_ASKER = """
[agents.llama]
module = "GUESTS/asker.wasm"
"""

TWO_MODELS = (
    """
[fleet]
name = "two"
[schedule]
policy = "dag"
[models.llama]
path = "DATA/genai-micro-fp32"
providers = ["cpu"]
tokens_max = 64
[models.qwen]
path = "DATA/genai-micro-qwen2-fp32"
providers = ["cpu"]
tokens_max = 64
period = 3
[agents.qwen]
module = "GUESTS/asker.wasm"
config = { model = 1 }
"""
    + LLAMA_ASKER
)

ECHO = """
[fleet]
name = "echo"
[agents.echo]
module = "GUESTS/echo.wasm"
input = "broadcast"
"""


def supervisor_of(run: str | Path) -> int:
    """Pid of the supervisor that holds a run, or was the last to hold it.

    Looking for a child of ours would find others, too (hogs, for one). For who listens to a run it
    is nobody else's pid, whether it lives or not: it is a child that was not reaped yet.
    """
    return int((Path(run) / LOCK).read_text())


def children_of(pid: int) -> list[int]:
    """Living processes whose parent is ``pid``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            state, parent = stat.rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def gone(pid: int) -> bool:
    """Whether no process (not even a zombie of another's) runs under the pid any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def segments_of(pid: int) -> list[str]:
    """Segments in /dev/shm that the process made (others of this user may run meanwhile)."""
    prefix = f"lockstep-{os.getuid()}-{pid}-"
    return sorted(e.name for e in Path("/dev/shm").iterdir() if e.name.startswith(prefix))


def board_of(run: str | Path) -> Snapshot:
    """What the board of a living run says."""
    name = json.loads((Path(run) / "board.json").read_text())["name"]
    reader = BoardReader.attach(name)
    try:
        return reader.snapshot()
    finally:
        reader.close()
