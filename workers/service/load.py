"""Load: what observers see of a run, for the status of its service. The run does not notice.

Read from the board, which the run's own processes write, and from the manifest. Nothing depends on
it: whatever cannot be read now is left out.
"""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lockstep.shm import BoardReader, BoardRefused, EngineStatus, Snapshot
from lockstep.workers import folder as folders

PACE_S = 2.0  # An engine without rows that wrote nothing for so long makes no tokens.


class Load:
    """Of one run, while it lives.

    Args:
        run: Its folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._rows_max = 0  # Not known yet.

    def now(self) -> dict[str, Any]:
        """What it does; empty: nobody knows.

        ``rows`` compute, ``rows_max`` could, ``requests_waiting`` wait for one of them.
        ``stall_s`` has the seconds for which the model waited, by the agent's name in the fleet
        file; replicas together.
        """
        found = _snapshot(self._run / folders.BOARD)
        if found is None:
            return {}
        self._rows_max = self._rows_max or _rows_max(self._run / folders.MANIFEST)
        stall_us: Counter[str] = Counter()
        for agent in found.agents:
            stall_us[agent.name.partition(".")[0]] += agent.stall_us
        return {
            "rows": found.engine.rows,
            "rows_max": self._rows_max,
            "requests_waiting": found.engine.tickets_waiting,
            "tokens_per_s": _pace(found.engine),
            "stall_s": {name: round(us / 1e6, 3) for name, us in stall_us.items()},
        }


def _rows_max(manifest: Path) -> int:
    """Of all models; 0: the manifest is being made, or is another version's."""
    try:
        value = json.loads(manifest.read_bytes())
        return sum(model["rows_max"] for model in value["identity"]["fleet"]["models"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _snapshot(board: Path) -> Snapshot | None:
    try:
        reader = BoardReader.attach(json.loads(board.read_bytes())["name"])
    except (OSError, ValueError, LookupError, TypeError, BoardRefused):
        return None
    try:
        return reader.snapshot()
    finally:
        reader.close()


def _pace(engine: EngineStatus) -> int:
    rests = engine.rows == 0 and time.monotonic() - engine.at_us / 1e6 > PACE_S
    return 0 if rests else engine.tokens_per_s
