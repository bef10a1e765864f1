"""One guest in its process: the crossing into it and out of it, turn by turn.

The guest calls in from its own frames (blocking form) or is called for each batch of events
(reactor form). Either way a turn begins when events are handed over and ends in `_end_turn`,
which is the only place where anything leaves the process.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from wasmtime import FuncType, Linker, Module, Store, Trap, TrapCode, ValType, WasmtimeError

from lockstep.engine.errors import LockstepBug, ProtocolError
from lockstep.engine.record import Outcome, TurnEnd, encode_end
from lockstep.workers.agent.channel import Channel, Inbox, Wake
from lockstep.workers.agent.clock import GuestClock
from lockstep.workers.agent.engine_config import guest_engine
from lockstep.workers.agent.fuel import HOST_CALL_FUEL, Fuel
from lockstep.workers.agent.linear import PAGE_BYTES
from lockstep.workers.agent.memory import GuestMemory
from lockstep.workers.agent.modules import BLOCKING, shape_of
from lockstep.workers.agent.signatures import IMPORTS, LOCKSTEP, WASI
from lockstep.workers.agent.spec import AgentSpec, GuestStopped, over_limit
from lockstep.workers.agent.turn import TurnRecords
from lockstep.workers.agent.wasi import Wasi

TABLES_MAX = 16
ALIGN = 8

_VALUE_TYPES = {"i32": ValType.i32, "i64": ValType.i64}


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
    """

    def __init__(self, spec: AgentSpec, channel: Channel, check_health: Callable[[], None]) -> None:
        self._spec = spec
        self._channel = channel
        self._inbox = Inbox(channel)
        self._check_health = check_health
        made = guest_engine(canonical_nans=spec.canonical_nans)
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
        self._fuel = Fuel(self._store, spec.turn_fuel_max)
        self._memory = GuestMemory(made.memories.only, self._fuel.charge)
        self._clock = GuestClock(spec.frozen_epoch_us, spec.step_us)
        self._records = TurnRecords(spec)
        self._turn = 0
        self._kept: bytes | None = None  # Events that the guest had no room for yet.
        self._linker = self._link(made.engine)

    def run(self) -> None:
        """Run the guest until it ends, turn 0 first; each turn's end is sent when it is over.

        Raises:
            Leave: the supervisor said SHUTDOWN.
            BaseException: anything that is not the guest's doing.
        """
        self._fuel.begin_turn()
        self._clock.begin_turn(0)
        try:
            self._run_form()
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
        _, capacity = self._memory.span(into, room, "turn: in")
        if self._kept is None:
            self.submit(out, out_size)
            self._end_turn(Outcome.BLOCKED, "")
            self._kept = self._begin_turn().events
            # The call belongs to the turn it ended; from here on, the new one pays.
        elif out_size:
            raise ProtocolError(
                f"turn: out_len is {out_size} after `need {len(self._kept)}`, expected 0"
            )
        events = self._kept
        if len(events) > capacity:
            return -len(events)
        self._memory.write(into, events, "turn: in")
        self._kept = None
        return len(events)

    def submit(self, out: int, out_size: int) -> None:
        """``lockstep.submit``: take records, the turn goes on."""
        _, count = self._memory.span(out, out_size, "out")
        self._records.check_room(count)
        self._records.submit(self._memory.read(out, out_size, "out"))

    def _run_form(self) -> None:
        exports = self._instantiate()
        if self._shape.initialize:
            exports["_initialize"](self._store)
        if self._shape.form == BLOCKING:
            code = exports[self._shape.entry](self._store)
            if code:
                raise GuestStopped(Outcome.EXITED, f"{self._shape.entry} returned {code}")
            return
        while True:
            self._end_turn(Outcome.BLOCKED, "")
            self._react(exports, self._begin_turn().events)

    def _react(self, exports: Any, events: bytes) -> None:
        """One turn of the reactor form."""
        pointer = exports["lockstep_alloc"](self._store, len(events))
        if pointer == 0 or pointer % ALIGN:
            reason = f"lockstep_alloc({len(events)}) gave {pointer}, expected a multiple of 8"
            raise GuestStopped(Outcome.PROTOCOL, reason)
        try:
            self._memory.write(pointer, events, "lockstep_alloc")
        except ProtocolError as error:
            raise GuestStopped(Outcome.PROTOCOL, str(error)) from None
        code = exports["on_events"](self._store, pointer, len(events))
        if code:
            raise GuestStopped(Outcome.EXITED, f"on_events returned {code}")

    def _instantiate(self) -> Any:
        least, most = self._shape.pages_min * PAGE_BYTES, self._spec.memory_bytes_max
        if least > most:
            raise over_limit("memory_bytes_max", most, f"the module starts with {least} bytes")
        try:
            return self._linker.instantiate(self._store, self._module).exports(self._store)
        except WasmtimeError as error:
            # The store's limits say "exceeds" and are the same in every run. What else can fail
            # here is the machine's fault.
            if self.failures or not re.search(r"exceed|too high", str(error)):
                raise
            reason = f"table_elements_max = {self._spec.table_elements_max} or {TABLES_MAX} tables"
            raise GuestStopped(Outcome.OVER_LIMIT, f"{reason}: the module has more") from None

    def _begin_turn(self) -> Wake:
        wake = self._inbox.next()
        if wake is None:
            raise Leave
        self._turn = wake.turn
        self._clock.begin_turn(wake.step)
        self._fuel.begin_turn()
        return wake

    def _end_turn(self, outcome: Outcome, reason: str) -> None:
        fuel = self._fuel.burnt()
        records, count = self._records.finish(outcome)
        self._check_health()
        digest = hashlib.sha256(records).digest()
        end = TurnEnd(self._turn, outcome, fuel, count, digest, reason)
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
        wasi = Wasi(self._spec.name, self._spec.seed, self._memory, self._clock, self._records)
        functions: dict[str, dict[str, Callable[..., int | None]]] = {
            LOCKSTEP: {"turn": self.turn, "submit": self.submit},
            WASI: wasi.functions(),
        }
        linker = Linker(engine)
        wanted = dict.fromkeys((each.module, each.name) for each in self._module.imports)
        for module, name in wanted:
            params, results = IMPORTS[module][name]
            kind = FuncType(
                [_VALUE_TYPES[each]() for each in params],
                [_VALUE_TYPES[each]() for each in results],
            )
            linker.define_func(module, name, kind, self._host_call(functions[module][name]))
        return linker

    def _host_call(self, function: Callable[..., int | None]) -> Callable[..., int | None]:
        """Charge the call, and make a broken protocol the guest's own end.

        Every other exception goes on as it is: wasmtime unwinds the guest and raises it again.
        """

        def call(*arguments: int) -> int | None:
            self._fuel.charge(HOST_CALL_FUEL)
            try:
                return function(*arguments)
            except ProtocolError as error:
                raise GuestStopped(Outcome.PROTOCOL, str(error)) from None

        return call
