"""The front end as the service holds it: started again when it dies, gone when the service is."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleets
import psutil
import pytest
from serving import Serving
from web import Web

from lockstep.engine.errors import UsageError
from lockstep.workers.service import front
from lockstep.workers.service.front import http_of

MODELS = """
[models.small]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
"""
TOKEN = "s3cret-word"
HOLDS = """
[fleet]
name = "holds"
[agents.hold]
module = "GUESTS/caller.wasm"
input = "broadcast"
tools = ["gate"]
[tools.gate]
command = ["sh", "-c", "until [ -e gate ]; do sleep 0.02; done; echo open"]
timeout_ms = 600_000
env = { PATH = "/usr/bin:/bin" }
"""
HELD = {"model": "fleet:holds", "messages": [{"role": "user", "content": "wait"}]}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    services: list[Serving] = []

    def one(*args: str, text: str = fleets.ECHO) -> Web:
        folder = tmp_path / str(len(services))
        folder.mkdir()
        services.append(service := Web(folder, *args, text=text))
        return service

    yield one
    for service in services:
        service.__exit__()


def test_a_killed_front_end_is_started_again_at_its_address(made: Any) -> None:
    web = made().start()
    before = web.front
    os.kill(before["pid"], signal.SIGKILL)
    # Whoever connects meanwhile waits: the listening socket is the service's.
    assert web.get("/healthz").status == 200
    after = web.front
    assert after["address"] == before["address"] and after["pid"] != before["pid"]
    assert after["restarts"] == 1
    assert "the HTTP front end ended (SIGKILL)" in web.log.read_text()


def test_a_killed_service_takes_its_front_end_along_and_comes_back_at_its_port(made: Any) -> None:
    web = made().start()
    address = web.front["address"]
    assert web.chat('{"id": "a"}', "fleet:echo").status == 200
    web.kill()
    web._args = ("--http", address.removeprefix("http://"))
    web.start()
    assert web.front["address"] == address
    again = web.chat('{"id": "a"}', "fleet:echo").json
    assert again["lockstep"]["run"] == "echo-1" and again["lockstep"]["item"] == 1


def test_a_token_is_asked_of_everybody_who_wants_more_than_to_look(
    made: Any, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o640)
    web = made("--http-token-file", str(file)).start()
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN},
                    {"Authorization": "Bearer "}, {"Authorization": f"Basic {TOKEN}"}):  # fmt: skip
        for path in ("/v1/models", "/metrics", "/nowhere"):
            refused = web.get(path, **headers)
            assert refused.status == 401 and refused.error["code"] == "invalid_api_key"
            assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert web.get("/v1/models", Authorization=f"Bearer {TOKEN}").status == 200
    assert "others on this machine can read the file" in web.log.read_text()
    assert web.get("/healthz").status == 200 == web.get("/readyz").status
    for process in psutil.process_iter(["cmdline"]):
        assert TOKEN not in " ".join(process.info["cmdline"] or [])


def hold(web: Web, **more: Any) -> http.client.HTTPConnection:
    """A request whose answer waits for the gate, once its item is taken."""
    connection, before = web.connection(), web.status()["accepted"]
    head = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps({**HELD, **more}), head)
    web.wait(lambda: web.status()["accepted"] > before)
    return connection


def test_a_service_that_is_stopped_answers_what_it_has_and_takes_nothing_new(made: Any) -> None:
    web = made("--stop-s", "200", text=HOLDS).start()
    first = hold(web)
    web.process.send_signal(signal.SIGTERM)
    web.wait(lambda: web.status()["state"] == "stopping")
    late = web.post("/v1/chat/completions", HELD)
    assert late.status == 503 and late.error["code"] == "stopping" and late.headers["Retry-After"]
    (web.folder / "gate").touch()
    answer = first.getresponse()
    assert json.loads(answer.read())["choices"][0]["message"]["content"] == "open\n"
    assert web.process.wait() == 0
    first.close()


def test_clients_that_wait_take_room_and_give_it_back_when_they_go(made: Any) -> None:
    web = made("--client-max", "1", text=HOLDS).start()
    for stream in (False, True):
        first = hold(web, stream=stream)
        busy = web.post("/v1/chat/completions", HELD)
        assert busy.status == 429 and busy.error["type"] == "rate_limit_error"
        assert int(busy.headers["Retry-After"]) >= 1 and int(busy.headers["Retry-After-Ms"]) > 0
        first.close()
        web.wait(lambda: web.status()["waiting"] == 0)
    output = (web.state / "runs" / "holds-1" / "output.jsonl").read_text()
    assert output.count("cancelled by its HTTP client, who has gone") == 2


def test_models_are_served_without_any_agent(made: Any) -> None:
    web = made(text=MODELS).start()
    assert [model["id"] for model in web.get("/v1/models").json["data"]] == ["small"]
    assert web.chat("say", max_tokens=3).status == 200
    failed = web.submit({"id": "x"}, wait=True)["answer"]
    assert failed == [{"id": "x", "error": "no agent of the fleet takes items"}]


def test_a_service_without_http_has_no_front_end_and_takes_no_calls(tmp_path: Path) -> None:
    with Serving(tmp_path, fleets.fleet(tmp_path, fleets.ECHO)).start() as service:
        assert service.status()["http"] is None
        refused = service.ask(do="call", model="m", request={"prompt": "x"})
        assert "without --http" in refused["error"]
        maps = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert "uvicorn" not in maps
        run = service.state / "runs" / "echo-1"
        assert "caller" not in (run / "fleet.toml").read_text()


def test_a_fleet_with_an_agent_of_that_name_is_refused(tmp_path: Path) -> None:
    text = fleets.ECHO.replace("[agents.echo]", "[agents.caller]")
    web = Web(tmp_path, text=text).begin()
    assert web.process.wait() == 2
    assert "[agents.caller] is what `lockstep serve --http` adds" in web.log.read_text()
    web.manager.close()


@pytest.mark.parametrize(
    "address", ["8000", "127.0.0.1", "127.0.0.1:x", ":8000", "h:70000", "h:" + "1" * 5000, ""]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        http_of(address, None, ())


def test_others_need_a_token(tmp_path: Path) -> None:
    for address in ("0.0.0.0:80", "[::]:80", "192.0.2.1:80", "example.org:80"):
        with pytest.raises(UsageError, match="needs --http-token-file"):
            http_of(address, None, ())
    for address in ("127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "localhost:0"):
        assert not http_of(address, None, ()).token
    file = tmp_path / "token"
    for text in ("", "two words", "\n", "é", "x" * 5000):
        file.write_text(text)
        with pytest.raises(UsageError, match="one word"):
            http_of("0.0.0.0:80", file, ())
    with pytest.raises(UsageError, match="No such file"):
        http_of("0.0.0.0:80", tmp_path / "none", ())
    file.write_text(TOKEN)
    file.chmod(0o644)
    http = http_of("0.0.0.0:80", file, ("Example.ORG",))
    assert http.exposed
    file.chmod(0o600)
    assert not http_of("0.0.0.0:80", file, ()).exposed
    assert http.token == TOKEN and http.hosts == ("example.org",) and TOKEN not in repr(http)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_name_that_is_none_is_refused(host: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    http = http_of(f"{host}:80", tmp_path / "token", ())
    with pytest.raises(UsageError, match="cannot listen"):
        front.Front(None, None, http, tmp_path)  # type: ignore[arg-type]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "NEEDED", ("starlette", "no_such_package"))
    with pytest.raises(UsageError, match=r"no_such_package.*lockstep-runtime\[http\]"):
        front.Front(None, None, http_of("127.0.0.1:0", None, ()), Path())  # type: ignore[arg-type]


def test_an_address_that_is_taken_is_refused_and_nothing_is_left(made: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = made("--http", f"127.0.0.1:{taken.getsockname()[1]}").begin()
        assert web.process.wait() == 2
    assert "cannot listen at" in web.log.read_text()
    assert not (web.state / "control.sock").exists()


def test_the_service_imports_nothing_of_the_front_end() -> None:
    code = (
        "import sys, lockstep.workers.service.daemon\n"
        "found = [name for name in ('starlette', 'uvicorn', 'asyncio', 'lockstep.workers.http') "
        "if name in sys.modules]\n"
        "assert not found, found"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
