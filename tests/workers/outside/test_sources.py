"""Sources: what comes from standard input, sockets and clocks, checked and bounded."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.items import InputItem
from lockstep.engine.outside import What
from lockstep.engine.record import Kind, encode
from lockstep.workers.outside.feed import WAITING_MAX
from lockstep.workers.outside.ids import ItemIds
from lockstep.workers.outside.lines import ShortPath
from lockstep.workers.outside.sources import Sources, check_sources
from lockstep.workers.outside.stdin import NOTES_MAX

AGENTS = """
[fleet]
record_bytes_max = 1024
[agents.a]
module = "a.wasm"
input = "deal"
[agents.b]
module = "b.wasm"
replicas = 2
"""
STDIN = '[sources.lines]\nkind = "stdin"\n'
EVENTS = STDIN + 'to = ["b"]\n'
SOCKET = '[sources.chat]\nkind = "socket"\n'
CLOSED = (What.CLOSED, 0, b"")


@dataclass
class Admission:
    """Items that have entered."""

    admitted: int = 0


class Made:
    """Sources of a fleet, and what they noted."""

    def __init__(self, intake: Any, folder: Path, text: str, stdin: int = -1) -> None:
        self.admission = Admission()
        self.notes: list[str] = []
        self.fleet = fleet(text)
        self.sources = Sources(
            intake.loop,
            intake.gate,
            self.fleet,
            folder,
            stdin,
            ItemIds([InputItem("first", b"")]),
            self.admission,
            self.notes.append,
        )


Make = Callable[..., Made]


def fleet(text: str) -> Fleet:
    return parse((AGENTS + text).encode(), "fleet.toml")


@pytest.fixture
def make(intake: Any, tmp_path: Path) -> Iterator[Make]:
    made: list[Made] = []

    def one(text: str, stdin: int = -1) -> Made:
        made.append(Made(intake, tmp_path, text, stdin))
        return made[-1]

    yield one
    for each in made:
        each.sources.close()


def item(n: int) -> bytes:
    return b'{"id": %d}' % n


def until_closed(intake: Any) -> None:
    intake.until(lambda: CLOSED in intake.seen())


# -- standard input --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_lines_of_standard_input_are_items_until_its_end(
    intake: Any, make: Make, tmp_path: Path, kind: str
) -> None:
    data = b'{"id": "a"}\r\n\n  {"id": 2}  \n{"n": 1}'
    if kind == "pipe":
        reading, writing = os.pipe()
    elif kind == "socket":
        pair = socket.socketpair()
        reading, writing = (one.detach() for one in pair)
    else:
        (tmp_path / "in").write_bytes(data)
        reading, writing = os.open(tmp_path / "in", os.O_RDONLY), -1
    if writing >= 0:
        os.write(writing, data)
        os.close(writing)
    made = make(STDIN, reading)
    until_closed(intake)
    lines = [b'{"id": "a"}', b'{"id": 2}', b'{"n": 1}']
    assert intake.seen() == [*((What.ITEM, 0, line) for line in lines), CLOSED]
    assert made.notes == [] and made.sources.refused == 0
    with pytest.raises(OSError):
        os.fstat(reading)


def test_a_run_that_was_given_no_standard_input_has_come_to_its_end(
    intake: Any, make: Make
) -> None:
    make(STDIN)
    assert intake.seen() == [CLOSED]


def test_the_null_device_is_at_its_end(intake: Any, make: Make) -> None:
    make(STDIN, os.open(os.devnull, os.O_RDONLY))
    until_closed(intake)
    assert intake.seen() == [CLOSED]


def test_whoever_shares_the_descriptor_keeps_its_flags(intake: Any, make: Make) -> None:
    reading, writing = os.pipe()
    shared = os.dup(reading)
    make(STDIN, reading)
    assert os.get_blocking(shared)
    os.close(shared)
    os.close(writing)
    until_closed(intake)


def test_a_file_is_read_from_where_its_descriptor_stands(
    intake: Any, make: Make, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"no item\n" + item(1))
    reading = os.open(tmp_path / "in", os.O_RDONLY)
    os.read(reading, 8)
    make(STDIN, reading)
    until_closed(intake)
    assert intake.seen() == [(What.ITEM, 0, item(1)), CLOSED]


def test_a_line_that_is_no_item_is_refused_told_and_counted(intake: Any, make: Make) -> None:
    reading, writing = os.pipe()
    bad = [b"[1]", b"{", b'{"id": "first"}', b'{"id": true}', b'{"id": 2}', b"x" * 993]
    os.write(writing, b"\n".join([*bad, item(7)]))
    os.close(writing)
    made = make(STDIN, reading)
    until_closed(intake)
    # The fifth is the second item: without an id of its own it would be 2, too.
    assert [line for _, _, line in intake.seen()] == [b'{"id": 2}', item(7), b""]
    assert made.sources.refused == 5
    expected = ["found b'[1]'", "not valid JSON", "'first' is that of item 1", "id is True",
                "a line of more than 992 bytes"]  # fmt: skip
    for number, note, words in zip((1, 2, 3, 4, 6), made.notes, expected, strict=True):
        assert note.startswith(f"[sources.lines] standard input:{number}: ") and words in note
        assert note.endswith("the line is refused")


def test_many_refused_lines_are_counted_and_the_first_are_told(intake: Any, make: Make) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"?\n" * 100)
    os.close(writing)
    made = make(STDIN, reading)
    until_closed(intake)
    assert (made.sources.refused, len(made.notes)) == (100, NOTES_MAX)


def test_lines_for_agents_are_taken_as_they_are(intake: Any, make: Make) -> None:
    reading, writing = os.pipe()
    os.write(writing, b" hello \n\n\xff{\nend")
    os.close(writing)
    make(EVENTS, reading)
    until_closed(intake)
    lines = [b" hello ", b"", b"\xff{", b"end"]
    assert intake.seen() == [*((What.EVENT, 0, line) for line in lines), CLOSED]


def test_items_that_wait_for_admission_stop_the_reading(intake: Any, make: Make) -> None:
    reading, writing = os.pipe()
    made = make(STDIN, reading)
    os.write(writing, b"\n".join(item(n) for n in range(WAITING_MAX + 10)) + b"\n")
    intake.until(lambda: len(intake.events) >= WAITING_MAX)
    for admitted in (0, 1):  # The item of the input file does not count.
        made.admission.admitted = admitted
        intake.loop.turn(0.01)
        made.sources.resume()
        assert len(intake.events) == WAITING_MAX
    made.admission.admitted = 6
    made.sources.resume()
    assert len(intake.events) == WAITING_MAX + 5
    made.admission.admitted = WAITING_MAX
    os.close(writing)
    intake.until(lambda: (made.sources.resume(), CLOSED in intake.seen())[1])
    assert len(intake.events) == WAITING_MAX + 10 + 1


def test_events_that_an_agent_was_not_woken_with_stop_the_reading(intake: Any, make: Make) -> None:
    reading, writing = os.pipe()
    made = make(EVENTS, reading)
    os.write(writing, b"x\n" * (WAITING_MAX + 50))
    intake.until(lambda: len(intake.events) >= WAITING_MAX)
    event = encode(Kind.EVENT, b"x", id=1, peer=0)
    other = encode(Kind.MESSAGE, b"x", id=1, peer=0)
    made.sources.woken(1, (event + other) * 20)
    made.sources.woken(0, event)  # Not one of them.
    made.sources.resume()
    assert len(intake.events) == WAITING_MAX  # The slowest counts: agent 2 has taken none.
    made.sources.woken(2, event * 10)
    made.sources.resume()
    assert len(intake.events) == WAITING_MAX + 10
    made.sources.lost(2)
    made.sources.resume()
    assert len(intake.events) == WAITING_MAX + 20
    os.close(writing)


# -- sockets ---------------------------------------------------------------------------------


def say(intake: Any, made: Made, folder: Path, lines: bytes) -> list[Any]:
    """What a client hears that says so much and has said all."""
    with socket.socket(socket.AF_UNIX) as client:
        with ShortPath(folder, "chat.sock") as path:
            client.connect(path)
        client.sendall(lines)
        client.shutdown(socket.SHUT_WR)
        client.setblocking(False)
        heard = [b""]

        def read() -> bool:
            made.sources.resume()
            try:
                part = client.recv(65536)
            except BlockingIOError:
                return False
            heard.append(part)
            return not part

        intake.until(read)
    return [json.loads(line) for line in b"".join(heard).splitlines()]


def test_a_client_hears_number_and_tag_of_its_event_or_why_it_is_none(
    intake: Any, make: Make, tmp_path: Path
) -> None:
    made = make(SOCKET)
    first, empty, bad, last = say(intake, made, tmp_path, item(1) + b"\n\n[]\n" + item(2) + b"\n")
    assert first == {"ok": True, "event": 1, "tag": "10.0"}
    assert last == {"ok": True, "event": 2, "tag": "20.0"}
    assert "an empty line" in empty["error"] and "expected a JSON object" in bad["error"]
    assert intake.seen() == [(What.ITEM, 0, item(1)), (What.ITEM, 0, item(2))]
    assert made.notes == [] and made.sources.refused == 0


def test_two_sources_share_the_ids_of_items(intake: Any, make: Make, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, item(9) + b"\n")
    os.close(writing)
    made = make(STDIN + SOCKET, reading)
    until_closed(intake)
    (said,) = say(intake, made, tmp_path, item(9) + b"\n")
    assert "id 9 is that of item 2 already" in said["error"]


def test_a_person_closes_a_source_once(intake: Any, make: Make, tmp_path: Path) -> None:
    made = make(SOCKET + 'to = ["b"]\n')
    assert say(intake, made, tmp_path, b"x\n") == [{"ok": True, "event": 1, "tag": "10.0"}]
    told: list[Any] = []
    with pytest.raises(ValueError, match="no source 'caht'; known: chat"):
        made.sources.cancel("caht", told.append)
    made.sources.cancel("chat", told.append)
    intake.pump()
    assert [event.what for event in told] == [What.CLOSED]
    with pytest.raises(ValueError, match="source chat is closed already"):
        made.sources.cancel("chat", told.append)
    assert not (tmp_path / "chat.sock").exists()
    assert intake.seen() == [(What.EVENT, 0, b"x"), CLOSED]


# -- timers ----------------------------------------------------------------------------------

TIMER = '[sources.clock]\nkind = "timer"\nto = ["a"]\nevery_ms = 1\n'


def test_a_timer_with_a_count_ends_after_it(intake: Any, make: Make) -> None:
    make(TIMER + "count = 3\n")
    until_closed(intake)
    assert intake.seen() == [(What.EVENT, 0, b"")] * 3 + [CLOSED]


def test_a_timer_without_a_count_goes_on_until_it_is_closed(intake: Any, make: Make) -> None:
    made = make(TIMER)
    intake.until(lambda: len(intake.events) >= 5)
    made.sources.cancel("clock", lambda event: None)
    count = len(intake.events)
    intake.loop.turn(0.01)
    assert len(intake.events) == count and intake.seen()[-1] == CLOSED


def test_a_timer_does_not_tick_into_a_heap_of_events_that_nobody_takes(
    intake: Any, make: Make
) -> None:
    made = make(TIMER)
    intake.until(lambda: len(intake.events) >= WAITING_MAX)
    for _ in range(5):
        intake.loop.turn()
    assert len(intake.events) == WAITING_MAX
    made.sources.woken(0, encode(Kind.EVENT, id=1, peer=0))
    intake.until(lambda: len(intake.events) == WAITING_MAX + 1)


# -- what is refused before anything starts ------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EVENTS + EVENTS.replace("lines", "more"), r"\[sources.lines\] and \[sources.more\] both"),
        (SOCKET + 'path = "output.jsonl"\n', "path is 'output.jsonl': a file of the run folder"),
        (SOCKET + 'path = "control.sock"\n', "path is 'control.sock': a file of the run folder"),
        (SOCKET + 'path = ".."\n', "path is '..': no usable name"),
        (SOCKET + f'path = "{"x" * 81}"\n', "no usable name"),
        (
            SOCKET + SOCKET.replace("chat", "talk") + 'path = "chat.sock"\n',
            r"\[sources.talk\] path is 'chat.sock': the path of \[sources.chat\]",
        ),
    ],
)
def test_sources_that_get_into_each_others_way_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_sources(fleet(text), "fleet.toml")
