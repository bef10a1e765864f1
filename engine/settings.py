"""Typed reading of a table of settings: every key checked, unknown ones refused by name."""

import difflib
from collections.abc import Sequence
from typing import Any

from lockstep.engine.errors import UsageError


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` when a known name is near, else the list of known names."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


class Section:
    """One table. Read each key once, then call `done`, which refuses what was not read.

    Errors are `UsageError`: file and section, key, what was found, what was expected.
    """

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise UsageError(f"{where}: found {_show(values)}, expected a table")
        self._values: dict[str, Any] = values
        self._where = where
        self._known: list[str] = []

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``; without a default the key is required.

        The default itself may lie outside: 0 for "not given", say, where 1 is the least.
        """
        value = self._get(key, default)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        if key in self._values and not fits:
            raise self.error(key, value, f"a whole number from {low} to {high}")
        return int(value)

    def text(self, key: str, default: str | None) -> str:
        """A string that is not empty, except as the default."""
        value = self._get(key, default)
        if not isinstance(value, str) or (not value and value != default):
            raise self.error(key, value, "a string that is not empty")
        return value

    def choice(self, key: str, default: str | None, choices: Sequence[str]) -> str:
        """One of ``choices`` (or the default)."""
        value = self._get(key, default)
        if value != default and value not in choices:
            raise self.error(key, value, " or ".join(f'"{c}"' for c in choices))
        return str(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def texts(self, key: str, default: Sequence[str]) -> tuple[str, ...]:
        """A list of strings without repetition."""
        value = self._get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.error(key, value, "a list of strings")
        if len(dict.fromkeys(value)) != len(value):
            raise self.error(key, value, "no name twice")
        return tuple(value)

    def words(self, key: str) -> tuple[str, ...]:
        """A list of strings, at least one; repetition is fine. Required."""
        value = self._get(key, None)
        good = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        if not good or not value[0] or any("\0" in v for v in value):
            raise self.error(key, value, "a list of strings, the command first")
        return tuple(value)

    def text_table(self, key: str) -> dict[str, str]:
        """A table of strings, empty by default."""
        value = self.table(key)
        for name, text in value.items():
            if not isinstance(text, str) or "\0" in text or "=" in name or not name:
                raise self.error(f"{key}.{name}", text, "a name without = and a string")
        return value

    def any(self, key: str, default: object) -> object:
        """Whatever is there: the caller checks it."""
        return self._get(key, default)

    def table(self, key: str) -> dict[str, Any]:
        """A table, empty by default."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "a table")
        return value

    def done(self) -> None:
        """Refuse the first key that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                raise UsageError(f"{self._where}: unknown key {key!r}{nearest(key, self._known)}")

    def error(self, key: str, found: object, expected: str) -> UsageError:
        """The error for one key."""
        return UsageError(f"{self._where}: {key} is {_show(found)}, expected {expected}")

    def _get(self, key: str, default: Any) -> Any:
        self._known.append(key)
        if key in self._values:
            return self._values[key]
        if default is None:
            unread = [name for name in self._values if name not in self._known]
            for name in difflib.get_close_matches(key, unread, n=1):
                raise UsageError(
                    f"{self._where}: unknown key {name!r}; did you mean {key!r}? {key} is missing"
                )
            raise UsageError(f"{self._where}: {key} is missing")
        return default


def _show(value: object) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # Too many digits, or nested too deeply.
        return f"a value too large to show ({type(value).__name__})"
    return shown if len(shown) <= 60 else shown[:57] + "..."
