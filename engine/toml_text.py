"""TOML as text: what `tomllib` read, written so that it reads the same. The library only reads.

Comments and layout are not kept. Tables up to the second level get headers, as fleet files have
them; whatever is deeper is written inline, in its order.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

HEADERS = 2  # Levels of tables with a header of their own.
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def document(table: Mapping[str, Any]) -> str:
    """A whole file, of what `tomllib.loads` gave.

    Raises:
        TypeError: a value that TOML does not have.
    """
    return "\n".join(_lines(table, ())).lstrip("\n") + "\n"


def inline(value: Any) -> str:
    """A value as it stands behind ``=``, on one line.

    Raises:
        TypeError: TOML has no such value.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are TOML's, but for the one control character that JSON lets through.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(inline, value))}]"
        case dict():
            pairs = ", ".join(f"{key(name)} = {inline(each)}" for name, each in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def key(name: str) -> str:
    """A key, quoted where it has to be."""
    return name if _BARE.fullmatch(name) else inline(name)


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {
        name: value
        for name, value in table.items()
        if isinstance(value, dict) and len(path) < HEADERS
    }
    for name, value in table.items():
        if name not in tables:
            yield f"{key(name)} = {inline(value)}"
    for name, value in tables.items():
        deeper = (*path, name)
        yield f"\n[{'.'.join(map(key, deeper))}]"
        yield from _lines(value, deeper)
