"""`lockstep top` without a run: which one is meant."""

import os
from pathlib import Path
from typing import Any

import pytest

from lockstep.cli.top import newest
from lockstep.engine.errors import UsageError
from lockstep.workers import lock_file
from lockstep.workers.folder import LOCK


def _run(folder: Path, name: str, began_s: int) -> Path:
    """A run folder, as far as it is looked at."""
    run = folder / name
    (run / "journal").mkdir(parents=True)
    for file in ("fleet.toml", LOCK):
        (run / file).touch()
    os.utime(run / LOCK, (began_s, began_s))
    return run


def test_the_newest_run_that_goes_on_is_meant_else_the_newest(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UsageError, match="no run in "):
        newest(runs)
    first, last = _run(runs, "vote-10", 1_000), _run(runs, "vote-9", 3_000)
    living = [_run(runs, name, 2_000) for name in ("b-1", "a-1")]
    (runs / "vote-11").mkdir()  # No run.
    assert newest(runs) == last
    locks = []
    for n, run in enumerate(living):
        locks.append(lock_file.take(run / LOCK))
        os.utime(run / LOCK, (2_000 - n, 2_000 - n))
    assert newest(runs) == living[0]
    os.close(locks[0])
    assert newest(runs) == living[1]
    os.close(locks[1])
    assert newest(runs) == last != first


def test_top_says_which_run_it_shows(done: Any, place: Any) -> None:
    ended, _ = done
    found = ended.lockstep("top", "--json")
    assert (found.code, found.json["run"], found.json["state"]) == (0, "runs/small-1", "finished")
    assert found.err.splitlines()[0] == "lockstep: run: runs/small-1"
    assert "small-1" not in ended.lockstep("top", "runs/small-1").err
    nothing = place.lockstep("top")
    (line,) = nothing.err.splitlines()
    assert (nothing.code, nothing.out) == (2, "") and "no run in runs/ of this folder" in line
