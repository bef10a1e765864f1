"""The journal alone, in memory: frames made and chained, and read back with every check."""

from typing import Any

import pytest

from lockstep.engine.journal import JournalWriter, Scan, Segment
from lockstep.engine.journal import format as journal_format

FRAMES = 500


class Bytes:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data


def written(body: bytes) -> bytes:
    sink = Bytes()
    writer = JournalWriter(sink, bytes(16))
    for _ in range(FRAMES):
        writer.append(journal_format.HISTORY, body)
    return bytes(sink.data)


@pytest.mark.parametrize("size", [64, 1024])
def test_frames_are_appended(benchmark: Any, size: int) -> None:
    assert len(benchmark(written, bytes(size))) > FRAMES * size


@pytest.mark.parametrize("size", [64, 1024])
def test_frames_are_read_and_checked(benchmark: Any, size: int) -> None:
    data = written(bytes(size))

    def read() -> int:
        return sum(1 for _ in Scan([Segment("0", 0, data, True)]).frames())

    assert benchmark(read) == FRAMES
