"""Connections of the front end's process, and what it says when it is at fault itself."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lockstep.workers.http import process
from lockstep.workers.http.app import Served
from lockstep.workers.http.control import Control
from lockstep.workers.http.guard import Guard

BODY = b"x" * 8_000_000  # More than a kernel keeps for somebody.


async def large(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": BODY})


def test_who_reads_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SEND_S", 0.05)

    async def run() -> None:
        config = uvicorn.Config(large, http=process.Protocol, log_config=None, lifespan="off")
        config.load()
        state = uvicorn.server.ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: process.Protocol(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while not state.total_requests:
                    await asyncio.sleep(0)
                while state.connections:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_fault_of_ours_has_the_shape_of_every_refusal(tmp_path: Path) -> None:
    class Faulty(Control):
        async def status(self) -> dict[str, Any]:
            raise ZeroDivisionError("ours")

    said: list[Any] = []
    told: list[str] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/readyz", "query_string": b"",
             "headers": [(b"host", b"localhost")]}  # fmt: skip
    served = Served(Faulty(tmp_path / "none"), Guard("", []), told.append)
    asyncio.run(served(scope, receive, send))
    assert said[0]["status"] == 500
    assert json.loads(said[1]["body"])["error"]["type"] == "server_error"
    (line,) = told
    assert "GET /readyz" in line and "ZeroDivisionError" in line
