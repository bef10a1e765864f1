"""The control socket as the front end sees it: what it is told is heard as what it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.http.control import Control
from lockstep.workers.http.offered import Market
from lockstep.workers.http.problems import Problem

Said = dict[str, Any]


def told(folder: Path, said: Said, use: Callable[[Control], Awaitable[Any]]) -> list[Said]:
    """What a service hears that answers everything alike."""
    heard: list[Said] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(json.loads(await reader.readline()))
        writer.write(json.dumps(said).encode() + b"\n")
        writer.close()

    async def run() -> None:
        async with await asyncio.start_unix_server(answer, folder / "s.sock"):
            await use(Control(folder / "s.sock"))

    asyncio.run(run())
    return heard


def test_a_crowd_that_looks_asks_the_service_once(tmp_path: Path) -> None:
    async def look(control: Control) -> None:
        market = Market(control)
        found = await asyncio.gather(*(market.status() for _ in range(50)))
        assert found == [{"state": "ready"}] * 50
        assert await market.status() == {"state": "ready"}  # Asked again: nothing of it is old.

    assert told(tmp_path, {"state": "ready"}, look) == [{"do": "status"}] * 2


def test_a_refusal_is_no_status(tmp_path: Path) -> None:
    async def look(control: Control) -> None:
        with pytest.raises(Problem, match="256 clients") as found:
            await Market(control).status()
        assert found.value.status == 503

    told(tmp_path, {"error": "256 clients are connected already"}, look)
