"""What the inference process is given. Imports nothing heavy: the supervisor makes it."""

from dataclasses import dataclass, field

from lockstep.engine.fleet import Model
from lockstep.engine.restored import Restored
from lockstep.engine.version import LOGIC_FLAGS


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
        restored: What an earlier process of the run had; None: there was none.
        files: File name -> sha256 of each model as that process had loaded it, to be the same
            again; empty: whatever is there.
        got: Providers that each model ran on in that process, to be got again; empty: any.
        since: By model, the first step that its providers computed: tokens of earlier steps are
            of another one (engine/fallback.py); empty: all from the first on.
        past_seeds: (step, seed): other seeds, that the steps below that step were sampled with,
            rising: the run was forked there, and its seed changed.
        tokens: That were made before, for display.
        cache: Folder of what is kept between runs (workers/inference/proofs.py); empty: nothing is.
        step_s: As in `Recovery`.
        logic_flags: Rules of the run.
        agents_bytes: Memory that the agents will need, none of which has started yet; 0: all have.
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
    restored: Restored | None = field(default=None, repr=False)
    files: tuple[dict[str, str], ...] = ()
    got: tuple[tuple[str, ...], ...] = ()
    since: tuple[int, ...] = ()
    past_seeds: tuple[tuple[int, int], ...] = ()
    tokens: int = 0
    cache: str = ""
    step_s: int = 0
    logic_flags: int = LOGIC_FLAGS
    agents_bytes: int = 0
