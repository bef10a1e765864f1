"""Lines over a socket: bounded, in order, and no client can hurt another."""

from __future__ import annotations

import json
import math
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.workers.outside.line_buffer import TOO_LONG, LineBuffer
from lockstep.workers.outside.lines import (
    CLIENTS_MAX,
    UNSENT_BYTES_MAX,
    Answer,
    LineServer,
    ShortPath,
)

Serve = Callable[..., LineServer]


@given(st.binary(max_size=60).map(lambda b: b.replace(b"\0", b"\n")), st.integers(1, 7))
def test_lines_do_not_depend_on_how_their_bytes_come_in(data: bytes, size: int) -> None:
    def cut(parts: list[bytes]) -> list[bytes | object]:
        buffer, found = LineBuffer(10), []
        for part in parts:
            buffer.feed(part)
            while (line := buffer.next()) is not None:
                found.append(line)
        rest = buffer.rest()
        return found if rest is None else [*found, rest]

    whole = cut([data])
    assert cut([data[n : n + size] for n in range(0, len(data), size)]) == whole
    expected = data.split(b"\n")
    expected = expected if expected[-1] else expected[:-1]
    assert whole == [TOO_LONG if len(line) > 10 else line for line in expected]


@pytest.fixture
def serve(intake: Any, tmp_path: Path) -> Iterator[Serve]:
    made: list[LineServer] = []

    def make(on_line: Any, **more: Any) -> LineServer:
        bound = more.pop("line_bytes_max", 100)
        made.append(LineServer(intake.loop, tmp_path, "s.sock", bound, on_line, **more))
        return made[-1]

    yield make
    for server in made:
        server.close()


def echo(line: bytes, answer: Answer) -> None:
    answer.give({"heard": line.decode()})


