"""JSON from guests: one meaning or none.

Refused: duplicate keys, NaN and Infinity in any spelling, numbers that overflow, text that is not
Unicode, nesting beyond a few levels. The limits are checked before the parser recurses.
"""

import json
import math
import re
from typing import Any

from lockstep.engine.errors import RequestRejected

DIGITS_MAX = 32  # Of an integer; the largest field has 20.
# Possessive, so that a string of megabytes costs no memory and a missing end no second try.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")


def parse_object(data: bytes, *, bytes_max: int, depth_max: int) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RequestRejected: anything else; what and where is said.
    """
    if len(data) > bytes_max:
        raise RequestRejected(f"request: {len(data)} bytes, at most {bytes_max}")
    _check_depth(data, depth_max)
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise RequestRejected(f"request: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise RequestRejected(f"request: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestRejected(f"request: expected a JSON object, found {type(value).__name__}")
    return value


def _check_depth(data: bytes, depth_max: int) -> None:
    depth = 0
    for byte in STRING.sub(b"", data).translate(None, NO_BRACKETS):
        if byte in b"{[":
            depth += 1
            if depth > depth_max:
                raise RequestRejected(f"request: JSON nested more than {depth_max} deep")
        else:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise RequestRejected(f"request: key {double!r:.80} occurs twice")
    return result


def _no_constant(text: str) -> None:
    raise RequestRejected(f"request: {text} is not JSON")


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise RequestRejected(f"request: a number of {len(text)} digits, at most {DIGITS_MAX}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RequestRejected(f"request: the number {text:.40} does not fit into a float64")
    return value
