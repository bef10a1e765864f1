"""What an agent process is given, and how a guest's turn can end before it blocks."""

from dataclasses import dataclass

from lockstep.engine.record import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent, as its process needs it. Every limit is logical: the same in each run.

    Attributes:
        name: The agent's name, replicas as ``solver.0``.
        index: Its index in the fleet.
        replica: Its number among its replicas.
        seed: Run seed; guest random depends on it and on ``name``.
        code: Machine code from `modules.compile_module`, checked by hash by the caller: corrupted
            code is not noticed by wasmtime.
        memory_bytes_max: Largest linear memory.
        turn_fuel_max: Fuel of one turn.
        turn_out_bytes_max: Bytes of records of one turn.
        record_bytes_max: Size of one record, header included.
        log_lines_max: LOG records of one turn, those from standard output included.
        log_bytes_max: Their payload bytes.
        table_elements_max: Elements of one table.
        frozen_epoch_us: Microseconds since 1970 that the clock shows at step 0.
        step_us: Microseconds per step.
        canonical_nans: As the code was compiled.
        fuel_per_step: Publish what a turn has burnt so far whenever it has burnt so much more; 0:
            never. Nothing else depends on it.
    """

    name: str
    index: int
    replica: int
    seed: int
    code: bytes
    memory_bytes_max: int
    turn_fuel_max: int
    turn_out_bytes_max: int
    record_bytes_max: int
    log_lines_max: int
    log_bytes_max: int
    table_elements_max: int
    frozen_epoch_us: int
    step_us: int
    canonical_nans: bool = True
    fuel_per_step: int = 0


class GuestStopped(Exception):
    """The guest's own doing ends it: unwinds its frames up to the process body.

    Only this (and a trap of wasmtime) becomes an outcome. Any other exception that leaves a host
    function is ours, and an accident.
    """

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


def over_limit(limit: str, most: int, found: str) -> GuestStopped:
    """``log_lines_max = 10: ...``: the limit's name as in the fleet file comes first."""
    return GuestStopped(Outcome.OVER_LIMIT, f"{limit} = {most}: {found}")
