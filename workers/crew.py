"""The crew: arena, board and processes of one run, and how each of them starts and ends.

The supervisor lends an agent's slice for its start only, so an agent process maps its own slice
and holds its own descriptors, nothing else. Everybody dies with the supervisor.
"""

import os
import random
from collections.abc import Callable
from typing import Any

from lockstep import shm
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.shm.header import OFFSETS
from lockstep.workers import rehearsal, room, spawn
from lockstep.workers.agent.guest import Guest
from lockstep.workers.agent.modules import starts
from lockstep.workers.agent.process import AgentSpec, prepared
from lockstep.workers.engine_links import EngineLink, EngineMemory
from lockstep.workers.inference import slab_file
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.links import AgentLink, RingPair, Rung
from lockstep.workers.loading import Loading
from lockstep.workers.prepare import Prepared, sha256
from lockstep.workers.seat import Seat
from lockstep.workers.snapshots import Snapshots
from lockstep.workers.spawner import spawner_of
from lockstep.workers.tasks import AgentTask, CompileTask, InferenceTask, Task, channel_of

COMPILE_S_MAX = 120.0
COMPILE_BYTES_MAX = 4 << 30
PERTURB_S_MAX = 0.3
RINGS_OFFSET = OFFSETS["rings"]
REHEARSED_FROM = 16  # Agents. A rehearsal costs as much time as it saves for about so many.


