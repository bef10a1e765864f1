"""The summary of a run: the object of ``--json``, made once at its end."""

from collections.abc import Mapping
from typing import Any

from lockstep.engine.actions import Finish
from lockstep.engine.errors import (
    EXIT_OK,
    EXIT_UNFINISHED,
    Diverged,
    LockstepBug,
    LockstepError,
)
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import OF_SOURCES, What
from lockstep.engine.sequencer import Sequencer
from lockstep.shm import RingError
from lockstep.workers.deaths import told
from lockstep.workers.ledger import Ledger
from lockstep.workers.stalls import Stalls

# What came in and makes a run one that its identity alone does not give again, for people.
CAUSES = (
    ((What.TOOL,), "answer of a tool", "answers of tools"),
    ((What.ITEM, What.EVENT), "event of a source", "events of sources"),
    ((What.CALL,), "call to a model", "calls to models"),
    ((What.CLOSED,), "end of a source", "ends of sources"),
    (
        (What.CANCEL_RUN, What.CANCEL_ITEM, What.CANCEL_REQUEST),
        "cancel by a person",
        "cancels by a person",
    ),
    ((What.PROVIDER,), "change of a provider", "changes of a provider"),
)

# What had not come when the run went on without it, or ended: another time it may.
UNANSWERED = "call of a tool without its answer", "calls of tools without their answers"
SILENT = "source that brought nothing", "sources that brought nothing"


def figures(
    sequencer: Sequencer, ledger: Ledger, fleet: Fleet, came: Mapping[int, int]
) -> dict[str, Any]:
    """What the run did, in logical units.

    Args:
        sequencer: At the end.
        ledger: Likewise.
        fleet: That was run.
        came: Outside events by `What`.
    """
    world, counts = sequencer.world, sequencer.world.counts
    book = world.desk.book
    return {
        "digest": ledger.digest.digest,
        "digest_text": ledger.digest.digest_text,
        "steps": counts.steps,
        "turns": counts.turns,
        "messages": counts.messages,
        "requests": world.requests.issued,
        "tokens_in": counts.tokens_in,
        "tokens_out": counts.tokens_out,
        "regenerative": sequencer.regenerative,
        "outside": causes(fleet, came, world.tools.book.issued),
        "order": fleet.schedule.order,
        "items_in": len(book),
        "items_out": book.finished,
        "items_failed": book.failed,
        "agents_failed": [name for name, _ in world.failures],
        "failures": [f"agent {name}: {reason}" for name, reason in world.failures],
        "seed": fleet.seed,
        "requests_failed": counts.requests_failed,
        "request_failure": counts.request_failure,
    }


def causes(fleet: Fleet, came: Mapping[int, int], called: int) -> list[str]:
    """Why a run is not regenerative; empty: it is.

    Args:
        fleet: That was run.
        came: As in `figures`.
        called: Calls of tools, answered or not.
    """
    found = ["arrival order"] if fleet.schedule.order == "arrival" else []
    silent = 0 if any(came.get(kind) for kind in OF_SOURCES) else len(fleet.sources)
    for count, one, more in (
        *((sum(came.get(kind, 0) for kind in kinds), one, more) for kinds, one, more in CAUSES),
        (called - came.get(What.TOOL, 0), *UNANSWERED),
        (silent, *SILENT),
    ):
        if count > 0:
            found.append(f"{count} {one if count == 1 else more}")
    return found


def ending(
    sequencer: Sequencer, finish: Finish | None, stopped: str, code: int, refused: bool
) -> dict[str, Any]:
    """How the run ended: ``state``, ``reason``, ``exit_code``.

    Args:
        sequencer: At the end.
        finish: What it said, if it came to an end.
        stopped: Why we stopped it; empty: we did not.
        code: Exit code of that.
        refused: Whether a line of standard input was.
    """
    state, reason = "stopped", stopped
    if not stopped and finish is not None:
        state, reason = finish.state, finish.reason
    world = sequencer.world
    bad = state == "stopped" or world.desk.book.failed or world.failures or refused
    return {
        "state": state,
        "reason": reason,
        "exit_code": code or (EXIT_UNFINISHED if bad else EXIT_OK),
    }


def waits(stalls: Stalls, run_s: float) -> dict[str, Any]:
    """How long the inference process was held back, and by whom (workers/stalls.py)."""
    return {
        "run_s": round(run_s, 3),  # From the first fork of an agent to the last tag.
        "stalled_s": round(stalls.seconds(), 3),
        "stalls": stalls.table(),
    }


def stopped_by(error: Exception) -> tuple[str, int]:
    """Why an error stopped a run, in one line, and the exit code that says so."""
    if isinstance(error, Diverged):
        return str(error), error.exit_code
    if isinstance(error, (LockstepError, RingError, OSError)) and not isinstance(
        error, LockstepBug
    ):
        return str(error), EXIT_UNFINISHED
    return f"a bug in Lockstep: {told(error)}", LockstepBug.exit_code
