"""Profiled: a run that was recorded, and the same one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import fleets

from lockstep.workers.job import Job
from lockstep.workers.profile.tracks import Tracks

ITEMS = 8


class Profiled(NamedTuple):
    """A run, the same one without a profile, and what was recorded."""

    run: Path
    summary: dict[str, Any]
    plain: dict[str, Any]
    tracks: Tracks


def job(folder: Path, name: str, text: str = fleets.CHAIN, **more: Any) -> Job:
    """A job of `ITEMS` items in a folder."""
    return Job(
        fleet=str(fleets.fleet(folder, text)),
        base=str(folder),
        input=str(fleets.items(folder, ITEMS)),
        run_dir=str(folder / name),
        **more,
    )
