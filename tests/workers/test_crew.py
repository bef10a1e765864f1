"""The crew: real agent processes, started as the supervisor starts them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep import shm
from lockstep.shm import segment
from lockstep.workers import crew as crews
from lockstep.workers import prepare
from lockstep.workers.launch import ENVIRONMENT

FLEET = """
[fleet]
name = "crew"
record_bytes_max = 2048
[agents.node]
module = "GUESTS/echo.wasm"
replicas = 4
input = "deal"
"""

# A supervisor in miniature; in an interpreter of its own, as a fork wants one thread.
PRELUDE = """
import json, os, resource, select, sys
from dataclasses import replace
from pathlib import Path
from lockstep.engine.record import Kind, decode, encode, encode_wake
from lockstep.workers import prepare
from lockstep.workers.agent.process import AgentSpec
from lockstep.workers.crew import Crew

prepared = prepare.prepare(Path(sys.argv[1]), None, None)
fleet, group = prepared.fleet, prepared.fleet.groups[0]
crew = Crew(fleet)
(code,) = crew.compile(prepared, lambda: False)
specs = [
    AgentSpec(name=a.name, index=a.index, replica=a.replica, seed=1, code=code,
              memory_bytes_max=group.memory_bytes_max, turn_fuel_max=group.turn_fuel_max,
              turn_out_bytes_max=group.turn_out_bytes_max,
              record_bytes_max=fleet.record_bytes_max, log_lines_max=group.log_lines_max,
              log_bytes_max=group.log_bytes_max, table_elements_max=group.table_elements_max,
              frozen_epoch_us=0, step_us=1000)
    for a in fleet.agents
]
def turns(want):
    got = {}
    while sum(map(len, got.values())) < want:
        select.select([crew.rung.bell], [], [])
        for index in crew.rung.take():
            for turn in crew.seats[index].receive():
                got.setdefault(index, []).append(turn)
    return got

def wake(index, turn, event):
    crew.seats[index].link.send(encode_wake(turn, 0, turn, event, 1))
"""


def crew(folder: Path, code: str, *arguments: str) -> Any:
    """What the code prints, as JSON; it must end cleanly."""
    path = fleets.fleet(folder, FLEET)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(path), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("perturb", ["0", "1"])
def test_every_agent_plays_its_turns(tmp_path: Path, perturb: str) -> None:
    code = """
crew.start_agents(specs, perturb=int(sys.argv[2]))
first = turns(4)
start = json.dumps({"agent": "x", "config": {}}).encode()
for n in range(4):
    wake(n, 1, encode(Kind.START, start, item=4, peer=n))
turns(4)
for n in (2, 0):
    wake(n, 2, encode(Kind.ITEM, b"hello %d" % n, item=n + 1))
second = turns(2)
said = {n: [r.payload.decode() for r in decode(t[0].records)] for n, t in second.items()}
crew.end()
print(json.dumps([sorted(first), sorted(said.items()), [s.child for s in crew.seats]]))
"""
    first, said, children = crew(tmp_path, code, perturb)
    assert first == [0, 1, 2, 3]
    assert said == [[0, ["hello 0"]], [2, ["hello 2"]]]
    assert children == [None] * 4


def test_an_agent_process_maps_its_own_rings_and_holds_its_own_descriptors_only(
    tmp_path: Path,
) -> None:
    code = """
crew.start_agents(specs)
turns(4)
found = []
for seat in crew.seats:
    maps = Path(f"/proc/{seat.child.pid}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if "/memfd:lockstep " in line]
    own, gate = seat.link.pair.agent_bell.fileno(), seat.link.pair.supervisor_bell
    held = {int(p.name) for p in Path(f"/proc/{seat.child.pid}/fd").iterdir()}
    wanted = {0, 1, 2, own, *gate.ringing_descriptors()}
    found.append([sum(int(b, 16) - int(a, 16) for a, b in spans), sorted(held ^ wanted)])
pair = len(crew.seats[0].link.pair.down) * 2
crew.end()
print(json.dumps([pair, found]))
"""
    pair, found = crew(tmp_path, code)
    assert [mapped for mapped, _ in found] == [pair] * 4
    assert [unexpected for _, unexpected in found] == [[]] * 4


def test_ending_a_crew_that_never_started_leaves_nothing(tmp_path: Path) -> None:
    code = """
name = crew.board.name
crew.end()
print(json.dumps(os.path.exists("/dev/shm" + name)))
"""
    assert crew(tmp_path, code) is False


@pytest.mark.parametrize("name", ["linux", "portable"])
def test_what_fails_behind_its_memory_leaves_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    names = []
    open_new = segment.open_new

    def noted(name: str, size_bytes: int) -> int:
        names.append(name)
        return open_new(name, size_bytes)

    def full() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(segment, "open_new", noted)
    monkeypatch.setattr(crews.shm, "SharedDoorbell", full)
    fleet = prepare.prepare(fleets.fleet(tmp_path, FLEET), None, None).fleet
    with pytest.raises(OSError, match="too many open files"):
        crews.Crew(fleet, shm.platform_of(name))
    assert names and not [name for name in names if Path("/dev/shm", name[1:]).exists()]
