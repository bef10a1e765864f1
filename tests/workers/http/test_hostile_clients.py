"""Clients that send nonsense, say little, or go away: they are told, and nothing is left of them.

10,000 cases: ``pytest -m nightly tests/workers/http/test_hostile_clients.py``; a case that fails is
named by its seed.
"""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fleets
import fuzzing
import pytest
import rawhttp
from crowd import HTTP, WEB, address_of, front_of
from serving import Serving

from lockstep.workers import verify
from lockstep.workers.export import export
from lockstep.workers.journal_view import frames

CASES, CASES_NIGHTLY = 300, 10_000
MEMORY_GROWTH_MAX = 1.5  # From the first part to the last: buffers are kept, requests are not.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all of these tests: what one client does to it, the next one would feel."""
    folder = tmp_path_factory.mktemp("web")
    with Serving(folder, fleets.fleet(folder, WEB), *HTTP).start() as made:
        yield made


@pytest.fixture
def address(service: Serving) -> str:
    return address_of(service)


def settled(service: Serving, descriptors: int) -> None:
    """Until nobody waits any more, and every connection is gone."""
    service.wait(lambda: service.status()["waiting"] == 0)
    service.wait(lambda: front_of(service).num_fds() <= descriptors)


def errors(address: str) -> Counter[str]:
    """What the front end counted, by status."""
    text = rawhttp.ask(address, rawhttp.request("/metrics", method="GET")).body.decode()
    found = re.findall(r'^lockstep_http_errors_total\{status="(\d+)"\} (\d+)', text, re.MULTILINE)
    return Counter({status: int(count) for status, count in found})


def good(service: Serving, address: str) -> None:
    """A call like any other is answered."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    reply = rawhttp.ask(address, rawhttp.request("/v1/chat/completions", json.dumps(body).encode()))
    assert reply.status == 200 and reply.json()["usage"]["completion_tokens"] == 2


def check(seed: int, address: str) -> str:
    """Send one case; what it came to."""
    case = fuzzing.case(seed, "tiny")
    try:
        reply = rawhttp.ask(address, case.data, case.ends)
    except TimeoutError:
        pytest.fail(f"seed {seed} ({case.name}): no answer")
    told = f"seed {seed} ({case.name}): {reply.status} {reply.body[:200]!r}"
    if reply.status == 0:
        assert case.ends, told
    elif reply.status == 200:
        assert case.good, told
    else:
        assert 400 <= reply.status < 500, told
        assert reply.json()["error"]["message"], told
    return f"{case.name} {reply.status}"


def fuzz(service: Serving, address: str, seeds: range) -> None:
    good(service, address)
    process = front_of(service)
    descriptors = process.num_fds()
    found: Counter[str] = Counter()
    memory = []
    for seed in seeds:
        found[check(seed, address)] += 1
        if seed % (len(seeds) // 4) == 0:
            memory.append(process.memory_info().rss)
    print(dict(sorted(found.items())), [size >> 20 for size in memory])
    settled(service, descriptors)
    assert front_of(service).pid == process.pid  # It was never brought back.
    assert memory[-1] <= memory[1] * MEMORY_GROWTH_MAX
    log = service.log.read_text()
    # Whoever sends nonsense cannot make us say so each time.
    assert " error: " not in log and log.count("HTTP: ") < len(seeds) // 10, log
    good(service, address)


def test_nonsense_is_refused_and_never_a_fault_of_ours(service: Serving, address: str) -> None:
    fuzz(service, address, range(CASES))


@pytest.mark.nightly
def test_ten_thousand_pieces_of_nonsense_are_refused(service: Serving, address: str) -> None:
    fuzz(service, address, range(CASES_NIGHTLY))


def stream(address: str, tokens: int) -> socket.socket:
    """A streamed call of which the first piece has come."""
    body = {"model": "tiny", "stream": True, "max_tokens": tokens, "seed": 1,
            "messages": [{"role": "user", "content": "tell me everything"}]}  # fmt: skip
    connection = rawhttp.connect(address)
    connection.sendall(rawhttp.request("/v1/chat/completions", json.dumps(body).encode()))
    heard = b""
    while heard.count(b"data: ") < 2:
        more = connection.recv(1 << 16)
        assert more, heard
        heard += more
    assert heard.startswith(b"HTTP/1.1 200"), heard
    return connection


def test_who_goes_away_is_not_worked_for_any_more(tmp_path: Path) -> None:
    body = {"model": "tiny", "max_tokens": 400, "messages": [{"role": "user", "content": "all"}]}
    data = rawhttp.request("/v1/chat/completions", json.dumps(body).encode())
    with Serving(tmp_path, fleets.fleet(tmp_path, WEB), *HTTP).start() as service:
        address = address_of(service)
        good(service, address)
        descriptors = front_of(service).num_fds()
        for _ in range(4):
            stream(address, 400).close()
        for accepted in range(6, 10):
            with rawhttp.connect(address) as connection:
                connection.sendall(data)
                service.wait(lambda n=accepted: service.status()["accepted"] == n)  # type: ignore[misc]
                if accepted % 2:  # It only says that it will say no more: so few mean to hear on.
                    connection.shutdown(socket.SHUT_WR)
                    assert rawhttp.hear(connection).status == 0
        settled(service, descriptors)
        good(service, address)
        assert service.drain() == 0
    run = service.state / "runs" / "web-1"
    events = (one for one in export(frames(run)) if one["kind"] == "OUTSIDE")
    whats = {one["event"]: one["what"] for one in events}  # Each is kept, and in history later.
    assert Counter(whats.values())["cancel_item"] == 8
    assert verify(run).equal


def slow_clients(address: str) -> list[socket.socket]:
    """They have sent nothing, half a line, half the headers, half a body."""
    data = rawhttp.request("/v1/chat/completions", b"x" * 1000)
    found = [rawhttp.connect(address) for _ in range(48)]
    for number, connection in enumerate(found):
        connection.sendall(data[: (0, 10, 60, len(data) - 500)[number % 4]])
    return found


def test_slow_clients_hold_nobody_up(service: Serving, address: str) -> None:
    good(service, address)
    descriptors = front_of(service).num_fds()
    slow = slow_clients(address)
    good(service, address)
    for connection in slow:
        connection.close()
    settled(service, descriptors)


@pytest.mark.nightly
def test_slow_clients_are_sent_away(service: Serving, address: str) -> None:
    good(service, address)
    descriptors = front_of(service).num_fds()
    for connection in slow_clients(address):
        assert rawhttp.hear(connection).status in (0, 400, 408)
        connection.close()
    settled(service, descriptors)


HOST = b"Host: localhost\r\n"
PAD = b"x" * 40_000
NONSENSE = {
    "no request": (b"hello\r\n\r\n", 400),
    "a handshake of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a header without a colon": (b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a chunk of no size": (
        b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n" + HOST + b"\r\nnone\r\n", 400,
    ),
    "a body without end": (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "a head without end": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + PAD, 431),
    "a large head": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + PAD + b"\r\n\r\n", 431),
    "a large target": (b"GET /" + PAD + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
}  # fmt: skip


@pytest.mark.parametrize("what", NONSENSE)
def test_what_is_no_request_is_refused_in_the_shape_of_every_refusal_and_counted(
    service: Serving, address: str, what: str
) -> None:
    data, status = NONSENSE[what]
    before = errors(address)
    reply = rawhttp.ask(address, data)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert errors(address) - before == {str(status): 1}
    good(service, address)
