"""Journal writer: one write per frame; what fails does not count."""

from collections.abc import Callable
from typing import Any

import pytest

from lockstep.engine.errors import JournalError
from lockstep.engine.journal import JournalReader, JournalWriter
from lockstep.engine.journal import format as fmt


class Failing:
    """A sink that fails once, at the write of the given number, without taking a byte."""

    def __init__(self, at: int) -> None:
        self.data = b""
        self._left = at

    def write(self, data: bytes) -> None:
        self._left -= 1
        if self._left == -1:
            raise JournalError("no space left")
        self.data += data


def test_header_and_each_frame_are_one_write(write: Callable[..., Any]) -> None:
    parts = write()
    assert [len(part) for part in parts] == [64, 64, 56, 88, 48, 56]


@pytest.mark.parametrize("at", range(1, 5))
def test_a_frame_that_could_not_be_written_does_not_count(at: int) -> None:
    sink = Failing(at)
    writer = JournalWriter(sink, bytes(16))
    for number in range(1, 5):
        if number == at:
            with pytest.raises(JournalError, match="no space left"):
                writer.append(fmt.HISTORY, b"lost")
            assert writer.frames == at - 1
        else:
            writer.append(fmt.HISTORY, b"%d" % number)
    reader = JournalReader(sink.data, "j")
    assert [frame.body for frame in reader.frames] == [b"%d" % n for n in range(1, 5) if n != at]


def test_a_body_that_no_reader_would_believe_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fmt, "BODY_BYTES_MAX", 10)
    sink = Failing(-1)
    writer = JournalWriter(sink, bytes(16))
    writer.append(fmt.HISTORY, bytes(10))
    with pytest.raises(JournalError, match="frame 1: a body of 11 bytes, at most 10 fit"):
        writer.append(fmt.HISTORY, bytes(11))
    assert len(JournalReader(sink.data, "j").frames) == 1
