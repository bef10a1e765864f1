"""The control socket as the front end sees it: what it is told is heard as what it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
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
    folder: Path, said: Iterator[Said | None], use: Callable[[Control], Awaitable[Any]]
) -> list[Said]:
    """What a service hears that says one after the other; None: it closes the connection."""
    heard: list[Said] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(connections)
        connections.append(writer)
        while line := await reader.readline():
            heard.append({**json.loads(line), "connection": number})
            one = next(said)
            if one is None:
                break
            writer.write(json.dumps(one).encode() + b"\n")
        writer.close()
        await writer.wait_closed()
        ended.append(number)

    async def run() -> None:
        asks = Control(folder / "s.sock")
        async with await asyncio.start_unix_server(answer, folder / "s.sock"):
            await use(asks)
            asks.close()
            while len(ended) < len(connections):
                await asyncio.sleep(0)

    connections: list[asyncio.StreamWriter] = []
    ended: list[int] = []
    asyncio.run(run())
    return heard


def test_a_crowd_that_looks_asks_the_service_once(tmp_path: Path) -> None:
    async def look(asks: Control) -> None:
        market = Market(asks)
        found = await asyncio.gather(*(market.status() for _ in range(50)))
        assert found == [{"state": "ready"}] * 50
        assert await market.status() == {"state": "ready"}  # Asked again: nothing of it is old.

    heard = told(tmp_path, repeat({"state": "ready"}), look)
    assert heard == [{"do": "status", "connection": 0}] * 2


def test_a_connection_serves_one_question_after_the_other(tmp_path: Path) -> None:
    async def ask(asks: Control) -> None:
        for _ in range(5):
            await asks.ask({"do": "status"})
        await asyncio.gather(*(asks.ask({"do": "status"}) for _ in range(3)))  # Each its own.

    heard = told(tmp_path, repeat({"state": "ready"}), ask)
    assert [one["connection"] for one in heard[:5]] == [0] * 5
    assert {one["connection"] for one in heard[5:]} == {0, 1, 2}


def test_who_leaves_before_the_answer_takes_the_connection_along(tmp_path: Path) -> None:
    async def leave(asks: Control) -> None:
        lines = asks.lines({"do": "call"})
        assert await anext(lines) == {"ids": [1]}
        await lines.aclose()
        assert await asks.ask({"do": "status"}) == {"state": "ready"}

    heard = told(tmp_path, iter([{"ids": [1]}, {"state": "ready"}]), leave)
    assert [one["connection"] for one in heard] == [0, 1]


@pytest.mark.parametrize("last", [{"error": "busy"}, None])
def test_a_connection_that_may_be_over_is_not_asked_again(
    tmp_path: Path, last: Said | None
) -> None:
    async def ask(asks: Control) -> None:
        for _ in range(2):
            with suppress(Problem):
                await asks.ask({"do": "status"})

    heard = told(tmp_path, iter([last, {"state": "ready"}]), ask)
    assert [one["connection"] for one in heard] == [0, 1]


def test_few_connections_are_kept_and_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "KEPT_MAX", 2)
    monkeypatch.setattr(control, "KEPT_S", 0.0)

    async def ask(asks: Control) -> None:
        for _ in range(2):
            await asyncio.gather(*(asks.ask({"do": "status"}) for _ in range(5)))
            assert len(asks._kept) <= 2
            while asks._kept:
                await asyncio.sleep(0)

    heard = [one["connection"] for one in told(tmp_path, repeat({"state": "ready"}), ask)]
    assert len(heard) == 10 and set(heard[:5]).isdisjoint(heard[5:])


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


def test_a_cancel_in_a_run_that_waits_for_a_person_is_asked_once(tmp_path: Path) -> None:
    stuck = {"error": "run web-1 does not go on: its model has changed", "code": "stuck"}
    assert len(told(tmp_path, repeat(stuck), lambda asks: asks.cancel("a"))) == 1
