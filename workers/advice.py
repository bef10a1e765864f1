"""Advice: what would help against the longest stall of a run."""

from collections.abc import Mapping
from typing import Any

STALL_SHARE = 0.05  # Of the run's wall time: less is not worth a line.


def advice(row: Mapping[str, Any]) -> str:
    """What would help against the longest stall.

    A turn that is known to cost steps lets the model run them meanwhile; one that is cheaper than
    a quantum holds the very next step, unless requests are admitted later than they are made.
    """
    agent, quanta = row["agent"], float(row.get("quanta", 0))
    if quanta >= 1:
        return (
            f"a turn of {agent} burns {quanta:.1f} x fuel_per_step: a smaller fuel_per_step, or a "
            "larger delay for that agent, lets the model run more steps meanwhile"
        )
    return (
        f"a turn of {agent} burns {quanta:.2g} x fuel_per_step, so that the next step waits for "
        "it: a smaller fuel_per_step, or a larger lookahead, lets the model go on meanwhile"
    )
