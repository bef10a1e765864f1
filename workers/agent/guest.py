"""One guest in its process: the crossing into it and out of it, turn by turn.

The guest calls in from its own frames (blocking form) or is called for each batch of events
(reactor form). Either way a turn begins when events are handed over and ends in `_end_turn`,
which is the only place where anything leaves the process.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from wasmtime import Linker, Module, Store, Trap, TrapCode, WasmtimeError

from lockstep.engine.errors import LockstepBug, ProtocolError
from lockstep.engine.record import Kind, Outcome, TurnEnd, encode, encode_end
from lockstep.workers.agent import native
from lockstep.workers.agent.channel import Channel, Inbox, Wake
from lockstep.workers.agent.clock import GuestClock
from lockstep.workers.agent.crossing import (
    Callback,
    Crossing,
    DirectCrossing,
    Export,
    HostCalls,
    HostFunction,
    PausedCrossing,
)
from lockstep.workers.agent.engine_config import guest_engine
from lockstep.workers.agent.fuel import Fuel
from lockstep.workers.agent.keeper import Insides, Keeper
from lockstep.workers.agent.lane import Lane
from lockstep.workers.agent.linear import PAGE_BYTES
from lockstep.workers.agent.memory import GuestMemory
from lockstep.workers.agent.modules import BLOCKING, REACTOR, shape_of
from lockstep.workers.agent.signatures import IMPORTS, LOCKSTEP, WASI
from lockstep.workers.agent.spec import AgentSpec, GuestStopped, over_limit
from lockstep.workers.agent.turn import TurnRecords, digest_of
from lockstep.workers.agent.wasi import Wasi

TABLES_MAX = 16
ALIGN = 8


class Leave(Exception):
    """The supervisor said SHUTDOWN: unwind whatever the guest is in, and go."""


class Guest:
    """A loaded module that has not run yet.

    Args:
        spec: The agent.
        channel: To the supervisor.
        check_health: Raises when something happened that must not end a turn: lost exceptions.

    Attributes:
        failures: What the kernel refused to the guest's memory; see `linear`.
        number: Of the running turn.
        kept: Events that the guest had no room for yet.
    """

    def __init__(self, spec: AgentSpec, channel: Channel, check_health: Callable[[], None]) -> None:
        self._spec = spec
        self._channel = channel
        self._inbox = Inbox(channel)
        self._check_health = check_health
        made = guest_engine(canonical_nans=spec.canonical_nans)
        self._memories = made.memories
        self.failures = made.memories.failures
        self._module = Module.deserialize(made.engine, spec.code)
        self._shape = shape_of(self._module, spec.name)
        self._store = Store(made.engine)
        self._store.set_limits(
            memory_size=spec.memory_bytes_max,
            table_elements=spec.table_elements_max,
            instances=1,
            tables=TABLES_MAX,
            memories=1,
        )
        pausing = native.pausing() if spec.fuel_per_step else None
        self._fuel = Fuel(
            native.Tank(self._store),
            spec.turn_fuel_max,
            spec.fuel_per_step,
            None if pausing is None else self._publish,
        )
        self._host = HostCalls(self._fuel)
        self._crossing = self._cross(pausing)
        self._memory = GuestMemory(made.memories.only, self._fuel.charge)
        self._clock = GuestClock(spec.frozen_epoch_us, spec.step_us)
        self._records = TurnRecords(spec)
        self.number = 0
        self.kept: bytes | None = None
        self._linker = self._link(made.engine)
        self._exports: Any = None

    def instantiate(self) -> bool:
        """Make the instance already here, before the fork: of a module without a start function.

        What that burns is turn 0's, as if its process had done it.

        Returns:
            False: it was not made, and this guest is of no use any more.
        """
        self._fuel.begin_turn()
        try:
            self._exports = self._instantiate()
        except Exception:
            return False  # Its process will meet the same, and say so.
        return not self.failures

    def become(self, spec: AgentSpec, channel: Channel, check_health: Callable[[], None]) -> None:
        """Be another agent of the same group: for a guest that was made before the fork.

        What takes time and memory is done once and its pages are shared; the child gives it its
        name, its numbers, its seed and its channel. Arguments as of the class.
        """
        self._spec = spec
        self._channel = channel
        self._inbox = Inbox(channel)
        self._check_health = check_health
        self._wasi.become(spec.name, spec.seed)

    @property
    def can_be_snapshot(self) -> bool:
        """Whether what it is between turns can be read, all of it."""
        return self._shape.form == REACTOR and self._shape.state is not None

    def run(self, keeper: Keeper | None = None) -> None:
        """Run the guest until it ends, turn 0 first; each turn's end is sent when it is over.

        Args:
            keeper: Takes snapshots of a guest that can be; may let it go on from one.

        Raises:
            Leave: the supervisor said SHUTDOWN.
            BaseException: anything that is not the guest's doing.
        """
        if self._exports is None:
            self._fuel.begin_turn()
        self._clock.begin_turn(0)
        try:
            self._run_form(keeper if self.can_be_snapshot else None)
        except GuestStopped as stop:
            self._end_turn(stop.outcome, stop.reason)
        except Trap as trap:
            end = self._stop_of(trap)
            self._end_turn(end.outcome, end.reason)
        else:
            self._end_turn(Outcome.RETURNED, "")

    def turn(self, out: int, out_size: int, into: int, room: int) -> int:
        """``lockstep.turn``: take records, end the turn, hand over the next events."""
        self._memory.span(out, out_size, "turn: out")
        self._memory.span(into, room, "turn: in")
        if self.kept is None:
            self.submit(out, out_size)
            self._end_turn(Outcome.BLOCKED, "")
            self.kept = self._begin_turn()
            # The call belongs to the turn it ended; from here on, the new one pays.
        elif out_size:
            raise ProtocolError(
                f"turn: out_len is {out_size} after `need {len(self.kept)}`, expected 0"
            )
        return self.hand_over(into, room)

    def hand_over(self, into: int, room: int) -> int:
        """The rest of `turn`: the events that are kept, if they fit."""
        _, capacity = self._memory.span(into, room, "turn: in")
        events = self.kept or b""
        if len(events) > capacity:
            return -len(events)
        self._memory.write(into, events, "turn: in")
        self.kept = None
        return len(events)

    def submit(self, out: int, out_size: int) -> None:
        """``lockstep.submit``: take records, the turn goes on."""
        _, count = self._memory.span(out, out_size, "out")
        self._records.check_room(count)
        self._records.submit(self._memory.read(out, out_size, "out"))

    def _run_form(self, keeper: Keeper | None) -> None:
        exports = self._exports or self._instantiate()
        if self._shape.initialize and (keeper is None or keeper.after is None):
            self._crossing.export(exports["_initialize"])()
        if self._shape.form == BLOCKING:
            code = self._crossing.export(exports[self._shape.entry])()
            if code:
                raise GuestStopped(Outcome.EXITED, f"{self._shape.entry} returned {code}")
            return
        self._run_reactor(exports, keeper)

    def _run_reactor(self, exports: Any, keeper: Keeper | None) -> None:
        alloc = self._crossing.export(exports["lockstep_alloc"])
        on_events = self._crossing.export(exports["on_events"])
        if keeper is not None:
            keeper.hold(partial(self._insides, exports))
        if keeper is not None and keeper.after is not None:
            keeper.restore()
            self._records.finish(Outcome.BLOCKED)  # Of a start function: sent with turn 0.
        else:
            self._end_turn(Outcome.BLOCKED, "")
        while True:
            self._react(alloc, on_events, self._begin_turn())
            self._end_turn(Outcome.BLOCKED, "")
            if keeper is not None:
                keeper.look(self.number)  # Now that nobody waits for it.

    def _insides(self, exports: Any) -> Insides:
        names, memory = self._shape.state or (), self._memories.only()
        return Insides(self._store, exports, names, memory, self._clock, self._wasi)

    def _react(self, alloc: Export, on_events: Export, events: bytes) -> None:
        """One turn of the reactor form."""
        pointer = alloc(len(events))
        if pointer == 0 or pointer % ALIGN:
            reason = f"lockstep_alloc({len(events)}) gave {pointer}, expected a multiple of 8"
            raise GuestStopped(Outcome.PROTOCOL, reason)
        try:
            self._memory.write(pointer, events, "lockstep_alloc")
        except ProtocolError as error:
            raise GuestStopped(Outcome.PROTOCOL, str(error)) from None
        code = on_events(pointer, len(events))
        if code:
            raise GuestStopped(Outcome.EXITED, f"on_events returned {code}")

    def _instantiate(self) -> Any:
        least, most = self._shape.pages_min * PAGE_BYTES, self._spec.memory_bytes_max
        if least > most:
            raise over_limit("memory_bytes_max", most, f"the module starts with {least} bytes")
        try:
            instance = self._crossing.instantiate(self._linker, self._module)
            return instance.exports(self._store)
        except WasmtimeError as error:
            # The store's limits say "exceeds" and are the same in every run. What else can fail
            # here is the machine's fault.
            if self.failures or not re.search(r"exceed|too high", str(error)):
                raise
            reason = f"table_elements_max = {self._spec.table_elements_max} or {TABLES_MAX} tables"
            raise GuestStopped(Outcome.OVER_LIMIT, f"{reason}: the module has more") from None

    def answer(self, records: bytes) -> bytes:
        """As `lane.Turns.answer`."""
        self._check_health()
        return self._begun(self._inbox.answer(records))

    def keep(self, events: bytes) -> None:
        """As `lane.Turns.keep`."""
        self._fuel.begin_turn()
        self.kept = events

    def _begin_turn(self) -> bytes:
        events = self._begun(self._inbox.next())
        self._fuel.begin_turn()
        return events

    def _begun(self, wake: Wake | None) -> bytes:
        if wake is None:
            raise Leave
        self.number = wake.turn
        self._clock.begin_turn(wake.step)
        return wake.events

    def _end_turn(self, outcome: Outcome, reason: str) -> None:
        fuel = self._fuel.burnt()
        records, count = self._records.finish(outcome)
        end = TurnEnd(self.number, outcome, fuel, count, digest_of(records), reason)
        self._check_health()
        self._channel.send(records + encode_end(end))

    def _stop_of(self, trap: Trap) -> GuestStopped:
        code = trap.trap_code
        if code is None or code == TrapCode.INTERRUPT:
            raise LockstepBug(f"a trap that no guest can cause: {trap.message}") from trap
        if code == TrapCode.OUT_OF_FUEL:
            return self._fuel.spent()
        return GuestStopped(Outcome.TRAPPED, str(code.name))

    def _link(self, engine: Any) -> Linker:
        """Define what the module imports, each with its declared type."""
        self._wasi = Wasi(
            self._spec.name, self._spec.seed, self._memory, self._clock, self._records
        )
        functions: dict[str, dict[str, HostFunction]] = {
            LOCKSTEP: {"turn": self.turn, "submit": self.submit},
            WASI: self._wasi.functions(),
        }
        linker = Linker(engine)
        wanted = dict.fromkeys((each.module, each.name) for each in self._module.imports)
        for module, name in wanted:
            function = functions[module][name]
            short = self._lane if function == self.turn else None
            self._host.define(linker, module, name, IMPORTS[module][name], function, short)
        return linker

    def _lane(self, ordinary: Callback) -> Lane:
        parts = self._host, self._fuel, self._memory, self._records
        return Lane(self, *parts, self._spec, ordinary)

    def _cross(self, pausing: native.Pausing | None) -> Crossing:
        """Pausing costs a reactor 5 us a turn, a blocking guest nothing: it is entered once."""
        if pausing is None:
            return DirectCrossing(self._store, self._host, self._fuel)
        interval = self._spec.fuel_per_step
        return PausedCrossing(self._store, self._host, self._fuel, pausing, interval)

    def _publish(self, burnt: int) -> None:
        """Let the horizon rise while the guest works (rule 2): no part of the turn's records."""
        self._channel.send(encode(Kind.PROGRESS, id=self.number, item=burnt))
