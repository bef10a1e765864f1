"""The processes of a profiled run, ended: whatever state they are in, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fleets
import pytest
from profiled import job

from lockstep.engine.errors import ModelError, UsageError
from lockstep.workers.launch import ENVIRONMENT, launch
from lockstep.workers.scratch import Scratch

END_S_MAX = 120  # A hang; the crew would wait for a day.

PRELUDE = """
import json, os, signal, sys
from pathlib import Path
from lockstep.engine.wire import ToEngine
from lockstep.shm import platform_of
from lockstep.workers import prepare
from lockstep.workers.profile import supervising
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.supervising import ProfiledCrew
from lockstep.workers.specs import inference_spec

supervising.NODES_S_MAX = 86_400.0
place, folder = Place(), Path(sys.argv[2])
fleet = prepare.prepare(Path(sys.argv[1]), None, None).fleet
crew = ProfiledCrew(place, True, fleet, platform_of())
loading = crew.fork_inference(inference_spec(fleet, repeats=False))
pid = crew.engine.pid

def say():
    try:
        os.kill(pid, 0)
        lives = True
    except ProcessLookupError:
        lives = False
    print(json.dumps([lives, [path.name for path in Path(os.environ["TMPDIR"]).iterdir()],
                      [path.suffix for path in folder.glob("profile/model-*")]]))
"""
ENDED_WHILE_IT_LOADS = """
os.kill(pid, signal.SIGSTOP)
place.make(folder)  # As of a run whose second process of inference loads.
crew.end()
say()
"""
KILLED_WHILE_IT_LOADS = """
print(pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
ENDED_WITH_RINGS_THAT_ARE_GONE = """
loading.wait(lambda: False, print)
place.make(folder)
crew.placed()
crew.engine_link.close()
os.kill(pid, signal.SIGSTOP)
crew.end()
say()
"""
ENDED = """
loading.wait(lambda: False, print)
place.make(folder)
crew.placed()
crew.end()
say()
"""


def play(folder: Path, code: str) -> Any:
    """What a piece of code says, with a temporary folder of its own."""
    (folder / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(fleets.fleet(folder, fleets.CHAIN)), folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT, "TMPDIR": str(folder / "tmp")},
        timeout=END_S_MAX,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_a_process_that_still_loads_is_not_waited_for(tmp_path: Path) -> None:
    assert play(tmp_path, ENDED_WHILE_IT_LOADS) == [False, [], []]


def test_rings_that_cannot_be_written_keep_nobody_alive(tmp_path: Path) -> None:
    code = ENDED_WITH_RINGS_THAT_ARE_GONE
    assert play(tmp_path, code) == [False, [], []]


def test_one_that_serves_keeps_what_was_noted(tmp_path: Path) -> None:
    assert play(tmp_path, ENDED) == [False, [], [".nodes"]]


def test_a_supervisor_that_is_killed_while_models_load_leaves_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    code = PRELUDE + KILLED_WHILE_IT_LOADS
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(fleets.fleet(tmp_path, fleets.CHAIN)), tmp_path],
        capture_output=True,
        check=False,
        env={**os.environ, **ENVIRONMENT, "TMPDIR": str(folder)},
        timeout=END_S_MAX,
    )
    assert done.returncode == -signal.SIGKILL and list(folder.iterdir())
    while not fleets.gone(int(done.stdout)):  # The test's time-out bounds.
        os.sched_yield()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Scratch() as mine:  # As of whoever needs one next: it sweeps what nobody holds.
        assert list(mine.path.parent.iterdir()) == [mine.path]
    assert list(folder.iterdir()) == []


def test_a_model_that_is_refused_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "empty").mkdir()
    text = fleets.CHAIN.replace("MODEL", str(tmp_path / "empty"))
    with pytest.raises((ModelError, UsageError)):
        launch(job(tmp_path, "run", text, profile="nodes"))
    assert list((tmp_path / "tmp").iterdir()) == []
