"""Python's two ways to fill in a text, as chat templates have them: `'%s' % x`, `'{}'.format(x)`.

Values are text and numbers, so nothing of an object is ever asked or shown: no `{0.name}`, `%r` or
`{!r}`. A width is written out and has at most four digits, and the whole is bounded while it is
made: so no short text becomes a large one.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lockstep.workers.inference.template_values import (
    SCALARS,
    TEXT_MAX,
    as_text,
    kind,
    refuse,
    refuse_long_text,
)

_PERCENT = re.compile(
    r"%(?:\((?P<name>[^()]*)\))?(?P<how>[-+ #0]*\d{0,4}(?:\.\d{0,4})?)(?P<kind>[%scdiuoxXeEfFgG]?)"
)
_SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?#?0?\d{0,4}[,_]?(?:\.\d{1,4})?[bcdeEfFgGosxX%]?", re.DOTALL)
_FIELD = re.compile(r"\d{0,4}|[A-Za-z_]\w*", re.ASCII)


def percent(text: str, values: Any) -> str:
    """`text % values`: a tuple's items in order, a dict's by name, else one value."""
    waiting = list(values) if type(values) is tuple else [values]
    used = 0

    def one(found: re.Match[str]) -> str:
        nonlocal used
        name, how, what = found["name"], found["how"], found["kind"]
        if what == "%" and found[0] == "%%":
            return "%"
        if what in ("", "%"):
            refuse(f"formats a text with {text[found.start() :][:8]!r}, which is not known here")
        if name is None:
            value, used = _at(waiting, used), used + 1
        else:
            value = _named(values, name)
        return str(f"%{how}{what}" % (as_text(value) if what == "s" else _plain(value)))

    made = _filled(_PERCENT, one, text)
    if used < len(waiting) and type(values) is not dict:
        refuse(f"formats a text with {len(waiting)} values, and it has places for {used}")
    return made


def formatted(text: str, /, *args: Any, **named: Any) -> str:
    """`text.format(*args, **named)`."""
    parts, size, following = [], 0, 0
    for literal, field, spec, conversion in string.Formatter().parse(text):
        piece = literal
        if field is not None:
            good = _FIELD.fullmatch(field) and _SPEC.fullmatch(spec or "")
            if not good or conversion not in (None, "s"):
                place = (
                    f"{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}"
                )
                refuse(f"formats a text with {{{place[:40]}}}, which is not known here")
            if not field:
                field, following = str(following), following + 1
            value = _at(args, int(field)) if field.isdigit() else _named(named, field)
            value = as_text(value) if conversion else _plain(value)
            piece += format(value, spec or "")
        parts.append(piece)
        size += len(piece)
        if size > TEXT_MAX:
            refuse_long_text()
    return "".join(parts)


def _filled(pattern: re.Pattern[str], one: Callable[[re.Match[str]], str], text: str) -> str:
    """`pattern.sub(one, text)`, refused as soon as it is too long."""
    parts, size, at = [], 0, 0
    for found in pattern.finditer(text):
        parts += [text[at : found.start()], one(found)]
        at = found.end()
        size += len(parts[-1])
        if size > TEXT_MAX:
            refuse_long_text()
    return "".join([*parts, text[at:]])


def _plain(value: Any) -> Any:
    if type(value) in SCALARS:
        return value
    return as_text(value)  # Undefined is empty; all else is refused by its kind.


def _at(values: Sequence[Any], index: int) -> Any:
    if index >= len(values):
        refuse(f"formats a text with {len(values)} values, and it has places for more")
    return values[index]


def _named(values: Any, name: str) -> Any:
    if not isinstance(values, Mapping):
        refuse(f"formats a text that has names with a {kind(values)}")
    if name not in values:
        refuse(f"formats a text without a value for {name[:40]!r}")
    return values[name]
