"""What a service tells: to a service manager, to a journal, to people, to clients without room."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lockstep.workers.service.daemon import IDLE_S
from lockstep.workers.service.limits import RETRY_S_MAX, Limits, Occupancy
from lockstep.workers.service.log import Log
from lockstep.workers.service.notify import Notifier


def listening(address: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(address)
    made.setblocking(False)
    return made


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_everything_at_its_address(tmp_path: Path, abstract: bool) -> None:
    name = f"lockstep-test-{os.getpid()}"
    variable, address = (f"@{name}", f"\0{name}") if abstract else (str(tmp_path / "n"),) * 2
    environment = {"NOTIFY_SOCKET": variable, "WATCHDOG_USEC": "3000000", "HOME": "/h"}
    with listening(address) as manager:
        notify = Notifier(environment)
        assert environment == {"HOME": "/h"}  # Children are not the service.
        assert notify.watchdog_s == 3.0
        notify.ready()
        notify.alive()
        notify.status("fine")
        notify.status("fine")  # Once is enough.
        notify.extend(1.5)
        notify.reloading()
        notify.stopping()
        notify.close()
        notify.ready()
        heard = [manager.recv(512).decode() for _ in range(6)]
        assert heard[:4] == ["READY=1", "WATCHDOG=1", "STATUS=fine", "EXTEND_TIMEOUT_USEC=1500000"]
        reloading, at = heard[4].splitlines()
        assert reloading == "RELOADING=1" and int(at.removeprefix("MONOTONIC_USEC=")) > 0
        assert heard[5] == "STOPPING=1"
        with pytest.raises(BlockingIOError):
            manager.recv(512)


def test_without_a_manager_nothing_is_said_and_nothing_fails(tmp_path: Path) -> None:
    for environment in (
        {},
        {"WATCHDOG_USEC": "1000"},  # Nobody to tell.
        {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"},
    ):
        notify = Notifier(dict(environment))
        assert notify.watchdog_s == 0.0
        notify.ready()
        notify.alive()
        notify.close()


def test_the_journal_gets_levels_and_others_get_words(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    status = os.fstat(descriptor)
    try:
        journal = Log(descriptor, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        journal.error("bad\nthing \x1b[31m", run="vote-3", why='a "b"')
        Log(descriptor, {"JOURNAL_STREAM": "1:2"}).notice("ready", items=3)
    finally:
        os.close(descriptor)
    first, second = path.read_text().splitlines()
    assert first == '<3>bad thing \\x1b[31m run=vote-3 why="a \\"b\\""'
    assert second.endswith("Z notice: ready items=3") and second.startswith("20")


def test_a_log_that_nobody_takes_does_not_hold_the_service_up() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = Log(writing, {})
    log.info("is anybody there")
    os.close(writing)
    log.info("no")


def test_a_full_pipe_costs_lines_and_no_time() -> None:
    reading, writing = os.pipe()
    log = Log(writing, {})
    for _ in range(100):
        log.info("é" * 3000)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        lines = file.readlines()
    assert 0 < len(lines) < 100
    assert all(" info: é" in line and line.endswith("é\n") for line in lines)


def test_room_is_counted_in_all_and_for_each_client() -> None:
    now = [0.0]
    room = Occupancy(Limits(waiting_max=3, client_max=2), lambda: now[0])
    assert room.full("ann") is None
    for client in ("ann", "ann", "ben"):
        room.enter(client)
    full = room.full("cat")
    assert full is not None and full["waiting"] == full["waiting_max"] == 3
    assert full["client_waiting"] == 0 and full["retry_after_s"] == 1.0  # No pace is known.
    room.leave("ben", answered=False)
    own = room.full("ann")
    assert own is not None and own["client_waiting"] == own["client_waiting_max"] == 2
    assert room.full("cat") is None
    for second in range(10):
        room.leave("ann")
        room.enter("ann")
        now[0] = second + 1.0
    assert room.retry_after_s() == 1.0  # Ten answers in ten seconds, and one place is enough.
    now[0] = 10_000.0
    assert room.retry_after_s() == RETRY_S_MAX < IDLE_S  # Who waits so long is not sent away.
    room.leave("ann")
    room.leave("ann")
    assert room.clients() == {} and room.total == 0
