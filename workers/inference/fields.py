"""Fields of a JSON request, each read once, typed and range-checked.

Numbers are exact: a whole number that is not one, or a bool in place of a number, is refused. What
a refusal shows of a value is cut, so that it always fits a record.
"""

import json
from collections.abc import Sequence
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.settings import nearest
from lockstep.engine.strict_json import loads


class Fields:
    """The members of a request's object. Every reader raises `RequestRejected`, the key named."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def value(self, key: str) -> Any:
        """As it is."""
        return self._found[key]

    def integer(self, key: str, low: int, high: int) -> int | None:
        """A whole number of ``low`` to ``high``; None: not given."""
        if key not in self._found:
            return None
        return whole(self._found[key], key, low, high)

    def number(self, key: str, low: float, high: float, *, above: bool = False) -> float | None:
        """A float64 of ``low`` to ``high`` (``above``: more than ``low``); None: not given."""
        if key not in self._found:
            return None
        return real(self._found[key], key, low, high, above=above)

    def flag(self, key: str) -> bool | None:
        """True or false; None: not given."""
        value = self._found.get(key)
        if key in self._found and type(value) is not bool:
            raise wrong(f"{key}: ", value, ", expected true or false")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """One of ``choices``; None: not given."""
        value = self._found.get(key)
        if key in self._found and value not in choices:
            hint = nearest(str(value)[:80], choices)
            raise wrong(f"{key}: ", value, f" is unknown{hint}")
        return value

    def text(self, key: str) -> str | None:
        """Text that is not empty; None: not given."""
        return words(self._found[key], key) if key in self._found else None

    def name(self, key: str, bytes_max: int) -> str | None:
        """Text of at most so many bytes in UTF-8; None: not given."""
        if key not in self._found:
            return None
        return bounded(self._found[key], key, bytes_max)

    def listed(self, key: str, count_max: int, *, alone: bool = False) -> list[Any]:
        """A list of at most so many; ``alone``: one of them may stand without it. Not given: []."""
        value = self._found.get(key, [])
        if alone and not isinstance(value, list):
            return [value]
        if not isinstance(value, list) or len(value) > count_max:
            expected = f", expected a list of at most {count_max}"
            if isinstance(value, list):
                raise RequestRejected(f"{key}: {len(value)} of them{expected}")
            raise wrong(f"{key}: ", value, expected)
        return value


def object_of(payload: bytes, bytes_max: int, depth_max: int) -> dict[str, Any]:
    """The object that a request is.

    Args:
        payload: JSON in UTF-8.
        bytes_max: Of the payload.
        depth_max: Of the JSON.

    Raises:
        RequestRejected: it is longer or deeper than that, not valid, or no object.
    """
    if len(payload) > bytes_max:
        raise RequestRejected(f"request: {len(payload)} bytes, at most {bytes_max}")
    try:
        found = loads(payload, depth_max)
    except ValueError as error:
        raise RequestRejected(f"request: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        expected = "request: expected a JSON object, found "
        raise RequestRejected(expected + shown(found), expected + type(found).__name__)
    return found


def shown(value: Any, chars_max: int | None = 80) -> str:
    """A value as its sender wrote it, in JSON, cut; None: whole."""
    return json.dumps(value, ensure_ascii=False)[:chars_max]


def wrong(before: str, value: Any, after: str, chars_max: int | None = 80) -> RequestRejected:
    """A refusal that shows a value; runs of older rules show it as Python writes it."""
    old = repr(value)[:chars_max]
    return RequestRejected(f"{before}{shown(value, chars_max)}{after}", f"{before}{old}{after}")


def whole(value: Any, key: str, low: int, high: int) -> int:
    """A whole number, and no bool or float that looks like one."""
    if type(value) is not int or not low <= value <= high:
        raise wrong(f"{key}: ", value, f", expected a whole number of {low} to {high}")
    return value


def real(value: Any, key: str, low: float, high: float, *, above: bool = False) -> float:
    """A number as a float64; -0.0 is 0."""
    # A NaN, which the binary form can spell, fails the comparison.
    good = type(value) in (int, float) and low <= value <= high
    if not good or (above and value == low):
        least = f"more than {low:g}, at most" if above else f"{low:g} to"
        raise wrong(f"{key}: ", value, f", expected {least} {high}")
    return float(value) + 0.0


def words(value: Any, key: str) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        raise wrong(f"{key}: ", value, ", expected text")
    if not value:
        raise RequestRejected(f"{key}: empty, at least 1 character is needed")
    return value


def bounded(value: Any, key: str, bytes_max: int) -> str:
    """Text of at most so many bytes in UTF-8."""
    text = words(value, key)
    size = len(text.encode())
    if size > bytes_max:
        raise RequestRejected(f"{key}: {size} bytes, at most {bytes_max}")
    return text
