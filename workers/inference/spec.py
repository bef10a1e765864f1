"""What the inference process is given. Imports nothing heavy: the supervisor makes it."""

from dataclasses import dataclass

from lockstep.engine.fleet import Model


@dataclass(frozen=True, slots=True)
class InferenceSpec:
    """What the inference process is given.

    Attributes:
        models: Of the fleet, with absolute paths.
        agent_names: By index: sampling keys are made of names.
        seed: Of the run.
        frozen_date: For chat templates.
        lookahead, priority_steps: Of the schedule.
        record_bytes_max: Largest record an answer may be.
        order: Of the schedule.
        repeats: The run repeats a recorded one: in arrival order, tickets come with their dues.
    """

    models: tuple[Model, ...]
    agent_names: tuple[str, ...]
    seed: int
    frozen_date: str
    lookahead: int
    priority_steps: int
    record_bytes_max: int
    order: str = "strict"
    repeats: bool = False
