"""An hour of calls: service, front end and runs are as large at its end as they were when warm.

``pytest -m nightly -s tests/workers/http/test_web_soak.py``; LOCKSTEP_SOAK_S makes it shorter.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import fleets
import psutil
import pytest
import rawhttp
from crowd import HTTP, WEB, address_of
from serving import Serving

from lockstep.bench.callers import all_at_once

SECONDS = float(os.environ.get("LOCKSTEP_SOAK_S", "3600"))
CLIENTS, CALLS = 8, 40  # Of a round: each client's, half of them streamed.
RUN_ITEMS = 4 * CLIENTS * CALLS
SAMPLES_MIN = 12
GROWTH_MAX = 1.1  # Of memory: allocators do not give everything back.
KEPT_ALIVE = CLIENTS  # Connections that are kept, or whose end was not seen yet.


class Size(NamedTuple):
    """How large everybody is after a round."""

    service: int
    front: int
    supervisor: int
    inference: int
    service_descriptors: int
    front_descriptors: int
    segments: int


def measure(service: Serving) -> Size:
    """While nobody asks for anything."""
    service.wait(lambda: service.run(Path(service.status()["run"]).name)["state"] == "live")
    status = service.status()
    own, front = psutil.Process(service.process.pid), psutil.Process(status["http"]["pid"])
    supervisor = service.run(Path(status["run"]).name)["pid"]
    inference = fleets.board_of(service.state / "current").engine.pid
    return Size(
        own.memory_info().rss,
        front.memory_info().rss,
        psutil.Process(supervisor).memory_info().rss,
        psutil.Process(inference).memory_info().rss,
        own.num_fds(),
        front.num_fds(),
        len(fleets.segments_of(supervisor)),
    )


def talk(address: str, number: int) -> None:
    """One client's round, on one connection."""
    with rawhttp.connect(address) as connection:
        for call in range(CALLS):
            body: dict[str, Any] = {"model": "tiny", "max_tokens": 8, "seed": call}
            body["messages"] = [{"role": "user", "content": f"client {number} call {call}"}]
            body["stream"] = call % 2 == 0
            data = rawhttp.request("/v1/chat/completions", json.dumps(body).encode())
            connection.sendall(data)
            assert rawhttp.hear(connection).status == 200


@pytest.mark.nightly
def test_an_hour_of_calls_leaves_everybody_as_large_as_they_were(tmp_path: Path) -> None:
    args = (*HTTP, "--run-items-max", str(RUN_ITEMS), "--keep-runs", "2")
    sizes: list[Size] = []
    with Serving(tmp_path, fleets.fleet(tmp_path, WEB), *args).start() as service:
        address = address_of(service)
        until_s = time.monotonic() + SECONDS
        while time.monotonic() < until_s or len(sizes) < SAMPLES_MIN:
            for _ in range(RUN_ITEMS // (CLIENTS * CALLS)):  # One run's calls.
                all_at_once(CLIENTS, lambda number: talk(address, number))
            service.wait(lambda: service.status()["waiting"] == 0)
            sizes.append(measure(service))
        assert service.status()["http"]["restarts"] == 0
        assert service.drain() == 0
    print(f"\n{len(sizes)} rounds of {RUN_ITEMS} calls; first {sizes[0]}, last {sizes[-1]}")
    warm, last = sizes[len(sizes) // 4 : len(sizes) // 2], sizes[-len(sizes) // 4 :]
    for one in ("service_descriptors", "front_descriptors", "segments"):
        before, after = (max(getattr(s, one) for s in part) for part in (warm, last))
        assert after <= before + KEPT_ALIVE, (one, before, after)
    for one in ("service", "front", "supervisor", "inference"):
        before, after = (median(getattr(s, one) for s in part) for part in (warm, last))
        assert after <= before * GROWTH_MAX, (one, before, after)
