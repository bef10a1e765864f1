"""How many runs there is room for at a time."""

import os
from pathlib import Path

import pytest

from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.workers import room
from lockstep.workers.sweeps import capacity as capacities
from lockstep.workers.sweeps.capacity import capacity

PROVIDERS = '["cpu"]'
FLEET = """
[models.m]
path = "model"
intra_op_threads = {threads}
providers = {providers}
[agents.a]
module = "a.wasm"
replicas = {replicas}
"""


def _fleet(threads: int = 1, replicas: int = 1, providers: str = PROVIDERS) -> Fleet:
    text = FLEET.format(threads=threads, replicas=replicas, providers=providers)
    return parse(text.encode(), "fleet.toml")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: frozenset(range(8)))
    monkeypatch.setattr(room, "free_memory", lambda: (10 << 30, "here"))
    monkeypatch.setattr(capacities, "DEVICES", Path("/nonexistent"))


@pytest.mark.parametrize(("threads", "jobs"), [(1, 8), (2, 4), (3, 2), (8, 1), (16, 1)])
def test_cores_are_shared_by_the_threads_of_the_hungriest_fleet(threads: int, jobs: int) -> None:
    found = capacity([_fleet(), _fleet(threads)], Path("/"), 100)
    assert found.jobs == jobs
    assert f"8 cores / {threads} for each = {8 // threads}" in found.text


def test_memory_bounds_what_cores_would_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    with open(tmp_path / "model/model.onnx", "wb") as file:
        file.truncate(1 << 30)  # No bytes on the disk: only its size counts.
    found = capacity([_fleet()], tmp_path, 100)
    assert found.jobs == 3 and "80% of 10.0 GiB memory / 2." in found.text
    monkeypatch.setattr(room, "free_memory", lambda: (1 << 30, "here"))
    assert capacity([_fleet()], tmp_path, 100).jobs == 1  # It may be all that there is.
    monkeypatch.setattr(room, "free_memory", lambda: (None, ""))
    assert capacity([_fleet()], tmp_path, 100).jobs == 8


def test_a_gpu_is_for_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _fleet(providers='["cuda", "cpu"]')
    assert capacity([cuda], Path("/"), 100).jobs == 8
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(capacities, "DEVICES", tmp_path)
    assert capacity([cuda], Path("/"), 100).jobs == 1
    assert capacity([_fleet()], Path("/"), 100).jobs == 8


def test_a_person_may_decide_and_hears_what_there_is_room_for() -> None:
    found = capacity([_fleet(threads=4)], Path("/"), 100, wanted=7)
    assert found.jobs == 7 and found.text.startswith("--jobs 7; there is room for 2: ")
    assert (
        capacity([_fleet()], Path("/"), 3).jobs == capacity([_fleet()], Path("/"), 3, 9).jobs == 3
    )