class Crew:
    """Processes of one run. `start_inference` before `start_agents`; `end` in any state."""

    def __init__(self, fleet: Fleet, platform: shm.Platform | None = None) -> None:
        """Make room for everybody.

        Args:
            fleet: Whose agents they are.
            platform: That it runs on; None: what is best here.

        Attributes:
            rung: Which agents rang the one bell that they share.

        Raises:
            UsageError: the machine has no room for so many; what they need and what there is, is
                named (`room`).
        """
        self._fleet = fleet
        self._platform = platform = platform or shm.platform_of()
        self._spawner = spawner_of(platform)
        try:
            platform.sweep()  # First: what dead runs left is room, too.
        except PermissionError as error:
            raise UsageError(str(error)) from None
        sockets = sum(source.kind == "socket" for source in fleet.sources)
        room.check(len(fleet.agents), fleet.record_bytes_max, sockets, platform)
        room.raise_descriptor_limit(len(fleet.agents), sockets, platform=platform)
        pair = room.pair_bytes(fleet.record_bytes_max)
        self._make_memory(pair)
        try:
            self._lay_out(pair)
        except BaseException:
            self._forget_names()
            raise

    def _lay_out(self, pair: int) -> None:
        """Rings, bells and what else is made before any process."""
        fleet, platform = self._fleet, self._platform
        self._arena.seal()
        self.board.seal()
        memory = EngineMemory.create(
            self._arena.slice(0), fleet.record_bytes_max, platform.doorbell, self._arena.name(0)
        )
        self.engine_link = EngineLink(memory)
        self._bell = shm.SharedDoorbell()
        self.seats = [Seat(a.name, AgentLink(self._pair(a.index), a.name)) for a in fleet.agents]
        # The ring from an agent is the second half of its slice.
        self.rung = Rung(self._bell, self._arena.words(1, pair // 2 + RINGS_OFFSET))
        self.engine: spawn.Child | None = None
        make = slab_file.create if platform.forks else slab_file.none
        self._kv_files = [make(model.name) for model in fleet.models]
        self._rehearsed: list[bytes] = []
        self._specs: list[AgentSpec] = []
        self._shared: list[bool] = []  # By group: whether its processes begin with one instance.
        self._guests: dict[int, Guest] = {}  # By group: what each process of it goes on with.
        self._snapshots = Snapshots(fleet)

    def _make_memory(self, pair: int) -> None:
        agents, bound = len(self._fleet.agents), self._fleet.record_bytes_max
        try:
            engine = EngineMemory.slice_bytes(bound)
            self._arena = self._platform.arena([engine] + [pair] * agents)
            self.board = self._platform.board(agents)
        except BaseException as error:
            self._platform.close()
            if not isinstance(error, shm.SegmentFull):
                raise
            raise UsageError(
                f"{error}. A fleet of {agents} agents with record_bytes_max = {bound} needs it"
            ) from None

    def _forget_names(self) -> None:
        self.board.close()
        self._platform.close()

    def _pair(self, index: int) -> RingPair:
        memory, name = self._arena.slice(index + 1), self._arena.name(index + 1)
        return RingPair.create(memory, self._bell, self._platform.doorbell(), name)

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
                where = f"[agents.{group.name}] {group.module}"
                codes[key] = self._compiled(CompileTask(wasm, where, group.canonical_nans), stop)
            result.append(codes[key])
            self._shared.append(group.replicas > 1 and not starts(wasm))
        if self._platform.forks and len(self._fleet.agents) >= REHEARSED_FROM:
            parts = (CompileTask(part, "the rehearsal", True) for part in rehearsal.PARTS)
            self._rehearsed = [self._compiled(part, stop) for part in parts]
        return result

    def _compiled(self, task: CompileTask, stop: Callable[[], bool]) -> bytes:
        """Compiled where a bomb harms nobody."""
        name, start = f"{task.where}: compiling it", self._spawner.start
        return spawn.call(name, task, COMPILE_S_MAX, COMPILE_BYTES_MAX, stop, start)

    def start_inference(
        self,
        spec: InferenceSpec,
        stop: Callable[[], bool],
        note: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Fork the inference process and wait until its models are loaded.

        Args:
            spec: What it is given.
            stop: Asked while waiting: whether to give up.
            note: Told what it says for people meanwhile.

        Returns:
            As `Loading.said`.

        Raises:
            ModelError: a model was refused.
            Diverged: what it had to compute again is not what was recorded.
            GivenUp: ``stop`` said so.
        """
        return self.fork_inference(spec).wait(stop, note)

    def fork_inference(self, spec: InferenceSpec) -> Loading:
        """Fork the inference process, on empty rings; an earlier one has been reaped.

        Raises:
            RunStopped: the kernel has no room for one more process.
        """
        memory = self.engine_link.memory
        self.engine_link.close()
        memory.renew()
        self.engine_link = EngineLink(memory)
        reading, writing = os.pipe()
        task = InferenceTask(spec, memory, writing, self.board, self._kv_files)
        keep = [writing, *memory.descriptors(), *self._kv_files]
        try:
            with self._arena.lend(0), self.board.lend():
                kept = [descriptor for descriptor in keep if descriptor >= 0]
                self.engine = self._spawner.start("inference", self._body(task), kept)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return Loading(reading)

    def end_inference(self) -> None:
        """Kill and reap the inference process, if there is one."""
        child, self.engine = self.engine, None
        if child is not None:
            child.kill()
            child.reap()

    def start_agents(self, specs: list[AgentSpec], perturb: int = 0) -> None:
        """Fork every agent. They begin turn 0 as soon as they are loaded.

        Args:
            specs: By index.
            perturb: As in `Job`.
        """
        self.prepare_agents(specs)
        chance = random.Random(perturb)
        order = list(range(len(specs)))
        if perturb:
            chance.shuffle(order)
        delays_s = [chance.random() * PERTURB_S_MAX if perturb else 0.0 for _ in order]
        births = [self._birth(*each) for each in zip(order, delays_s, strict=True)]
        self._spawner.settle_memory()
        born: list[spawn.Child] = []
        try:
            self._spawner.start_all(births, born)
        finally:
            for index, child in zip(order, born, strict=False):
                self.seats[index].child = child

    def prepare_agents(self, specs: list[AgentSpec]) -> None:
        """Do here, once, what every agent's process would do: what is there is shared by all.

        Nothing, where processes share nothing: each does it itself.

        Args:
            specs: By index.
        """
        self._specs = specs
        if not self._platform.forks:
            return
        for part in self._rehearsed:
            rehearsal.rehearse(specs[0], part)
        for spec in specs:
            group = self._fleet.agents[spec.index].group
            if group not in self._guests:
                self._guests[group] = prepared(spec, self._shared[group])
        self._snapshots.prepare(
            agent.index for agent in self._fleet.agents if self._guests[agent.group].can_be_snapshot
        )

    def first_turn(self, index: int, most: int) -> int:
        """Number of the first turn that an agent's new process would run, ``most`` at most.

        0, its whole life, unless there is something newer that it can begin with.
        """
        newest = self.seats[index].newest
        return self._snapshots.first_turn(index, -1 if newest is None else newest.turn)

    def restart_agent(self, index: int, most: int) -> int:
        """Fork an agent again, after `prepare_agents`: on empty rings, from its `first_turn` on.

        The old process, if there was one, has been reaped, and what it published was taken.

        Args:
            index: Of the agent.
            most: Number of the turn that has to be run by all means: it is not over.

        Returns:
            Number of the first turn that it runs.

        Raises:
            RunStopped: the kernel has no room for one more process.
        """
        seat = self.seats[index]
        seat.link.close()
        seat.link.pair.renew()
        self.rung.renew(index)
        first = self.first_turn(index, most)
        seat.renew(AgentLink(seat.link.pair, seat.name), first)
        birth = self._birth(index, 0.0, first)
        with self._arena.lend(index + 1):
            seat.child = self._spawner.start(birth.name, birth.body, birth.keep)
        return first

    def _body(self, task: Task, first: int = 0) -> Task:
        """What a process does that is to do a task; ``first``: turn that its agent begins with."""
        return task  # Another kind of crew has more to do (workers/profile/supervising.py).

    def _birth(self, index: int, delay_s: float, first: int = 0) -> spawn.Birth:
        seat, group = self.seats[index], self._fleet.agents[index].group
        task = AgentTask(
            spec=self._specs[index],
            pair=seat.link.pair,
            delay_s=delay_s,
            channel=channel_of(seat.link.pair),
            guest=self._guests.get(group),
            keeper=self._snapshots.keeper(index, first),
        )
        keep = [*seat.link.pair.descriptors(), *self._snapshots.descriptors(index)]
        return spawn.Birth(
            f"agent {seat.name}", self._body(task, first), keep, self._arena.loan(index + 1)
        )

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
        for descriptor in self._kv_files:
            if descriptor >= 0:
                os.close(descriptor)
        self._kv_files = []
        for seat in self.seats:
            seat.child = None
        self._snapshots.close()
        self._forget_names()