def connect(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    with ShortPath(folder, "s.sock") as path:
        client.connect(path)
    return client


def answers(intake: Any, client: socket.socket, count: int) -> list[Any]:
    """The next answers of a client."""
    client.setblocking(False)
    data = b""

    def read() -> bool:
        nonlocal data
        try:
            data += client.recv(65536)
        except BlockingIOError:
            pass
        return data.count(b"\n") >= count

    intake.until(read)
    return [json.loads(line) for line in data.splitlines()]


def test_each_line_is_answered_in_order(intake: Any, serve: Serve, tmp_path: Path) -> None:
    later: list[Answer] = []

    def on_line(line: bytes, answer: Answer) -> None:
        echo(line, answer) if line != b"wait" else later.append(answer)

    serve(on_line)
    with connect(tmp_path) as client:
        client.sendall(b"a\nwait\nb\n" + b"x" * 101 + b"\nc\n")
        assert answers(intake, client, 1) == [{"heard": "a"}]
        later[0].give({"heard": "at last"})
        assert answers(intake, client, 4) == [
            {"heard": "at last"},
            {"heard": "b"},
            {"error": "a line of more than 100 bytes"},
            {"heard": "c"},
        ]


def test_a_client_that_has_said_all_gets_its_answers_and_a_vanished_one_costs_nothing(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    waiting: list[Answer] = []
    server = serve(lambda line, answer: waiting.append(answer))
    with connect(tmp_path) as polite, connect(tmp_path) as rude:
        polite.sendall(b"1\n2\nnot a whole line")
        polite.shutdown(socket.SHUT_WR)
        rude.sendall(b"3\n")
        intake.until(lambda: len(waiting) == 3)
        rude.close()
        for answer in waiting:
            answer.give({"ok": True})
        assert answers(intake, polite, 2) == [{"ok": True}] * 2
        intake.until(lambda: not server.clients)


def test_who_has_hung_up_is_let_go_of_while_its_answer_is_owed(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    waiting: list[Answer] = []
    server = serve(lambda line, answer: waiting.append(answer))
    with connect(tmp_path) as half, connect(tmp_path) as gone, connect(tmp_path) as late:
        half.sendall(b"1\n")
        half.shutdown(socket.SHUT_WR)  # It hears on.
        gone.sendall(b"2\n")
        gone.close()
        late.sendall(b"3\n")
        late.shutdown(socket.SHUT_WR)
        intake.until(lambda: len(waiting) == 3 and len(server.clients) == 2)
        late.close()
        intake.until(lambda: len(server.clients) == 1)
        assert [answer.vain for answer in waiting] == [False, True, True]
        for answer in waiting:
            answer.give({"ok": True})
        assert answers(intake, half, 1) == [{"ok": True}]
        intake.until(lambda: not server.clients)


def test_a_client_that_does_not_read_is_not_read(intake: Any, serve: Serve, tmp_path: Path) -> None:
    heard: list[bytes] = []

    def on_line(line: bytes, answer: Answer) -> None:
        heard.append(line)
        answer.give({"text": "x" * 1000})

    serve(on_line)
    with connect(tmp_path) as deaf, connect(tmp_path) as other:
        deaf.setblocking(False)
        sent = 0

        def push() -> bool:
            nonlocal sent
            try:
                sent += deaf.send(b"a\n" * 1000)
            except BlockingIOError:
                return True
            return False

        intake.until(push)
        other.sendall(b"b\n")
        assert len(answers(intake, other, 1)) == 1
        room = UNSENT_BYTES_MAX + 2 * deaf.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert len(heard) * 1000 < room + 1_000_000 < sent * 1000
        deaf.setblocking(False)
        got = 0

        def pull() -> bool:
            nonlocal got
            try:
                got += deaf.recv(1 << 20).count(b"\n")
            except BlockingIOError:
                pass
            return got == sent // 2

        intake.until(pull)  # And then it is read again, to its last line.


def test_nothing_is_read_while_there_is_no_room(intake: Any, serve: Serve, tmp_path: Path) -> None:
    room = [2]
    heard: list[bytes] = []

    def on_line(line: bytes, answer: Answer) -> None:
        room[0] -= 1
        heard.append(line)
        answer.give({})

    server = serve(on_line, may_read=lambda: room[0] > 0)
    with connect(tmp_path) as client:
        client.sendall(b"1\n2\n3\n4\n5\n")
        intake.until(lambda: len(heard) == 2)
        room[0] = 2
        server.resume()
        assert heard == [b"1", b"2", b"3", b"4"]
        client.close()  # Its last line was sent: it counts.
        room[0] = 2
        server.resume()
        intake.until(lambda: not server.clients)
        assert heard[-1] == b"5"


def test_lines_of_one_who_has_hung_up_wait_for_room(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    room = [True]
    waiting: list[Answer] = []

    def on_line(line: bytes, answer: Answer) -> None:
        room[0] = False
        waiting.append(answer)

    server = serve(on_line, may_read=lambda: room[0])
    with connect(tmp_path) as client:
        client.sendall(b"1\n2\n")
    intake.until(lambda: len(waiting) == 1)
    intake.loop.turn(0.01)
    room[0] = True
    server.resume()
    assert len(waiting) == 2
    room[0] = True
    server.resume()
    intake.until(lambda: not server.clients)


def test_clients_are_bounded(intake: Any, serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    clients = [connect(tmp_path) for _ in range(CLIENTS_MAX)]
    intake.until(lambda: len(server.clients) == CLIENTS_MAX)
    with connect(tmp_path) as more:
        said = answers(intake, more, 1)
        assert said == [{"error": f"{CLIENTS_MAX} clients are connected already"}]
    clients[0].close()
    intake.until(lambda: len(server.clients) < CLIENTS_MAX)
    with connect(tmp_path) as again:
        again.sendall(b"x\n")
        assert answers(intake, again, 1) == [{"heard": "x"}]
    for client in clients:
        client.close()


def test_lines_that_came_all_at_once_are_all_answered_however_late(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    waiting: list[Answer] = []
    serve(lambda line, answer: waiting.append(answer))
    with connect(tmp_path) as client:
        client.sendall(b"\n" * 5000)
        client.setblocking(False)
        heard = 0

        def answer() -> bool:
            nonlocal heard
            while waiting:
                waiting.pop(0).give({})
            try:
                heard += client.recv(65536).count(b"\n")
            except BlockingIOError:
                pass
            return heard == 5000

        intake.until(answer)


def test_a_silent_client_is_sent_away_where_that_is_asked_for(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    server = serve(echo, idle_s=0.05)
    with connect(tmp_path) as client:
        intake.until(lambda: bool(server.clients))
        intake.until(lambda: not server.clients)
        client.setblocking(True)
        assert client.recv(1) == b""


def test_who_waited_for_its_answer_was_not_silent(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    asked: list[Answer] = []
    server = serve(lambda _, answer: asked.append(answer), idle_s=1000.0)
    with connect(tmp_path) as client:
        client.sendall(b"x\n")
        intake.until(lambda: bool(asked))
        (ours,) = server.clients.values()
        ours._heard_s = -math.inf
        asked[0].give(b"y" * 10_000_000)
        ours._idle()
        assert server.clients
        ours._heard_s = -math.inf
        left = len(ours._unsent)
        assert client.recv(1 << 20)
        intake.until(lambda: len(ours._unsent) < left)
        ours._idle()  # It takes its answer.
        assert server.clients
        ours._heard_s = -math.inf
        ours._idle()  # It does no more.
        assert not server.clients


def test_only_its_owner_may_open_the_socket_and_its_path_may_be_long(
    intake: Any, tmp_path: Path
) -> None:
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    folder.mkdir(parents=True)
    before = os.umask(0)
    try:
        server = LineServer(intake.loop, folder, "s.sock", 100, echo)
    finally:
        assert os.umask(before) == 0
    assert stat.S_IMODE((folder / "s.sock").stat().st_mode) == 0o600
    with connect(folder) as client:
        client.sendall(b"x\n")
        assert answers(intake, client, 1) == [{"heard": "x"}]
    with pytest.raises(OSError, match="in use"):
        LineServer(intake.loop, folder, "s.sock", 100, echo)
    server.close()
    assert not (folder / "s.sock").exists()


def test_a_server_does_not_take_away_the_name_of_the_one_that_followed_it(
    serve: Serve, tmp_path: Path
) -> None:
    first = serve(echo)
    (tmp_path / "s.sock").rename(tmp_path / "old.sock")  # A person's hands.
    serve(echo)
    first.close()
    connect(tmp_path).close()


def test_who_waits_for_an_answer_gets_it_when_the_server_finishes(
    intake: Any, serve: Serve, tmp_path: Path
) -> None:
    waiting: list[Answer] = []
    server = serve(lambda line, answer: waiting.append(answer))
    with connect(tmp_path) as client:
        client.sendall(b"1\n")
        intake.until(lambda: bool(waiting))
        server.finish()
        client.sendall(b"2\n")
        waiting[0].give({"ok": True})
        assert answers(intake, client, 1) == [{"ok": True}]
        intake.until(lambda: not server.clients)
    assert len(waiting) == 1
