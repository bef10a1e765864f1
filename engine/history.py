"""History: what happened at each tag and step, as records, in tag order. The digest's food.

An entry is everything of one closed tag, or one executed step. Step ``s`` comes after all tags
with a step <= ``s`` (rule 7); nothing physical is in it: no time, pid, grant or restart.
"""

import struct
from typing import NamedTuple

from lockstep.engine.record import Kind, encode
from lockstep.engine.tag import Tag
from lockstep.engine.wire import StepReport

TICKET_PAYLOAD = struct.Struct("<QQQ")  # due step, ordinal, request number
TEXT_PART = struct.Struct("<BxxxIQI")  # what, agent, number, bytes of what follows
_TAG = int(Kind.TAG)
TEXT_MESSAGE, TEXT_OUTPUT, TEXT_TOKENS = 1, 2, 3  # What; the number is receiver, item, ordinal.


class Entry(NamedTuple):
    """One entry: ``body`` for the journal and the digest, ``text`` for the weaker digest."""

    body: bytes
    text: bytes


class TagEntry:
    """Collects what happens at one tag."""

    def __init__(self, tag: Tag) -> None:
        self._body = [encode(_TAG, id=tag[0], peer=tag[1])]
        self._text: list[bytes] = []

    def add(self, record: bytes) -> None:
        """One record of history."""
        self._body.append(record)

    def message(self, agent: int, receiver: int, payload: bytes) -> None:
        """A message, for the text digest."""
        self._text.append(TEXT_PART.pack(TEXT_MESSAGE, agent, receiver, len(payload)) + payload)

    def text(self, text: bytes) -> None:
        """Parts of the text digest that were made elsewhere."""
        self._text.append(text)

    def output(self, agent: int, item: int, payload: bytes) -> None:
        """An output, for the text digest."""
        self._text.append(TEXT_PART.pack(TEXT_OUTPUT, agent, item, len(payload)) + payload)

    def close(self) -> Entry:
        """The entry."""
        return Entry(b"".join(self._body), b"".join(self._text))


def step_entry(report: StepReport, finished: list[tuple[int, int, list[int]]]) -> Entry:
    """The entry of a step; ``finished`` are (agent, ordinal, token ids) of its answers."""
    body = encode(Kind.STEP, report.body, id=report.step)
    text = []
    for agent, ordinal, tokens in finished:
        ids = struct.pack(f"<{len(tokens)}i", *tokens)
        text.append(TEXT_PART.pack(TEXT_TOKENS, agent, ordinal, len(ids)) + ids)
    return Entry(body, b"".join(text))
