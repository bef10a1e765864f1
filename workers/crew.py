"""The crew: arena, board and processes of one run, and how each of them starts and ends.

The supervisor lends an agent's slice for its fork only, so an agent process maps its own slice
and holds its own descriptors, nothing else. Everybody dies with the supervisor.
"""

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

from lockstep import shm
from lockstep.engine.errors import ModelError, UsageError
from lockstep.engine.fleet import Fleet
from lockstep.shm.header import OFFSETS
from lockstep.workers import rehearsal, room, spawn
from lockstep.workers.agent.channel import RingChannel
from lockstep.workers.agent.guest import Guest
from lockstep.workers.agent.process import AgentSpec, agent_main, prepared
from lockstep.workers.links import (
    AgentEnd,
    AgentLink,
    EngineEnd,
    EngineLink,
    EngineMemory,
    RingPair,
    Rung,
)
from lockstep.workers.prepare import Prepared, sha256
from lockstep.workers.seat import Seat

COMPILE_S_MAX = 120.0
COMPILE_BYTES_MAX = 4 << 30
PERTURB_S_MAX = 0.3
RINGS_OFFSET = OFFSETS["rings"]
REHEARSED_FROM = 16  # Agents. A rehearsal costs as much time as it saves for about so many.


class Crew:
    """Processes of one run. `start_inference` before `start_agents`; `end` in any state."""

    def __init__(self, fleet: Fleet) -> None:
        """Make room for everybody.

        Args:
            fleet: Whose agents they are.

        Attributes:
            rung: Which agents rang the one bell that they share.

        Raises:
            UsageError: the machine has no room for so many; what they need and what there is, is
                named (`room`).
        """
        self._fleet = fleet
        shm.sweep()  # First: what dead runs left is room, too.
        sockets = sum(source.kind == "socket" for source in fleet.sources)
        room.check(len(fleet.agents), fleet.record_bytes_max, sockets)
        room.raise_descriptor_limit(len(fleet.agents), sockets)
        pair = room.pair_bytes(fleet.record_bytes_max)
        engine = EngineMemory.slice_bytes(fleet.record_bytes_max)
        try:
            self._arena = shm.Arena.create([engine] + [pair] * len(fleet.agents))
            self.board = shm.Board.create(shm.next_name(), len(fleet.agents))
        except shm.SegmentFull as error:
            agents, bound = len(fleet.agents), fleet.record_bytes_max
            raise UsageError(
                f"{error}. A fleet of {agents} agents with record_bytes_max = {bound} needs it"
            ) from None
        self._arena.seal()
        self.board.seal()
        memory = EngineMemory.create(self._arena.slice(0), fleet.record_bytes_max)
        self.engine_link = EngineLink(memory)
        self._bell = shm.SharedDoorbell()
        self.seats = [Seat(a.name, AgentLink(self._pair(a.index), a.name)) for a in fleet.agents]
        # The ring from an agent is the second half of its slice.
        self.rung = Rung(self._bell, self._arena.words(1, pair // 2 + RINGS_OFFSET))
        self.engine: spawn.Child | None = None
        self._rehearsed = b""

    def _pair(self, index: int) -> RingPair:
        return RingPair.create(self._arena.slice(index + 1), self._bell)

    def compile(self, prepared: Prepared, stop: Callable[[], bool]) -> list[bytes]:
        """Machine code for each group, compiled once per module in a limited child.

        Raises:
            UsageError: a module is refused; its agent is named.
            GivenUp: ``stop`` said so.
        """
        codes: dict[tuple[str, bool], bytes] = {}
        result = []
        for group, wasm in zip(self._fleet.groups, prepared.modules, strict=True):
            key = (sha256(wasm), group.canonical_nans)
            if key not in codes:
                codes[key] = compile_in_child(
                    wasm, f"[agents.{group.name}] {group.module}", group.canonical_nans, stop
                )
            result.append(codes[key])
        if len(self._fleet.agents) >= REHEARSED_FROM:
            self._rehearsed = compile_in_child(rehearsal.WASM, "the rehearsal", True, stop)
        return result

    def start_inference(self, spec: Any, stop: Callable[[], bool]) -> dict[str, Any]:
        """Fork the inference process and wait until its models are loaded.

        Args:
            spec: `workers.inference.process.InferenceSpec`.
            stop: Asked while waiting: whether to give up.

        Returns:
            What it said: ``models`` (files, provider report) and ``notes`` for people.

        Raises:
            ModelError: a model was refused. Nothing of the run exists then.
            GivenUp: ``stop`` said so.
        """
        reading, writing = os.pipe()
        memory = self.engine_link.memory

        def body() -> int:
            # onnxruntime is imported here, in the process that needs it.
            from lockstep.workers.inference.process import inference_main

            return inference_main(spec, EngineEnd(memory), writing, self.board.engine)

        with self._arena.lend(0), self.board.lend():
            self.engine = spawn.fork("inference", body, [writing, *memory.descriptors()])
        os.close(writing)
        try:
            answer = spawn.read_all(reading, stop)
        finally:
            os.close(reading)
        if not answer:
            raise ModelError("the inference process ended while it loaded the models")
        said: dict[str, Any] = json.loads(answer)
        if "error" in said:
            error = ModelError(said["error"])
            error.exit_code = said["exit_code"]
            raise error
        return said

    def start_agents(self, specs: list[AgentSpec], perturb: int = 0) -> None:
        """Fork every agent. They begin turn 0 as soon as they are loaded.

        Args:
            specs: By index.
            perturb: As in `Job`.
        """
        # Here, not in each child: what is there before the first fork is shared by all.
        if self._rehearsed:
            rehearsal.rehearse(specs[0], self._rehearsed)
        channels = [RingChannel(*4 * [AgentEnd(seat.link.pair)]) for seat in self.seats]
        guests = self._prepare_guests(specs)
        spawn.settle_memory()
        chance = random.Random(perturb)
        order = list(range(len(specs)))
        if perturb:
            chance.shuffle(order)
        for index in order:
            delay_s = chance.random() * PERTURB_S_MAX if perturb else 0.0
            guest = guests[self._fleet.agents[index].group]
            self._start_agent(specs[index], channels[index], delay_s, guest)

    def _prepare_guests(self, specs: list[AgentSpec]) -> dict[int, Guest]:
        """A guest of each group, made once: every child of ours goes on with its copy."""
        guests: dict[int, Guest] = {}
        for spec in specs:
            group = self._fleet.agents[spec.index].group
            if group not in guests:
                guests[group] = prepared(spec)
        return guests

    def _start_agent(
        self, spec: AgentSpec, channel: RingChannel, delay_s: float, guest: Guest
    ) -> None:
        seat = self.seats[spec.index]

        def body() -> int:
            if delay_s:
                time.sleep(delay_s)
            return agent_main(spec, channel, spawn.confine, guest)

        with self._arena.lend(spec.index + 1):
            seat.child = spawn.fork(f"agent {spec.name}", body, seat.link.pair.descriptors())

    def end(self) -> None:
        """Kill and reap everybody, and leave nothing behind.

        Nothing that a child still holds is part of the run: what counts was published. So death
        is the normal way to leave, and bounded.
        """
        children = [p.child for p in self.seats if p.child is not None]
        if self.engine is not None:
            children.append(self.engine)
        for child in children:
            child.kill()
        for child in children:
            child.reap()
        self.engine = None
        for seat in self.seats:
            seat.child = None
        self.board.close()


def compile_in_child(
    wasm: bytes, where: str, canonical_nans: bool, stop: Callable[[], bool] = lambda: False
) -> bytes:
    """Machine code of a module, compiled where a bomb harms nobody.

    Raises:
        UsageError: refused, or ended by a limit.
        GivenUp: ``stop`` said so.
    """

    def body() -> bytes:
        from lockstep.workers.agent.modules import compile_module

        return compile_module(wasm, path=where, canonical_nans=canonical_nans)

    name = f"{where}: compiling it"
    return spawn.call(name, body, COMPILE_S_MAX, COMPILE_BYTES_MAX, stop)
