"""Many agents: one digest under any physical disorder, and nothing left behind."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleets
import pytest
from disorder import Disturber, hogs, one_core
from lives import processes_of

from lockstep.engine.errors import UsageError
from lockstep.workers import verify
from lockstep.workers.job import Job
from lockstep.workers.launch import launch

# Every item is sent once round all agents. Turns cost several steps each, so tags spread.
RELAY = """
[fleet]
name = "relay"
seed = 3
record_bytes_max = 16_384
[schedule]
fuel_per_step = 3_000
items_in_flight_max = 50
[agents.node]
module = "GUESTS/chatter.wasm"
replicas = {agents}
input = "deal"
"""
# Every item goes through a tool and a model, by agents of its own as long as there are some.
TOWN = """
[fleet]
name = "town"
seed = 3
record_bytes_max = 16_384
[schedule]
policy = "dag"
fuel_per_step = 3_000
items_in_flight_max = 50
[models.tiny]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 8
tokens_max = 128
[tools.same]
command = ["cat"]
output_bytes_max = 1024
[agents.caller]
module = "GUESTS/caller.wasm"
replicas = {half}
input = "deal"
tools = ["same"]
[agents.asker]
module = "GUESTS/asker.wasm"
replicas = {half}
after = ["caller"]
input = "deal"
config = {{ tokens = 8, temperature = 0.9 }}
"""
DISORDERS = ("hogs", "one core", "nice", "stopped", "one core and nice")


def job(folder: Path, agents: int, items: int, name: str, perturb: int = 0) -> Job:
    """A run of the relay in a folder of its own."""
    return Job(
        fleet=str(fleets.fleet(folder, RELAY.format(agents=agents))),
        base=str(folder),
        input=str(fleets.items(folder, items)),
        run_dir=str(folder / name),
        durability="memory",
        perturb=perturb,
    )


def disturbed(asked: Job, disorder: str) -> dict[str, Any]:
    """The run under a disorder; nothing of it is left."""
    chance = random.Random(asked.perturb)
    with ExitStack() as stack:
        listener = stack.enter_context(
            Disturber(chance, nice="nice" in disorder, stop=disorder == "stopped")
        )
        if disorder == "hogs":
            stack.enter_context(hogs(1))
            stack.enter_context(hogs(1))
        if "one core" in disorder:
            stack.enter_context(one_core())
        summary = launch(asked, listener)
    assert summary["state"] == "finished", (disorder, asked.perturb, summary["reason"])
    supervisor = fleets.supervisor_of(asked.run_dir)
    assert processes_of(supervisor) == [] == fleets.segments_of(supervisor)
    return summary


def digests(folder: Path, agents: int, items: int, runs: int) -> set[str]:
    """Digests of a plain run and of perturbed ones, disorders in turn."""
    plain = launch(job(folder, agents, items, "plain"))
    assert (plain["state"], plain["items_out"]) == ("finished", items), plain["reason"]
    assert plain["messages"] == agents * items
    found = {plain["digest"]}
    for seed in range(1, runs + 1):
        asked = job(folder, agents, items, f"run{seed}", perturb=seed)
        found.add(disturbed(asked, DISORDERS[seed % len(DISORDERS)])["digest"])
    return found


def test_a_hundred_agents_give_one_digest_under_five_disorders(tmp_path: Path) -> None:
    assert len(digests(tmp_path, agents=100, items=5, runs=5)) == 1


def test_a_hundred_agents_verify(tmp_path: Path) -> None:
    launch(job(tmp_path, 100, 3, "run"))
    checked = verify(tmp_path / "run")
    assert checked.equal and checked.whole


@pytest.mark.nightly
def test_fifty_perturbed_runs_of_a_hundred_agents_give_one_digest(tmp_path: Path) -> None:
    assert len(digests(tmp_path, agents=100, items=20, runs=50)) == 1


@pytest.mark.nightly
def test_five_perturbed_runs_of_a_thousand_agents_give_one_digest(tmp_path: Path) -> None:
    assert len(digests(tmp_path, agents=1000, items=4, runs=5)) == 1


@pytest.mark.nightly
@pytest.mark.parametrize(("agents", "items", "runs"), [(100, 100, 10), (1000, 60, 3)])
def test_a_crowd_with_a_tool_and_a_model_comes_out_again_under_disorder(
    tmp_path: Path, agents: int, items: int, runs: int
) -> None:
    # When the tool answers is physical, so it is one run that is repeated from its record.
    asked = job(tmp_path, agents, items, "first", perturb=1)
    fleets.fleet(tmp_path, TOWN.format(half=agents // 2))  # In place of the relay.
    first = disturbed(asked, DISORDERS[0])
    assert (first["items_out"], first["requests"]) == (items, items)
    assert first["outside"] == [f"{items} answers of tools"]
    for seed in range(1, runs + 1):
        again = replace(
            asked, run_dir=str(tmp_path / f"run{seed}"), perturb=seed, verify_of=asked.run_dir
        )
        summary = disturbed(again, DISORDERS[seed % len(DISORDERS)])
        assert summary["digest"] == first["digest"]


@pytest.mark.nightly
def test_so_many_agents_that_descriptors_have_high_numbers_keep_their_promises(
    tmp_path: Path,
) -> None:
    summary = launch(replace(job(tmp_path, 1050, 2, "run"), durability="sync"))
    assert (summary["state"], summary["messages"]) == ("finished", 2100)


def test_a_fleet_that_the_machine_cannot_hold_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    code = (
        "import json, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from lockstep.workers.job import Job\n"
        "from lockstep.workers.launch import launch\n"
        "try:\n"
        "    launch(Job.from_json(sys.argv[1]))\n"
        "except Exception as error:\n"
        "    print(json.dumps([type(error).__name__, str(error)]))\n"
    )
    asked = job(tmp_path, 100, 1, "run").to_json()
    done = subprocess.run(
        [sys.executable, "-c", code, asked], capture_output=True, text=True, check=False
    )
    name, message = json.loads(done.stdout)
    assert name == UsageError.__name__ and not (tmp_path / "run").exists()
    assert message.startswith("100 agents need 394 descriptors (100 x 2 + 194), there are 256 ")
    assert "`replicas`" in message
