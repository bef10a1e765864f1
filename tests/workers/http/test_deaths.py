"""Whatever dies under a load of calls: nothing accepted is lost, nothing is answered twice.

A call that broke is asked again under its Idempotency-Key until it is answered: the answers to one
key are one answer. ``pytest -m nightly tests/workers/http/test_deaths.py`` does more of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fleets
import pytest
import rawhttp
from crowd import WEB, address_of
from serving import POLL_S, Serving

from lockstep.engine.errors import UsageError
from lockstep.workers import replay, verify
from lockstep.workers.export import export
from lockstep.workers.journal_view import frames

CLIENTS = 4
KINDS = ("service", "front", "supervisor", "inference")


def call(address: str, key: str) -> Any:
    """The answer to a call; None: it broke, or the service is being brought back."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"say {key}"}],
            "max_tokens": 6, "temperature": 0.9, "seed": 5}  # fmt: skip
    data = rawhttp.request("/v1/chat/completions", json.dumps(body).encode(), idempotency_key=key)
    try:
        reply = rawhttp.ask(address, data)
    except OSError:
        return None  # Nobody listens.
    if reply.status in (0, 429, 503):
        return None
    assert reply.status == 200, (key, reply)
    return reply.json()["choices"]


class Load:
    """Clients that ask until everything is answered."""

    def __init__(self, address: str, calls: int) -> None:
        self._address = address
        self._keys = iter([f"q{number}" for number in range(calls)])
        self._calls = calls
        self.answers: dict[str, Any] = {}
        self.broken: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def until(self, answered: int) -> None:
        while len(self.answers) < min(answered, self._calls) and not self.broken:
            time.sleep(POLL_S)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self.broken:
            raise self.broken[0]

    def _run(self) -> None:
        try:
            for key in self._keys:
                while (answer := call(self._address, key)) is None:
                    time.sleep(POLL_S)
                self.answers[key] = answer
        except BaseException as error:
            self.broken.append(error)


def victim(service: Serving, kind: str) -> int | None:
    """Who is there to be killed."""
    if kind == "service":
        return service.process.pid
    status = service.status()
    if kind == "front":
        return int(status["http"]["pid"] or 0) or None
    pids = [run["pid"] for run in status["runs"] if run["state"] == "live"]
    if kind == "supervisor" or not pids:
        return int(pids[0]) if pids else None
    with suppress(OSError, ValueError):
        return fleets.board_of(service.state / "current").engine.pid or None
    return None


def kill(service: Serving, kind: str) -> bool:
    """Kill one; the service is started again at once."""
    pid = victim(service, kind)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if kind == "service":
        service.process.wait()
        service.start()
    return True


def deaths(folder: Path, calls: int, kinds: Callable[[int], str], count: int, *args: str) -> None:
    """A load, and so many deaths in it."""
    fleet = fleets.fleet(folder, WEB)
    died: Counter[str] = Counter()
    with (
        _port() as port,
        Serving(folder, fleet, "--http", f"127.0.0.1:{port}", *args).start() as service,
    ):
        load = Load(address_of(service), calls)
        for number in range(count):
            load.until((number + 1) * calls // (count + 1))
            while not load.broken:
                with suppress(UsageError):  # The run, or the service, is being brought back.
                    if kill(service, kind := kinds(number)):
                        died[kind] += 1
                        break
        load.join()
        for key, answer in list(load.answers.items()):
            while (again := call(address_of(service), key)) is None:
                time.sleep(POLL_S)
            assert again == answer
        assert service.drain() == 0
    assert set(died) == set(KINDS), died
    asked = 0
    for run in sorted((service.state / "runs").iterdir()):
        asked += _check(run)
    assert asked == calls  # None is there twice, in whatever run.


def _check(run: Path) -> int:
    """A run is whole, and what it says comes out again; how many calls it had."""
    found = (one for one in export(frames(run)) if one["kind"] == "OUTSIDE")
    events = {one["event"]: one for one in found}.values()  # Each is kept, and in history later.
    ids = [one["payload"]["id"] for one in events if one["what"] == "call"]
    said = [json.loads(line)["id"] for line in (run / "output.jsonl").read_text().splitlines()]
    assert said == ids and len(dict.fromkeys(ids)) == len(ids)
    assert not any(one["what"].startswith("cancel") for one in events)
    assert verify(run).equal
    assert replay(run).digest == json.loads((run / "summary.json").read_text())["digest"]
    return len(ids)


@contextmanager
def _port() -> Iterator[int]:
    """One for all lives of the service: bound here, so that nobody else is given it."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # The service may listen there.
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def test_every_call_is_answered_once_whoever_dies(tmp_path: Path) -> None:
    deaths(tmp_path, 24, lambda number: KINDS[number], len(KINDS))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_every_call_is_answered_once_however_often_whoever_dies(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    deaths(tmp_path, 240, lambda _: draw.choice(KINDS), 24, "--run-items-max", "90")
