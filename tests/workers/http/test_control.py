"""The control socket as the front end sees it: what it is told is heard as what it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.http import control
from lockstep.workers.http.control import Control
from lockstep.workers.http.offered import Market
from lockstep.workers.http.problems import Problem

Said = dict[str, Any]


def told(
    folder: Path, said: Iterator[Said], use: Callable[[Control], Awaitable[Any]]
) -> list[Said]:
    """What a service hears that says one after the other."""
    heard: list[Said] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(json.loads(await reader.readline()))
        writer.write(json.dumps(next(said)).encode() + b"\n")
        writer.close()

    async def run() -> None:
        async with await asyncio.start_unix_server(answer, folder / "s.sock"):
            await use(Control(folder / "s.sock"))

    asyncio.run(run())
    return heard


def test_a_crowd_that_looks_asks_the_service_once(tmp_path: Path) -> None:
    async def look(asks: Control) -> None:
        market = Market(asks)
        found = await asyncio.gather(*(market.status() for _ in range(50)))
        assert found == [{"state": "ready"}] * 50
        assert await market.status() == {"state": "ready"}  # Asked again: nothing of it is old.

    assert told(tmp_path, repeat({"state": "ready"}), look) == [{"do": "status"}] * 2


def test_a_refusal_is_no_status(tmp_path: Path) -> None:
    async def look(asks: Control) -> None:
        with pytest.raises(Problem, match="256 clients") as found:
            await Market(asks).status()
        assert found.value.status == 503

    told(tmp_path, repeat({"error": "256 clients are connected already"}), look)


def test_a_cancel_is_asked_again_for_as_long_as_it_is_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LATER_S", 0.0)
    later = {"error": "the run is being brought back", "code": "later"}
    said = iter([*[later] * 50, {"ok": True}])
    heard = told(tmp_path, said, lambda asks: asks.cancel("a"))
    assert len(heard) == 51 and {one["item"] for one in heard} == {"a"}
