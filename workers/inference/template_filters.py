"""The filters and tests that chat templates have: each charged to the budget, none with state.

What is not in these two tables does not exist for a template. None is random, none escapes for
HTML, and none gives a generator, because what it yields would be counted too late.
"""

import json
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2.filters import FILTERS, sync_do_groupby, sync_do_slice, sync_do_unique
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS
from jinja2.utils import pass_context
from markupsafe import escape

from lockstep.workers.inference.template_budget import Budget
from lockstep.workers.inference.template_formats import percent
from lockstep.workers.inference.template_values import (
    ITERABLES,
    TEXT_MAX,
    Group,
    as_key,
    as_text,
    items,
    kind,
    length,
    padded,
    refuse,
    refuse_long_text,
    replaced,
    same,
    sliced,
    words,
)

PLAIN_TESTS = words(
    "boolean callable defined false float integer iterable mapping none number sequence string"
    " true undefined"
)
COMPARING_TESTS = words("== != < <= > >= eq equalto ne lt lessthan le gt greaterthan ge in")

# Those that runs without the logic flag WORDS have not.
NEW = words("batch center e escape format groupby slice sum truncate wordcount")

_FILTERS: Any = FILTERS
_TESTS: Any = TESTS


class Filters:
    """The filters of one environment."""

    def __init__(
        self,
        environment: jinja2.Environment,
        budget: Budget,
        add: Callable[[Any, Any], Any],
    ) -> None:
        """`add` is what + does in templates."""
        self._environment, self._budget, self._add = environment, budget, add

    def table(self, old: bool = False) -> dict[str, Any]:
        """By name; ``old``: without `NEW`."""
        filters = {**self._of_values(), **self._of_lists(), **self._meters()}
        filters["count"] = filters["length"]
        filters["d"] = filters["default"] = _FILTERS["default"]
        filters["e"] = filters["escape"]
        filters["safe"] = filters["string"]  # Nothing is escaped that does not say so.
        for name in NEW if old else ():
            del filters[name]
        return filters

    def _of_values(self) -> dict[str, Any]:
        counted = self._budget.counted
        return {
            "abs": counted(abs),
            "capitalize": counted(lambda value: as_text(value).capitalize()),
            "center": counted(lambda value, width=80: padded("center")(as_text(value), width)),
            "escape": counted(lambda value: str(escape(as_text(value)))),
            "float": counted(_FILTERS["float"]),
            "format": counted(_format),
            "indent": counted(_indent),
            "int": counted(_FILTERS["int"]),
            "lower": counted(lambda value: as_text(value).lower()),
            "replace": counted(_replace),
            "round": counted(_round),
            "string": counted(as_text),
            "title": counted(lambda value: _FILTERS["title"](as_text(value))),
            "tojson": counted(_to_json),
            "trim": counted(self._trim),
            "truncate": counted(self._truncate),
            "upper": counted(lambda value: as_text(value).upper()),
            "wordcount": counted(lambda value: _FILTERS["wordcount"](as_text(value))),
        }

    def _of_lists(self) -> dict[str, Any]:
        counted, shallow, iterated = (
            self._budget.counted,
            self._budget.shallow,
            self._budget.iterated,
        )
        made = {
            "batch": counted(self._batch),
            "dictsort": counted(_dict_sort),
            "first": lambda value: self._end(value, 0, "first"),
            "groupby": counted(self._groups),
            "items": shallow(items),
            "join": counted(self._join),
            "last": lambda value: self._end(value, -1, "last"),
            "length": shallow(length),
            "list": shallow(iterated),
            "reverse": shallow(lambda v: v[::-1] if isinstance(v, str) else iterated(v)[::-1]),
            "slice": counted(self._slices),
            "sum": counted(self._sum),
            "unique": counted(
                lambda *args, **named: list(sync_do_unique(self._environment, *args, **named))
            ),
        }
        for name in ("max", "min", "sort"):
            made[name] = counted(self._with_environment(_FILTERS[name]))
        for name in ("map", "reject", "rejectattr", "select", "selectattr"):
            made[name] = self._over(name)
        return made

    def _meters(self) -> dict[str, Any]:
        """What `template_syntax` puts in. Neither templates nor `map` can name them."""
        budget = self._budget
        return {
            "~": budget.shallow(lambda parts: budget.joined("", [as_text(part) for part in parts])),
            "[:]": budget.shallow(sliced),
            "{:}": as_key,
            "==": budget.weighed,
            "for()": budget.iterated,
            "()": budget.spend,
        }

    def _with_environment(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **named: function(self._environment, *args, **named)

    def _over(self, name: str) -> Callable[..., Any]:
        """The filters that apply another filter or a test to every item."""

        @pass_context
        def call(context: Context, value: Any, /, *args: Any, **kwargs: Any) -> Any:
            self._budget.weigh(*args, *kwargs.values())
            if name == "map" and args and not str(as_text(args[0])).isidentifier():
                refuse("no such filter")
            values = self._budget.iterated(value)
            return list(_FILTERS[name](context, values, *args, **kwargs))

        return call

    def _end(self, value: Any, index: int, name: str) -> Any:
        if type(value) is dict:
            value = self._budget.iterated(value)
        if isinstance(value, Undefined) or (type(value) in ITERABLES and not value):
            return self._environment.undefined(f"No {name} item, sequence was empty.")
        if type(value) not in ITERABLES:
            refuse(f"iterates over a {kind(value)}")
        return value[index]

    def _trim(self, value: Any, chars: str | None = None) -> str:
        text = as_text(value)
        self._budget.spend(len(text) * len(chars or "") >> 10)
        return text.strip(chars)

    def _truncate(self, value: Any, *args: Any, **named: Any) -> str:
        return str(_FILTERS["truncate"](self._environment, as_text(value), *args, **named))

    def _batch(self, value: Any, linecount: int, fill_with: Any = None) -> list[Any]:
        self._budget.spend(self._parts(linecount))  # So many may be filled in.
        return list(_FILTERS["batch"](self._budget.iterated(value), linecount, fill_with))

    def _slices(self, value: Any, slices: int, fill_with: Any = None) -> list[Any]:
        self._budget.spend(self._parts(slices))
        return list(sync_do_slice(self._budget.iterated(value), slices, fill_with))

    def _parts(self, count: Any) -> int:
        if type(count) is not int or count < 1:
            refuse("cuts a list into fewer than 1, or by something else than a whole number")
        return count

    def _groups(self, value: Any, *args: Any, **named: Any) -> list[Group]:
        found = sync_do_groupby(self._environment, self._budget.iterated(value), *args, **named)
        return [Group(*each) for each in found]

    def _sum(self, value: Any, attribute: Any = None, start: Any = 0) -> Any:
        total = start
        for item in self._each(value, attribute):
            total = self._add(total, item)
        return total

    def _each(self, value: Any, attribute: Any) -> list[Any]:
        """The items of a value, or what an attribute of each of them is."""
        found, getitem = self._budget.iterated(value), self._environment.getitem
        if attribute is not None:
            for part in str(as_text(attribute)).split("."):
                key = int(part) if part.isdecimal() else part
                found = [getitem(item, key) for item in found]
        return found

    def _join(self, value: Any, d: Any = "", attribute: Any = None) -> str:
        found = self._each(value, attribute)
        return self._budget.joined(as_text(d), [as_text(item) for item in found])


def tests_table(budget: Budget) -> dict[str, Any]:
    tests = {name: budget.shallow(_TESTS[name], False) for name in PLAIN_TESTS}
    for name in COMPARING_TESTS:
        tests[name] = budget.counted(_TESTS[name], False)
    for name in ("odd", "even", "divisibleby"):
        tests[name] = budget.counted(_of_integers(_TESTS[name]), False)
    tests["lower"] = budget.counted(lambda value: as_text(value).islower(), False)
    tests["upper"] = budget.counted(lambda value: as_text(value).isupper(), False)
    tests["sameas"] = budget.counted(same, False)
    return tests


def _of_integers(test: Callable[..., bool]) -> Callable[..., bool]:
    def call(*values: Any) -> bool:
        if not all(isinstance(value, int) for value in values):
            refuse("has a test of integers with something else")
        return test(*values)

    return call


def _format(value: Any, *args: Any, **named: Any) -> str:
    if args and named:
        refuse("formats a text with values in order and by name")
    return percent(as_text(value), named or args)


def _replace(value: Any, old: Any, new: Any, count: Any = None) -> str:
    limit = -1 if count is None else count
    return replaced(as_text(value), as_text(old), as_text(new), limit)


def _dict_sort(value: Any, *args: Any, **kwargs: Any) -> Any:
    if type(value) is not dict:
        refuse(f"sorts a {kind(value)} as a dict")
    return _FILTERS["dictsort"](value, *args, **kwargs)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text = as_text(value)
    each = len(width) if isinstance(width, str) else width
    if len(text) + (len(text.splitlines()) + 1) * (each + 1) > TEXT_MAX:
        refuse_long_text()
    return str(_FILTERS["indent"](text, width, first, blank))


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if not isinstance(value, (int, float)) or not -20 <= precision <= 20:
        refuse("rounds something else than a number, or to more than 20 digits")
    return _FILTERS["round"](value, precision, method)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """As templates expect it: jinja2's own would escape for HTML."""
    if indent is not None and not 0 <= indent <= 16:
        refuse("indents JSON by more than 16")
    if separators is not None and max(map(len, separators), default=0) > 16:
        refuse("separates JSON by more than 16 characters")
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    parts, size = [], 0
    for part in encoder.iterencode(value):
        parts.append(part)
        size += len(part)
        if size > TEXT_MAX:
            refuse_long_text()
    return "".join(parts)
