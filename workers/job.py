"""A job: what the supervisor process is asked to do, as JSON over its standard input."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.version import LOGIC_FLAGS


@dataclass(frozen=True, slots=True)
class Job:
    """One run, or one that goes on or is played again. Paths are absolute.

    Attributes:
        fleet: Fleet file.
        input: Input file; empty: none.
        output: Copy of the output file; empty: only in the run folder.
        seed: In place of the fleet's; None: the fleet's.
        order: Likewise ("strict" or "arrival"); empty: the fleet's.
        settings: ``key=value`` each, in place of the fleet's (engine/overrides.py).
        stdin: Descriptor that the supervisor inherits, for a source of that kind; -1: none.
        run_dir: Folder of the run; empty: ``runs/<fleet>-<n>`` under ``base``.
        base: Working folder of the person.
        durability: "memory", "async" or "sync".
        modules_at: Folder of modules by group; empty: as the fleet says.
        models_at: Model folders by name, in place of the fleet's.
        verify_of: Run folder that this run repeats: its identity must be the same, and what came
            from outside comes from its record; empty: none.
        entries_max: Stop when so many entries of history are there; 0: at the end.
        mode: "run"; "resume" goes on with the run in ``past``; "replay" plays it again from its
            record, without the model; "fork" begins a new run with the past of that one.
        past: Run folder; of "run", empty.
        until: "replay": stop before this tag (``step.microstep``); empty: at the end.
        only: "replay": name of the one agent that is executed; empty: all.
        trace: "replay": report each turn.
        at: "fork": the past is everything before this step.
        changes: "fork": ``key=value`` of the fleet file, from that step on.
        cache: Folder of what is kept between runs, as proofs of models are; empty: nothing is.
        logic_flags: Rules that it is run under: those of the run that it goes on with or repeats.
        platform: "linux" or "portable" (shm/platform.py); empty: what is best here. As `perturb`,
            no digest depends on it.
        serves: A source is added to the fleet by which a service hands in items (outside/inlet.py).
        calls: Likewise an agent that takes calls to models.
        inlet: Descriptor that the supervisor inherits: the service at the other end; -1: none.
        closed_from: "resume": the service has the answers to all items before this one.
        profile: "spans": record what every process does and when; "nodes": and the nodes of the
            models' graphs, too (workers/profile); empty: nothing of that is there. No digest
            depends on it.
        perturb: Seed of physical disorder (agents start in another order, each after a delay);
            0: none. No digest may depend on it; tests show that none does.
    """

    fleet: str
    base: str
    input: str = ""
    output: str = ""
    seed: int | None = None
    order: str = ""
    settings: tuple[str, ...] = ()
    stdin: int = -1
    run_dir: str = ""
    durability: str = "async"
    modules_at: str = ""
    models_at: dict[str, str] | None = None
    verify_of: str = ""
    entries_max: int = 0
    mode: str = "run"
    past: str = ""
    until: str = ""
    only: str = ""
    trace: bool = False
    at: int = 0
    changes: tuple[str, ...] = ()
    cache: str = ""
    logic_flags: int = LOGIC_FLAGS
    platform: str = ""
    serves: bool = False
    calls: bool = False
    inlet: int = -1
    closed_from: int = 1
    profile: str = ""
    perturb: int = 0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """What `to_json` made."""
        values: dict[str, Any] = json.loads(text)
        for name in ("changes", "settings"):
            values[name] = tuple(values[name])
        return cls(**values)

    @property
    def input_path(self) -> Path | None:
        """The input file, if any."""
        return Path(self.input) if self.input else None
