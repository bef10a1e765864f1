"""The values that chat templates have: text, numbers, lists, dicts, ranges and what can be called.

Whatever else turns up is refused by its kind, never by its text: the text of an object may be an
address. Nothing here has state; what reads or makes much is charged for by the callers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Namespace

TEXT_MAX = 1 << 20  # Characters of a text, items of a list, that an operation makes.
INT_MAX = 1 << 63
RANGE_MAX = 100_000


class Group(NamedTuple):
    """One of `groupby`: a pair that has names, too."""

    grouper: Any
    list: Any


SCALARS = (str, int, float, bool, type(None))
CONTAINERS = (list, tuple, dict, Group)
ITERABLES = (*CONTAINERS, str, range)
_KINDS = {LoopContext: "loop", Macro: "macro", Namespace: "namespace"}


class Refused(jinja2.TemplateRuntimeError):
    """The template did what templates here may not do."""


class Function:
    """A function or method as templates see it: it can be called, and has no text."""

    __slots__ = ("call", "name", "owner")

    def __init__(self, name: str, call: Callable[..., Any], owner: Any = None) -> None:
        self.name, self.call, self.owner = name, call, owner

    def __repr__(self) -> str:
        return f"<{kind(self)} {self.name}>"


def refuse(text: str) -> NoReturn:
    raise Refused(text)


def refuse_long_text() -> NoReturn:
    refuse(f"makes a text longer than {TEXT_MAX}")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def kind(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, Function):
        return "function" if value.owner is None else "method"
    return _KINDS.get(type(value), type(value).__name__)


def as_text(value: Any) -> str:
    if type(value) in SCALARS or isinstance(value, Undefined):
        return str(value)
    return refuse(f"prints a {kind(value)}")


def as_key(value: Any) -> Any:
    if type(value) not in SCALARS:
        refuse(f"has a {kind(value)} as key")
    return value


def length(value: Any) -> int:
    if type(value) not in ITERABLES and not isinstance(value, Undefined):
        refuse(f"takes the length of a {kind(value)}")
    return len(value)


def items(value: Any) -> list[Any]:
    if isinstance(value, Undefined):
        return []
    if type(value) is not dict:
        refuse(f"takes the items of a {kind(value)}")
    return list(value.items())


def sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if type(value) not in (str, list, tuple, range):
        refuse(f"slices a {kind(value)}")
    return value[start:stop:step]


def same(left: Any, right: Any) -> bool:
    """As `is`, but not for texts and numbers: which of those are one object is Python's affair."""
    if type(left) in SCALARS:
        return type(left) is type(right) and bool(left == right)
    return left is right


def replaced(text: str, old: str, new: str, count: int = -1, /) -> str:
    found = text.count(old)
    if count >= 0:
        found = min(found, count)
    if len(text) + found * (len(new) - len(old)) > TEXT_MAX:
        refuse_long_text()
    return text.replace(old, new, count)


def padded(name: str) -> Callable[..., str]:
    """The method of texts of this name, one that fills up to a width."""

    def call(text: str, width: int, *args: str) -> str:
        if width > TEXT_MAX:
            refuse_long_text()
        return str(getattr(text, name)(width, *args))

    return call


def new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    made = dict(*args, **kwargs)
    for key in made:
        as_key(key)
    return made


def new_range(*args: Any) -> range:
    made = range(*args)
    if -((made.start - made.stop) // made.step) > RANGE_MAX:  # len() overflows at 2 ** 63.
        refuse(f"has a range of more than {RANGE_MAX}")
    return made
