"""Whatever dies, and whenever: every item is answered once, and the record is that of one run.

``pytest -m nightly tests/workers/service/test_killing.py``
"""

from __future__ import annotations

import json
import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import fleets
import pytest
from serving import Serving

from lockstep.engine.errors import UsageError
from lockstep.workers import replay, verify
from lockstep.workers.service.client import submit

FLEET = """
[fleet]
name = "asks"
seed = 3
[schedule]
items_in_flight_max = 4
[recovery]
restarts_max = 1000
[models.default]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 4
[agents.ask]
module = "GUESTS/asker.wasm"
replicas = 2
input = "deal"
config = { tokens = 6, temperature = 0.9 }
"""
ITEMS = 240
DEATHS = 24


def victims(service: Serving) -> dict[str, int]:
    """Who is there to be killed, by name."""
    found = {"service": service.process.pid}
    current = service.state / "current"
    supervisor = next(
        (run["pid"] for run in service.status()["runs"] if run["state"] == "live"), None
    )
    if supervisor is not None:
        found["supervisor"] = supervisor
        try:
            board = fleets.board_of(current)
        except (OSError, ValueError):
            return found
        found |= {"inference": board.engine.pid, "agent": board.agents[0].pid}
    return {name: pid for name, pid in found.items() if pid}


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(4))
def test_every_item_is_answered_once_whoever_dies(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    items = [{"id": f"q{n}", "text": f"say {n}"} for n in range(ITEMS)]
    answers: dict[str, Any] = {}
    died: list[str] = []
    starts = 0
    args = ("--run-items-max", "90", "--client-max", str(ITEMS))
    with Serving(tmp_path, fleets.fleet(tmp_path, FLEET), *args).start() as service:
        while len(answers) < ITEMS:
            left = [item for item in items if item["id"] not in answers]
            until = draw.randint(1, 20)
            try:
                with service.connect() as client:
                    for answer in submit(client, left, "test", wait=draw.random() < 0.5, window=8):
                        assert "error" not in answer, answer
                        if "answer" in answer:
                            assert answers.setdefault(answer["id"], answer["answer"])
                        until -= 1
                        if until == 0 and len(died) < DEATHS:
                            name, pid = draw.choice(sorted(victims(service).items()))
                            with suppress(ProcessLookupError):  # The board was a moment old.
                                os.kill(pid, signal.SIGKILL)
                                died.append(name)
                            until = draw.randint(1, 20)
            except UsageError:
                pass  # It was the service.
            if died.count("service") > starts:
                starts += 1
                service.process.wait()
                service.start()
        for item in items:
            again = service.submit(item, wait=True)
            assert again["again"] and again["answer"] == answers[item["id"]]
        assert service.drain() == 0
    assert len(set(died)) == 4, died
    said: list[str] = []
    for run in (service.state / "runs").iterdir():
        said += [json.loads(line)["id"] for line in (run / "output.jsonl").read_text().splitlines()]
        assert verify(run).equal
        assert replay(run).digest == json.loads((run / "summary.json").read_text())["digest"]
    assert sorted(said) == sorted(item["id"] for item in items)
