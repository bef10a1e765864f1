"""The loop: handlers of descriptors and of times."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from lockstep.workers.loop import Loop


@pytest.fixture(params=["epoll", "poll"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """Over epoll, and as on a system that has none."""
    if request.param == "poll":
        monkeypatch.delattr(select, "epoll")
    loop = Loop()
    yield loop
    loop.close()


def test_timers_go_off_in_order_of_time_and_then_of_setting(loop: Loop) -> None:
    said: list[str] = []
    loop.after(0.02, lambda: said.append("late"))
    loop.after(0, lambda: said.append("first"))
    loop.after(0, lambda: said.append("second"))
    cancelled = loop.after(0, lambda: said.append("never"))
    cancelled.cancel()
    while len(said) < 3:
        loop.turn()
    assert said == ["first", "second", "late"]
    assert loop.wait(0.0) == []


def test_a_timer_set_for_at_once_by_a_timer_lets_descriptors_have_their_turn(loop: Loop) -> None:
    said: list[str] = []
    reading, writing = os.pipe()
    os.write(writing, b"x")

    def again() -> None:
        said.append("timer")
        loop.after(0, again)

    def read() -> None:
        said.append(os.read(reading, 1).decode())

    loop.after(0, again)
    loop.watch(reading, read)
    loop.turn()
    loop.turn()
    assert said == ["x", "timer", "timer"]
    loop.forget(reading)
    assert not loop.watches(reading)
    os.close(reading)
    os.close(writing)


def test_a_handler_may_forget_another_descriptor_of_its_batch(loop: Loop) -> None:
    pairs = [os.pipe() for _ in range(2)]
    said: list[int] = []

    def heard(mine: int, other: int) -> None:
        said.append(mine)
        loop.forget(other)

    for mine, other in ((0, 1), (1, 0)):
        reading = pairs[mine][0]
        loop.watch(reading, lambda a=reading, b=pairs[other][0]: heard(a, b))  # type: ignore[misc]
    for _, writing in pairs:
        os.write(writing, b"x")
    loop.dispatch(loop.wait())
    assert len(said) == 1
    for pair in pairs:
        for descriptor in pair:
            os.close(descriptor)


def test_a_regular_file_cannot_be_watched(loop: Loop) -> None:
    with open(__file__, "rb") as file, pytest.raises(PermissionError):
        loop.watch(file.fileno(), lambda: None)
    assert not loop.watches(file.fileno() if not file.closed else -1)
