"""Observer: reads a board from outside, without a lock and without being noticed.

It maps the board read-only. A slot that is met in the middle of an update is looked at again and
never accepted torn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lockstep.shm import segment
from lockstep.shm.board import (
    AGENT,
    AGENTS_MAX,
    AGENTS_OFFSET,
    ENGINE,
    ENGINE_OFFSET,
    HEADER_BYTES,
    MAGIC,
    OFFSETS,
    SUPERVISOR,
    SUPERVISOR_OFFSET,
    VERSION,
    board_bytes,
)
from lockstep.shm.cursor import fence
from lockstep.shm.errors import BoardRefused
from lockstep.shm.segment import Segment

# A writer is inside a slot for about a microsecond, so a few looks are enough; it may also have
# been killed there, so looking must end.
LOOKS_MAX = 1000


@dataclass(frozen=True)
class SupervisorStatus:
    """The supervisor's slot."""

    pid: int
    start_time: int
    state: int


@dataclass(frozen=True)
class EngineStatus:
    """The engine's slot: logical step, rows in use, tickets waiting, tokens made so far.

    ``tokens_per_s`` is what it made of late when it wrote the slot, at ``at_us`` microseconds of
    the monotonic clock (`time.monotonic`).
    """

    pid: int
    state: int
    tokens_per_s: int
    step: int
    rows: int
    tickets_waiting: int
    tokens: int
    at_us: int


@dataclass(frozen=True)
class AgentStatus:
    """An agent's slot: its tag (step, micro), turns ended and fuel used so far.

    ``stall_us`` is the wall time, in microseconds, for which the model waited for it; ``mailbox``
    counts events that wait for it, ``requests`` those of its requests that are not answered.
    """

    name: str
    index: int
    state: int
    pid: int
    step: int
    micro: int
    turns: int
    fuel: int
    stall_us: int
    mailbox: int
    requests: int


@dataclass(frozen=True)
class Snapshot:
    """The board at about one moment: each slot is whole, slots may be a moment apart.

    Attributes:
        stale: Names of slots that stayed in the middle of an update ("engine", "supervisor",
            "agent 3"): their writer was killed there. They show what was last read whole.
    """

    supervisor: SupervisorStatus
    engine: EngineStatus
    agents: tuple[AgentStatus, ...]
    stale: tuple[str, ...]


class BoardReader:
    """An observer: maps the board read-only, cannot slow or change the run."""

    def __init__(self, whole: Segment) -> None:
        self._segment = whole
        agents = _check(whole)
        memory = whole.memory
        self._live: tuple[npt.NDArray[Any], ...] = (
            np.frombuffer(memory, SUPERVISOR, 1, SUPERVISOR_OFFSET),
            np.frombuffer(memory, ENGINE, 1, ENGINE_OFFSET),
            np.frombuffer(memory, AGENT, agents, AGENTS_OFFSET) if agents else np.empty(0, AGENT),
        )
        self._whole = tuple(np.zeros(len(slots), slots.dtype) for slots in self._live)

    @classmethod
    def attach(cls, name: str) -> "BoardReader":
        """Map the board of that name.

        Raises:
            FileNotFoundError: there is none.
            PermissionError: it belongs to another user.
            BoardRefused: it is not a board, not ready, or of another version or size.
        """
        whole = segment.attach(name)
        try:
            return cls(whole)
        except BoardRefused:
            whole.close()
            raise

    def snapshot(self) -> Snapshot:
        """Copy every slot whole. Never blocks and takes no lock."""
        torn = [_refresh(*pair) for pair in zip(self._live, self._whole, strict=True)]
        supervisor, engine, agents = (slots.tolist() for slots in self._whole)
        stale = [kind for kind, at in zip(("supervisor", "engine"), torn, strict=False) if len(at)]
        return Snapshot(
            supervisor=SupervisorStatus(*supervisor[0][1:]),
            engine=EngineStatus(*engine[0][1:]),
            agents=tuple(AgentStatus(_text(name), *rest) for _, name, *rest in agents),
            stale=(*stale, *(f"agent {index}" for index in torn[2])),
        )

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._live = tuple(np.empty(0, slots.dtype) for slots in self._live)
        self._segment.close()


def _refresh(live: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Copy the slots of ``live`` that are whole; the indices of those that stayed torn."""
    todo = np.arange(len(live))
    for _ in range(LOOKS_MAX):
        before = live["sequence"][todo]
        fence()
        copy = live[todo]
        fence()
        after = live["sequence"][todo]
        good = (before == after) & (before & np.uint64(1) == 0)
        whole[todo[good]] = copy[good]
        todo = todo[~good]
        if not len(todo):
            break
    return todo


def _check(whole: Segment) -> int:
    """The number of agents of a segment that is a board of this version."""
    found = len(whole.memory)
    if found < AGENTS_OFFSET:
        raise BoardRefused(f"{whole.name}: {found} bytes, a board has {AGENTS_OFFSET} or more")
    words = whole.memory[:HEADER_BYTES].cast("Q")
    version = words[OFFSETS["version"] // 8]  # First: what was written before it is then there.
    fence()
    if version == 0:
        words.release()
        raise BoardRefused(f"{whole.name}: not a board, or not ready yet: its version is 0")
    magic, size, agents = (words[OFFSETS[name] // 8] for name in ("magic", "size_bytes", "agents"))
    words.release()
    expected = {"magic": (magic, MAGIC), "version": (version, VERSION), "size": (size, found)}
    for field, (value, good) in expected.items():
        if value != good:
            raise BoardRefused(f"{whole.name}: {field} is {value:#x}, expected {good:#x}")
    if agents > AGENTS_MAX or board_bytes(agents) != found:
        raise BoardRefused(f"{whole.name}: {agents} agents do not make {found} bytes")
    return agents


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
