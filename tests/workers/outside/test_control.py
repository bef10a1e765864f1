"""The control socket: what a person asks for comes in as an outside event, or is refused."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.items import InputItem
from lockstep.engine.outside import What
from lockstep.workers.folder import CONTROL
from lockstep.workers.outside.control import LINE_BYTES_MAX, Control
from lockstep.workers.outside.ids import IdUnknown, ItemIds

ITEMS = [InputItem(id, b"") for id in ("a", 7, "7", 8, "finished")]


class State:
    """Item 5 is finished, ticket 3 waits."""

    def item_open(self, number: int) -> bool:
        return number != 5

    def ticket_open(self, number: int) -> bool:
        return number == 3


@pytest.fixture
def closed() -> list[str]:
    """Sources that were closed."""
    return []


@pytest.fixture
def folder(intake: Any, tmp_path: Path, closed: list[str]) -> Iterator[Path]:
    def close(name: str, told: Any) -> None:
        if name != "chat":
            raise ValueError(f"no source {name!r}")
        closed.append(name)
        intake.gate.bring(What.CLOSED, 0, told=told)

    control = Control(intake.loop, intake.gate, tmp_path, ItemIds(ITEMS), State(), close)
    yield tmp_path
    control.close()
    assert not (tmp_path / CONTROL).exists()


def ask(intake: Any, folder: Path, *requests: Any) -> list[Any]:
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in requests]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / CONTROL))
        client.sendall(b"\n".join(lines) + b"\n")
        client.shutdown(socket.SHUT_WR)
        client.setblocking(False)
        heard = [b""]

        def read() -> bool:
            try:
                heard.append(client.recv(65536))
            except BlockingIOError:
                return False
            return not heard[-1]

        intake.until(read)
    return [json.loads(line) for line in b"".join(heard).splitlines()]


def test_a_cancel_comes_in_as_an_outside_event_and_is_answered_with_its_tag(
    intake: Any, folder: Path, closed: list[str]
) -> None:
    answers = ask(
        intake,
        folder,
        {"do": "cancel", "item": "a", "by": "ann\x1b[31m"},
        {"do": "cancel", "ticket": 3},
        {"do": "cancel", "source": "chat"},
        {"do": "cancel"},
    )
    assert answers == [
        {"ok": True, "event": n, "tag": f"{10 * n}.0"} for n in (1, 2, 3, 4)
    ]  # fmt: skip
    assert intake.seen() == [
        (What.CANCEL_ITEM, 1, b"cancelled by ann[31m"),
        (What.CANCEL_REQUEST, 3, b"cancelled by a person"),
        (What.CLOSED, 0, b""),
        (What.CANCEL_RUN, 0, b"cancelled by a person"),
    ]
    assert closed == ["chat"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"no json", "Expecting value"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "expected a JSON object"),
        (b"{}", "do is 'None'; known: cancel"),
        (b"x" * (LINE_BYTES_MAX + 1), f"a line of more than {LINE_BYTES_MAX} bytes"),
        (b"[" * LINE_BYTES_MAX, "nested deeper"),
        ({"do": "cancle"}, "did you mean 'cancel'?"),
        ({"do": "cancel", "itme": "a"}, "unknown key 'itme'; did you mean 'item'?"),
        ({"do": "cancel", "item": "a", "ticket": 3}, "item and ticket: expected one"),
        ({"do": "cancel", "item": None}, "item is 'None', expected a string or a whole number"),
        ({"do": "cancel", "item": True}, "item is 'True'"),
        ({"do": "cancel", "ticket": "3"}, "ticket is '3', expected a whole number"),
        ({"do": "cancel", "by": 5}, "by is '5', expected a string"),
        ({"do": "cancel", "item": "b"}, 'no item has the id "b"'),
        ({"do": "cancel", "item": "finished"}, "item finished is finished already"),
        ({"do": "cancel", "item": "7.0"}, 'no item has the id "7.0"'),
        ({"do": "cancel", "ticket": 4}, "no request waits under ticket 4"),
        ({"do": "cancel", "source": "x"}, "no source 'x'"),
    ],
)
def test_what_is_no_command_changes_nothing_and_is_told(
    intake: Any, folder: Path, request_: Any, words: str
) -> None:
    (answer,) = ask(intake, folder, request_)
    assert words in answer["error"]
    assert intake.events == []


def test_who_asks_after_the_end_is_told(intake: Any, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / CONTROL))
        client.sendall(b'{"do": "cancel"}\n')
        intake.loop.turn()
        intake.loop.turn()
        assert len(intake.events) == 1
        intake.gate.close()
        assert client.recv(1000) == b'{"error": "the run has ended"}\n'


def test_ids_are_found_as_a_person_types_them() -> None:
    ids = ItemIds(ITEMS)
    assert [ids.find(id) for id in ("a", 7, "8", 8, "finished")] == [1, 2, 4, 4, 5]
    with pytest.raises(IdUnknown, match="item 2 has the number as its id, item 3 the text"):
        ids.find("7")
    for unknown in ("", "-1", "9", 9, "9" * 5000, "\u0667"):
        with pytest.raises(IdUnknown, match="no item has the id"):
            ids.find(unknown)


def test_an_item_without_an_id_has_its_number() -> None:
    ids = ItemIds(ITEMS)
    assert ids.add(b'{"x": 1}', 100) == 6
    assert ids.find("6") == ids.find(6) == 6
    with pytest.raises(ValueError, match="id 6 is that of item 6 already"):
        ids.add(b'{"id": 6}', 100)
    assert ids.add(b'{"id": 1000}', 100) == 7 == len(ids)


def test_another_users_process_is_not_heard(intake: Any, folder: Path) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    reading, writing = os.pipe()
    folder.chmod(0o711)
    (folder / CONTROL).chmod(0o666)
    child = os.fork()
    if not child:
        try:
            os.chdir(folder)
            os.setuid(65534)
            client = socket.socket(socket.AF_UNIX)
            client.connect(CONTROL)
            client.settimeout(120)
            os.write(writing, client.recv(1000))
        finally:
            os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    heard = [b""]

    def read() -> bool:
        try:
            heard.append(os.read(reading, 1000))
        except BlockingIOError:
            return False
        return True

    intake.until(read)
    os.close(reading)
    os.waitpid(child, 0)
    assert b"another user" in heard[-1]
