"""JSON from people and guests: duplicate keys, NaN, Infinity and deep nesting are refused."""

import json
from typing import Any

DEPTH_MAX = 64


def loads(data: bytes | str) -> Any:
    """Parse strictly valid JSON.

    Raises:
        ValueError: not UTF-8, not JSON, a duplicate key, a number JSON does not have, half a
            surrogate pair, nesting deeper than `DEPTH_MAX`.
    """
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if data.count("[") + data.count("{") > DEPTH_MAX and _depth(data) > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_integer)
    if "\\u" in data:
        _refuse_surrogates(value)
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
                raise ValueError(f"key {key!r} appears twice")
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
    if len(digits) > 400:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _depth(text: str) -> int:
    # Brackets inside strings do not nest.
    depth = deepest = 0
    inside = escaped = False
    for char in text:
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest
