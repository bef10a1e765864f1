"""An hour of service: it is as large at its end as it was when it was warm.

``pytest -m nightly tests/workers/service/test_soak.py``; LOCKSTEP_SOAK_S makes it shorter.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import fleets
import psutil
import pytest
from serving import Serving

from lockstep.workers.service.client import submit

SECONDS = float(os.environ.get("LOCKSTEP_SOAK_S", "3600"))
RUN_ITEMS = 2_000
BATCH = 100
CLIENTS = 2  # That asked and have gone, and whose end was not seen yet.
GROWTH_MAX = 1.1  # Of memory: allocators do not give everything back.


class Size(NamedTuple):
    """How large a service and the supervisor of its current run are, and what they leave."""

    memory: int
    descriptors: int
    supervisor: int
    segments: int
    folders: int


def measure(service: Serving) -> Size:
    current = service.status()["run"]
    pid = service.run(Path(current).name)["pid"]
    own = psutil.Process(service.process.pid)
    return Size(
        own.memory_info().rss,
        own.num_fds(),
        psutil.Process(pid).memory_info().rss,
        len(fleets.segments_of(pid)),
        len(list((service.state / "runs").iterdir())),
    )


def settled(service: Serving, runs: int) -> bool:
    """Whether a full run was followed by the next, and everything before it has ended."""
    rows = service.status()["runs"]
    return int(rows[-1]["run"].split("-")[1]) > runs and [r["state"] for r in rows[-2:]] == [
        "ended",
        "live",
    ]


@pytest.mark.nightly
def test_an_hour_of_items_leaves_a_service_as_large_as_it_was(tmp_path: Path) -> None:
    fleet = fleets.fleet(tmp_path, fleets.ECHO)
    args = ("--run-items-max", str(RUN_ITEMS), "--keep-runs", "2")
    sizes: list[Size] = []
    with Serving(tmp_path, fleet, *args).start() as service, service.connect() as client:
        until_s, runs = time.monotonic() + SECONDS, 0
        while time.monotonic() < until_s or len(sizes) < 8:
            runs += 1
            for batch in range(0, RUN_ITEMS, BATCH):
                items = [{"id": f"{runs}.{batch + n}", "text": "x" * 100} for n in range(BATCH)]
                for answer in submit(client, items, "soak", wait=True, window=32):
                    assert answer["answer"][0]["id"] == answer["id"] and not answer["again"]
            service.wait(lambda runs=runs: settled(service, runs))  # type: ignore[misc]
            sizes.append(measure(service))
        assert service.drain() == 0
    print(f"\n{len(sizes)} runs of {RUN_ITEMS} items; first {sizes[0]}, last {sizes[-1]}")
    warm, last = sizes[len(sizes) // 4 : len(sizes) // 2], sizes[-len(sizes) // 4 :]
    for one in ("descriptors", "segments", "folders"):
        before, after = (max(getattr(s, one) for s in part) for part in (warm, last))
        assert after <= before + CLIENTS, (one, before, after)
    for one in ("memory", "supervisor"):
        before, after = (median(getattr(s, one) for s in part) for part in (warm, last))
        assert after <= before * GROWTH_MAX, (one, before, after)
