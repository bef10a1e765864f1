"""The Python API: run a fleet and hold what it came to. The command line is a thin caller."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.engine.errors import EXIT_INTERRUPTED, UsageError
from lockstep.workers import folder as folders
from lockstep.workers.job import Job
from lockstep.workers.journal_file import LEVELS
from lockstep.workers.launch import Interrupted, Listener, launch


@dataclass(frozen=True)
class Run:
    """A run that ended.

    Attributes:
        folder: The run folder.
        summary: Figures as in the JSON object of the command line.
    """

    folder: Path
    summary: dict[str, Any]

    @property
    def digest(self) -> str:
        """Hash of identity and logical history: what two runs are compared by."""
        return str(self.summary["digest"])

    @property
    def digest_text(self) -> str:
        """Hash of messages, token ids and outputs only."""
        return str(self.summary["digest_text"])

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return int(self.summary["exit_code"])

    @property
    def output(self) -> list[dict[str, Any]]:
        """Lines of the output file, in item order."""
        data = (self.folder / folders.OUTPUT).read_bytes()
        return [json.loads(line) for line in data.split(b"\n") if line]


def run(
    fleet: str | Path,
    input: str | Path | None = None,
    *,
    output: str | Path | None = None,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    durability: str = "async",
    order: str = "",
    stdin: int | None = 0,
    listen: Listener | None = None,
) -> Run:
    """Run a fleet to its end.

    Args:
        fleet: The fleet file.
        input: JSON Lines, one item each.
        output: A copy of the run's output file.
        seed: In place of the fleet's.
        run_dir: The run's folder; default ``runs/<fleet>-<n>``.
        durability: "memory", "async" or "sync" (workers/journal_file.py).
        order: "strict" or "arrival" in place of the fleet's; empty: the fleet's.
        stdin: Descriptor that a source of that kind reads; None: such a source has ended at once.
        listen: Called with ("run" | "note" | "progress", value).

    Returns:
        The run, also one that stopped or has failed items or agents: look at ``exit_code`` (0 when
        all went well), ``summary["state"]`` and ``summary["reason"]``.

    Raises:
        Interrupted: Ctrl-C; ``summary`` has the run as far as it came.
        LockstepError: see `launch`; each has an ``exit_code``.
    """
    if durability not in LEVELS:
        raise UsageError(f"durability is {durability!r}, expected {' or '.join(LEVELS)}")
    summary = launch(
        Job(
            fleet=absolute(fleet),
            base=str(Path.cwd()),
            input=absolute(input),
            output=absolute(output),
            seed=seed,
            run_dir=absolute(run_dir),
            durability=durability,
            order=order,
        ),
        listen,
        stdin,
    )
    if summary["exit_code"] == EXIT_INTERRUPTED:
        raise Interrupted(f"interrupted; {summary['run']} has what was done", summary)
    return Run(Path(summary["run"]), summary)


def absolute(path: str | Path | None) -> str:
    """A path as a `Job` takes it; empty for None."""
    return "" if path is None else str(Path(path).absolute())
