"""Overrides: keys of a fleet file that a new run has in another way, as ``--set KEY=VALUE`` says.

They are written into the fleet's file as the run keeps it: the run folder is whole, and is
verified, resumed and forked without them. What may change in the middle of a run is another
question (engine/changes.py). Pure.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.engine import toml_text
from lockstep.engine.errors import UsageError
from lockstep.engine.settings import nearest

SETTING_CHARS_MAX = 4096
SECTIONS = ("fleet", "schedule", "recovery")  # One table each; the file need not have it.
NAMED = ("models", "agents", "tools", "sources")  # Tables of tables with names.
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")  # A string that needs no quotes here.


@dataclass(frozen=True, slots=True)
class Setting:
    """One key and the value that it gets.

    Attributes:
        path: The key, part by part.
        value: As `tomllib` gives values.
    """

    path: tuple[str, ...]
    value: Any

    @property
    def key(self) -> str:
        """Dotted."""
        return ".".join(map(toml_text.key, self.path))

    def __str__(self) -> str:
        """As it is typed; the same setting gives the same text, however it was typed."""
        return f"{self.key}={toml_text.inline(self.value)}"


def setting_of(text: str) -> Setting:
    """A setting as a person types it.

    Args:
        text: ``KEY=VALUE``: a dotted key (a bare one is of [fleet]) and a value as it stands in a
            fleet file. A word needs no quotes.

    Raises:
        UsageError: it is none.
    """
    key, equals, value = text.partition("=")
    if not (equals and key.strip() and value.strip()):
        raise UsageError(f"--set is {text!r}, expected KEY=VALUE, such as schedule.lookahead=2")
    if len(text) > SETTING_CHARS_MAX:
        raise UsageError(f"--set {text[:57]}...: longer than {SETTING_CHARS_MAX} characters")
    where = f"--set {text}"
    return Setting(path_of(key.strip(), where), value_of(value.strip(), where))


def path_of(key: str, where: str) -> tuple[str, ...]:
    """The parts of a dotted key; a bare one is of [fleet].

    Raises:
        UsageError: it is no key.
    """
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        table = {}
    path: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        ((name, table),) = table.items()
        path.append(name)
    if table != 0 or not path:
        raise UsageError(f"{where}: {key!r} is no key, expected one such as schedule.lookahead")
    return tuple(path) if len(path) > 1 else ("fleet", path[0])


def value_of(text: str, where: str) -> Any:
    """A value as it stands in a fleet file; a word needs no quotes.

    Raises:
        UsageError: it is none.
    """
    try:
        table = tomllib.loads(f"value = {text}")
        if list(table) == ["value"]:
            return table["value"]
    except (ValueError, RecursionError):
        if _WORD.fullmatch(text):
            return text
    raise UsageError(f"{where}: {text!r} is no value as it stands in a fleet file")


def overridden(data: bytes, settings: Sequence[str], where: str) -> bytes:
    """A fleet file with other values.

    Args:
        data: The file, which was parsed (`fleet_file.parse`) without complaint. So has to be what
            comes back: values are not judged here.
        settings: As `setting_of` takes them.
        where: The file's name, for messages.

    Raises:
        UsageError: a setting is none, or its table or key cannot be in the file.
    """
    table = tomllib.loads(data.decode("utf-8"))
    seen: dict[tuple[str, ...], None] = {}
    for text in settings:
        setting = setting_of(text)
        if setting.path in seen:
            raise UsageError(f"--set {text}: {setting.key} is set twice")
        seen[setting.path] = None
        _put(table, setting, f"--set {text}: {where}")
    return toml_text.document(table).encode()


def _put(table: dict[str, Any], setting: Setting, where: str) -> None:
    path = setting.path
    if path[0] not in SECTIONS + NAMED:
        raise UsageError(f"{where}: no table [{path[0]}]{nearest(path[0], SECTIONS + NAMED)}")
    depth = 3 if path[0] in NAMED else 2
    if len(path) < depth:
        raise UsageError(f"{where}: {setting.key} is a table, expected a key of it")
    at = table.setdefault(path[0], {})
    for number in range(1, len(path) - 1):
        at = _table(at, path[number], f"{where}: [{'.'.join(path[:number])}]")
    if len(path) > depth and path[-1] not in at:
        # Nobody but the agent knows its keys: one that is mistyped would change nothing.
        inside = ".".join(path[:-1])
        raise UsageError(
            f"{where}: [{inside}] has no key {path[-1]!r}{nearest(path[-1], list(at))}; "
            "a key that is varied has to be in the file"
        )
    at[path[-1]] = setting.value


def _table(at: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    if name not in at:
        raise UsageError(f"{where} has no table {name!r}{nearest(name, list(at))}")
    found = at[name]
    if not isinstance(found, dict):
        raise UsageError(f"{where} {name} is {toml_text.inline(found)}, no table")
    return found
