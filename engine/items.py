"""Items: admission in input order, outputs in input order, and every item accounted for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.engine import tag as tags
from lockstep.engine.errors import UsageError
from lockstep.engine.strict_json import loads, loads_object
from lockstep.engine.tag import Tag


@dataclass(frozen=True, slots=True)
class InputItem:
    """One line of the input: its id (JSON value) and its bytes, as the guest gets them."""

    id: Any
    payload: bytes


def parse_input(data: bytes, where: str, line_bytes_max: int) -> list[InputItem]:
    """Read JSON Lines. Empty lines are skipped; an id defaults to the line number.

    Raises:
        UsageError: a line that is no JSON object, too long, or repeats an id; the line number is
            named.
    """
    items: list[InputItem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        line = line.strip()
        if not line:
            continue
        if len(line) > line_bytes_max:
            raise UsageError(
                f"{where}:{number}: {len(line)} bytes, at most {line_bytes_max} fit a record "
                "([fleet] record_bytes_max)"
            )
        try:
            value = loads_object(line)
        except ValueError as error:
            raise UsageError(f"{where}:{number}: {error}") from None
        id = value.get("id", number)
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise UsageError(f"{where}:{number}: id is {id!r}, expected a string or an integer")
        first = seen.setdefault(json.dumps(id), number)
        if first != number:
            raise UsageError(
                f"{where}:{number}: id {id!r} is that of line {first} already (a line without id "
                "has its number as id)"
            )
        items.append(InputItem(id, line))
    return items


def item_of_line(line: bytes, number: int) -> InputItem:
    """The item of a line that came in while the run goes on; its source has checked it.

    A line without a usable id has its number in the run as its id.
    """
    try:
        value = loads(line)
    except ValueError:
        return InputItem(number, line)
    id = value.get("id", number) if isinstance(value, dict) else number
    good = isinstance(id, str | int) and not isinstance(id, bool)
    return InputItem(id if good else number, line)


class ItemBook:
    """Which items are in flight, finished or failed, and the lines of the output in item order.

    Items are numbered from 1. Finished items wait here for earlier ones; that many at most, or
    admission stops (rule 13: the reorder buffer stops admission, never emission).
    """

    def __init__(
        self,
        inputs: Sequence[InputItem],
        agent_names: Sequence[str],
        in_flight_max: int,
        reordered_max: int,
    ) -> None:
        self._inputs = list(inputs)
        self._names = agent_names
        self._in_flight_max = in_flight_max
        self._reordered_max = reordered_max
        self._unfinished: dict[int, None] = {}  # In order of admission, so in item order.
        self._lines: dict[int, list[bytes]] = {}  # Finished, not yet put out.
        self._next_out = 1
        self._closed: list[tuple[int, list[bytes]]] = []  # Since they were last taken.
        self._closed_early: dict[int, None] = {}  # Failed before they could enter.
        self._cancelled: dict[int, None] = {}
        self.admitted = 0  # Items up to this one have entered, or were closed before they could.
        self.finished = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._inputs)

    def change(self, in_flight_max: int, reordered_max: int) -> None:
        """Other bounds from now on; what is beyond them stays."""
        self._in_flight_max, self._reordered_max = in_flight_max, reordered_max

    def append(self, item: InputItem) -> None:
        """One more item of an input that grows."""
        self._inputs.append(item)

    def may_admit(self) -> bool:
        """Whether the next item may enter now."""
        while self.admitted + 1 in self._closed_early:
            self.admitted += 1
            del self._closed_early[self.admitted]
        return (
            self.admitted < len(self._inputs)
            and len(self._unfinished) < self._in_flight_max
            # The item that all finished ones wait for must never be kept out by them.
            and (len(self._lines) < self._reordered_max or self.admitted + 1 == self._next_out)
        )

    def admit(self) -> tuple[int, bytes]:
        """Let the next item in (`may_admit` allowed it): its number and payload."""
        self.admitted += 1
        self._unfinished[self.admitted] = None
        entered = self._inputs[self.admitted - 1]
        self._inputs[self.admitted - 1] = InputItem(entered.id, b"")  # Whoever gets it has it.
        return self.admitted, entered.payload

    def open(self, item: int) -> bool:
        """Whether the item is in flight or has not entered yet."""
        return self.unfinished(item) or (item > self.admitted and item not in self._closed_early)

    def mark_cancelled(self, item: int) -> None:
        """What is asked for on the item's behalf from now on is cancelled at once."""
        self._cancelled[item] = None

    def cancelled(self, item: int) -> bool:
        """Whether the item was cancelled."""
        return item in self._cancelled

    def unfinished(self, item: int) -> bool:
        """Whether the item is in flight."""
        return item in self._unfinished

    def in_flight(self) -> list[int]:
        """Unfinished items in item order."""
        return list(self._unfinished)

    def finish(self, item: int, tag: Tag, outputs: Sequence[tuple[int, bytes]]) -> None:
        """An item is done; ``outputs`` are (agent, payload)."""
        lines = [self._line(item, self._names[agent], tag, payload) for agent, payload in outputs]
        self._close(item, lines)
        self.finished += 1

    def fail(self, item: int, reason: str) -> None:
        """An item is given up."""
        if item > self.admitted:  # One that never entered fails, too.
            self._closed_early[item] = None
            self._unfinished[item] = None
        self._close(item, [_dump({"id": self._inputs[item - 1].id, "error": reason})])
        self.failed += 1

    def take_lines(self) -> list[bytes]:
        """Lines of the output file that are due now, without newline."""
        lines: list[bytes] = []
        while self._next_out in self._lines:
            lines += self._lines.pop(self._next_out)
            self._next_out += 1
        return lines

    def take_closed(self) -> list[tuple[int, list[bytes]]]:
        """Items that came to their end since the last call, and their lines."""
        closed, self._closed = self._closed, []
        return closed

    def _close(self, item: int, lines: list[bytes]) -> None:
        del self._unfinished[item]
        self._lines[item] = lines
        self._closed.append((item, lines))

    def _line(self, item: int, agent: str, tag: Tag, payload: bytes) -> bytes:
        head = _dump({"id": self._inputs[item - 1].id, "agent": agent, "tag": tags.text(tag)})
        return head[:-1] + b"," + _payload(payload) + b"}"


def _payload(payload: bytes) -> bytes:
    # Strictly valid JSON is embedded as the agent's own bytes; else text; else base16.
    try:
        loads(payload)
    except ValueError:
        pass
    else:
        # A line break between JSON tokens would break the line; inside strings none can be.
        return b'"payload":' + payload.replace(b"\n", b" ").replace(b"\r", b" ").strip()
    try:
        return b'"payload":' + json.dumps(payload.decode("utf-8"), ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return b'"payload_hex":"' + payload.hex().encode() + b'"'


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
