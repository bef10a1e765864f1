"""JSON from people and guests: one meaning or none.

Refused: duplicate keys, NaN and Infinity in any spelling, numbers that overflow, text that is not
Unicode, deep nesting. Depth is bounded before the parser recurses.
"""

import json
import math
import re
from typing import Any

DEPTH_MAX = 64
DIGITS_MAX = 400  # Of an integer.
# Possessive, so that a string of megabytes costs no memory and a missing end no second try.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)


def loads(data: bytes | str, depth_max: int = DEPTH_MAX) -> Any:
    """Parse strictly valid JSON.

    Raises:
        ValueError: not UTF-8, not JSON, a duplicate key, a number JSON or a float64 does not
            have, half a surrogate pair, nesting deeper than ``depth_max``.
    """
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if data.count("[") + data.count("{") > depth_max and _depth(data) > depth_max:
        raise ValueError(f"nested deeper than {depth_max}")
    value = json.loads(
        data,
        object_pairs_hook=_unique,
        parse_constant=_refuse,
        parse_int=_integer,
        parse_float=_finite,
    )
    if "\\u" in data:
        _refuse_surrogates(value)
    return value


def loads_object(line: bytes | str) -> dict[str, Any]:
    """Parse one object, as a person or a client gives it.

    Raises:
        ValueError: it is not strictly valid JSON, or no object.
    """
    try:
        value = loads(line)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"found {line[:40]!r}, expected a JSON object")
    return value


def dumps(value: Any) -> bytes:
    """Canonical form: sorted keys, no spaces, UTF-8. Equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: dict[str, None] = {}
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r:.80} appears twice")
            seen[key] = None
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_surrogates(value: Any) -> None:
    # Half a pair is grammar, but no text: it could not be written out again as UTF-8.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair in a string") from None


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise ValueError(f"a number of {len(digits)} digits, at most {DIGITS_MAX}")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.40} does not fit into a float64")
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in _STRING.sub("", text):  # Brackets inside strings do not nest.
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest
