"""Item ids: every item that was read from the input or brought by a source, found by its id."""

import json
from collections.abc import Sequence
from typing import Any

from lockstep.engine.items import InputItem
from lockstep.engine.strict_json import loads_object


class IdUnknown(Exception):
    """No item, or more than one, is meant by what a person wrote."""


class ItemIds:
    """Numbers of items by id. A line without an id has its number in the run as its id.

    Attributes:
        given: Items of the input file; those of sources come behind them.
    """

    def __init__(self, items: Sequence[InputItem]) -> None:
        self._numbers = {json.dumps(item.id): n for n, item in enumerate(items, 1)}
        self._count = self.given = len(items)

    def __len__(self) -> int:
        return self._count

    def add(self, line: bytes, line_bytes_max: int) -> int:
        """The next item is this line: its number.

        Raises:
            ValueError: it is none, by the rules of the input file.
        """
        if len(line) > line_bytes_max:
            raise ValueError(f"{len(line)} bytes, at most {line_bytes_max} fit a record "
                             "([fleet] record_bytes_max)")  # fmt: skip
        value = loads_object(line)
        number = self._count + 1
        id = value.get("id", number)
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise ValueError(f"id is {id!s:.40}, expected a string or an integer")
        first = self._numbers.setdefault(json.dumps(id), number)
        if first != number:
            raise ValueError(f"id {id!r:.80} is that of item {first} already (a line without id "
                             "has its number as id)")  # fmt: skip
        self._count = number
        return number

    def find(self, id: Any) -> int:
        """The number of the item with an id, as JSON or as a person types it (``5`` or ``a``).

        Raises:
            IdUnknown: there is none, or a number and a text that look alike.
        """
        found = self._numbers.get(json.dumps(id))
        other = None
        if isinstance(id, str):
            digits = id.removeprefix("-")
            whole = digits.isdecimal() and digits.isascii() and len(digits) < 400
            other = self._numbers.get(json.dumps(int(id))) if whole else None
        if found and other:
            raise IdUnknown(f"item {id}: item {other} has the number as its id, item {found} the "
                            'text; say it as JSON: "item": 5 or "item": "5"')  # fmt: skip
        number = found or other
        if not number:
            raise IdUnknown(f"no item has the id {json.dumps(id):.80}")
        return number
