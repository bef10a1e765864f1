"""Tasks: what the processes of a run do, as they are handed to a `Spawner`.

A forked child finds everything made and shared. A fresh one gets what is needed to make it: the
rings by the name of their segment, the bells by their descriptors; guests are made there, and
there are no snapshots.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep import shm
from lockstep.workers import spawn
from lockstep.workers.agent.channel import Channel, RingChannel
from lockstep.workers.agent.guest import Guest
from lockstep.workers.agent.keeper import Keeper
from lockstep.workers.agent.process import AgentSpec, agent_main
from lockstep.workers.engine_links import EngineEnd, EngineMemory
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.links import AgentEnd, RingPair


@dataclass(slots=True)
class AgentTask:
    """The life of one agent's process.

    Attributes:
        spec: What it is given.
        pair: Its rings.
        delay_s: Slept first (`Job.perturb`).
        channel: Over the rings; None: it is made there.
        guest: Made before the fork; None: likewise.
        keeper: Of its snapshots, if any are taken.
    """

    spec: AgentSpec
    pair: RingPair
    delay_s: float = 0.0
    channel: Channel | None = None
    guest: Guest | None = None
    keeper: Keeper | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return AgentTask, (self.spec, self.pair, self.delay_s)

    def __call__(self) -> int:
        gc.freeze()  # What the supervisor has come to own since would only be copied.
        if self.delay_s:
            time.sleep(self.delay_s)
        channel: Channel = self.channel or channel_of(self.pair)
        return agent_main(self.spec, channel, spawn.confine, self.guest, self.keeper)


@dataclass(slots=True)
class InferenceTask:
    """The life of the inference process.

    Attributes:
        spec: What it is given.
        memory: Its rings.
        ready: Descriptor on which it says what comes of the loading.
        board: It writes the engine's slot.
        kv_files: As in `inference_main`.
        make: Likewise; None: the usual one.
    """

    spec: InferenceSpec
    memory: EngineMemory
    ready: int
    board: shm.Board
    kv_files: Sequence[int]
    make: Callable[..., Any] | None = None

    def __call__(self) -> int:
        gc.freeze()  # What the supervisor owns would only be copied.
        # onnxruntime is imported here, in the process that needs it.
        from lockstep.workers.inference.process import inference_main

        end = EngineEnd(self.memory)
        given = self.spec, end, self.ready, self.board.engine, self.kv_files
        return inference_main(*given, self.make)


@dataclass(slots=True)
class CompileTask:
    """Machine code of a module, as `spawn.call` wants it."""

    wasm: bytes
    where: str
    canonical_nans: bool

    def __call__(self) -> bytes:
        from lockstep.workers.agent.modules import compile_module

        return compile_module(self.wasm, path=self.where, canonical_nans=self.canonical_nans)


Task = Callable[[], int]  # What a process does; its exit status.


def channel_of(pair: RingPair) -> RingChannel:
    """An agent's channel over its rings."""
    end = AgentEnd(pair)
    return RingChannel(end, end, end, end, end.exchange)
