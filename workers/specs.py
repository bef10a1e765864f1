"""What each process of a run is given, from the fleet."""

from collections.abc import Sequence
from dataclasses import replace

from lockstep.engine.fleet import Fleet
from lockstep.workers.agent.spec import AgentSpec
from lockstep.workers.inference.spec import InferenceSpec


def agent_specs(fleet: Fleet, codes: Sequence[bytes], seed: int | None = None) -> list[AgentSpec]:
    """By index.

    Args:
        fleet: That runs.
        codes: Machine code by group.
        seed: That guests draw by; None: the fleet's. A fork may have another one.
    """
    fleet = fleet if seed is None else replace(fleet, seed=seed)
    return [_agent_spec(fleet, index, codes) for index in range(len(fleet.agents))]


def _agent_spec(fleet: Fleet, index: int, codes: Sequence[bytes]) -> AgentSpec:
    agent = fleet.agents[index]
    group = fleet.groups[agent.group]
    return AgentSpec(
        name=agent.name,
        index=index,
        replica=agent.replica,
        seed=fleet.seed,
        code=codes[agent.group],
        memory_bytes_max=group.memory_bytes_max,
        turn_fuel_max=group.turn_fuel_max,
        turn_out_bytes_max=group.turn_out_bytes_max,
        record_bytes_max=fleet.record_bytes_max,
        log_lines_max=group.log_lines_max,
        log_bytes_max=group.log_bytes_max,
        table_elements_max=group.table_elements_max,
        frozen_epoch_us=fleet.frozen_epoch_us,
        step_us=fleet.step_us,
        canonical_nans=group.canonical_nans,
        # In arrival order nothing waits for a turn, so nobody asks how far it is.
        fuel_per_step=fleet.schedule.fuel_per_step if fleet.schedule.order == "strict" else 0,
    )


def inference_spec(fleet: Fleet, *, repeats: bool, cache: str = "") -> InferenceSpec:
    """For the inference process.

    Args:
        fleet: That runs.
        repeats, cache: As in `InferenceSpec`.
    """
    return InferenceSpec(
        models=fleet.models,
        agent_names=tuple(agent.name for agent in fleet.agents),
        seed=fleet.seed,
        frozen_date=fleet.frozen_date,
        lookahead=fleet.schedule.lookahead,
        priority_steps=fleet.schedule.priority_steps,
        record_bytes_max=fleet.record_bytes_max,
        order=fleet.schedule.order,
        repeats=repeats,
        cache=cache,
        step_s=fleet.recovery.step_s,
        logic_flags=fleet.logic_flags,
    )
