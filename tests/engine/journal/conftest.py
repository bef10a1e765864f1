"""A journal in memory."""

from collections.abc import Callable

import pytest

from lockstep.engine.journal import JournalWriter, Segment
from lockstep.engine.journal import format as fmt

RUN_ID = bytes(range(16))
BODIES = (
    (fmt.IDENTITY, b'{"seed":1}'),
    (fmt.ENVIRONMENT, b"{}"),
    (fmt.HISTORY, b"x" * 40),  # No padding.
    (fmt.HISTORY, b""),
    (fmt.HISTORY, b"last"),
)


class Memory:
    """A sink in memory."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.parts.append(data)


Write = Callable[..., list[bytes]]
WriteSegments = Callable[..., list[Segment]]


@pytest.fixture
def write() -> Write:
    """Write a journal: the segment header and each frame as a part of its own."""

    def write_parts(
        bodies: tuple[tuple[int, bytes], ...] = BODIES, run_id: bytes = RUN_ID
    ) -> list[bytes]:
        sink = Memory()
        writer = JournalWriter(sink, run_id)
        for kind, body in bodies:
            writer.append(kind, body)
        return sink.parts

    return write_parts


@pytest.fixture
def segments() -> WriteSegments:
    """Write a journal of several segments; each argument has the bodies of one."""

    def write_segments(
        *bodies: tuple[tuple[int, bytes], ...], run_id: bytes = RUN_ID
    ) -> list[Segment]:
        sink = Memory()
        writer = JournalWriter(sink, run_id)
        data = []
        for number, group in enumerate(bodies):
            if number:
                writer.next_segment()
            for kind, body in group:
                writer.append(kind, body)
            data.append(b"".join(sink.parts))
            sink.parts.clear()
        return [
            Segment(f"journal.{number}", number, each, number == len(data) - 1)
            for number, each in enumerate(data)
        ]

    return write_segments
