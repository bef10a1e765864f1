"""The jinja2 environment of chat templates: every attribute, call and operator is opt-in.

Jinja2's sandbox keeps a template from the process, but not from randomness, addresses of objects or
work without end. So here functions and methods are those listed below, no others, operators take
plain values only, and all of it is charged to the budget. Nothing is computed while compiling.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing, pass_context

from lockstep.workers.inference.template_budget import Budget, char_steps
from lockstep.workers.inference.template_filters import Filters, tests_table
from lockstep.workers.inference.template_formats import formatted, percent
from lockstep.workers.inference.template_syntax import Generation, metered
from lockstep.workers.inference.template_values import (
    ITERABLES,
    SCALARS,
    TEXT_MAX,
    Function,
    Group,
    as_text,
    kind,
    new_dict,
    new_range,
    padded,
    refuse,
    replaced,
    words,
)

MACROS_MAX = 32  # Macros that call macros.
METHODS: Mapping[type, frozenset[str]] = {
    str: words(
        "capitalize casefold center count endswith find format index isalnum isalpha isascii"
        " isdecimal isdigit islower isnumeric isspace istitle isupper join ljust lower lstrip"
        " partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit"
        " rstrip split splitlines startswith strip swapcase title upper zfill"
    ),
    list: words("count index"),
    tuple: words("count index"),
    dict: words("get items keys values"),
    LoopContext: words("changed cycle"),
}
LOOP_VALUES = words(
    "depth depth0 first index index0 last length nextitem previtem revindex revindex0"
)
# They compare every character with every one of their argument.
SLOW_METHODS = words("rfind rindex rsplit rpartition strip lstrip rstrip")
PADDING_METHODS = words("center ljust rjust zfill")
# What runs without the logic flag WORDS hear.
NO_FORMATS = "formats a text, which templates here cannot: join its parts with ~"

# Not %s and %c, %x, %X: the machine's time zone and locale.
_DATE = re.compile(r"%(-?[aAbBdDeFgGHIjmMpRSTuUVwWyYzZf%])?")
_OLD_DATE = re.compile(_DATE.pattern.replace("p", ""))


class Sandbox(ImmutableSandboxedEnvironment):
    """What one template is compiled and rendered in."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
    intercepted_unops = frozenset(("+", "-"))

    def __init__(self, date: datetime, old: bool = False) -> None:
        # A `finalize` that takes the context and `optimized=False`: nothing is folded, so no
        # filter runs while compiling.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", Generation],
            finalize=self._written,
            optimized=False,
        )
        self._date, self._old = date, old
        self._budget = Budget()
        self._macros = 0
        functions: dict[str, Callable[..., Any]] = {
            "dict": new_dict,
            "namespace": Namespace,
            "raise_exception": lambda message="": refuse(as_text(message)),
            "range": new_range,
            "strftime_now": self._strftime,
        }
        self.globals = {name: Function(name, function) for name, function in functions.items()}
        self.filters.clear()
        self.filters.update(Filters(self, self._budget, self._add).table(old))
        self.tests.clear()
        self.tests.update(tests_table(self._budget))
        # In place of the methods of texts that could make a large one of a small one.
        self._texts: dict[str, Callable[..., Any]] = {
            "format": formatted,
            "join": self._budget.joined,
            "replace": replaced,
            **{name: padded(name) for name in PADDING_METHODS},
        }

    def compiled(self, source: str) -> jinja2.Template:
        code = self.compile(metered(source, self))
        return jinja2.Template.from_code(self, code, self.globals)

    def reset(self) -> None:
        """Forget what the last rendering spent."""
        self._budget.reset()
        self._macros = 0

    # What compiled templates call.

    @pass_context
    def _written(self, _: Context, value: Any) -> str:
        text = as_text(value)
        self._budget.spend(1 + char_steps(text))
        return text

    def getattr(self, obj: Any, attribute: str) -> Any:
        self._budget.spend(1)
        found = self._attribute(obj, attribute)
        if found is missing and type(obj) is dict:
            found = obj.get(attribute, missing)
        return self.undefined(obj=obj, name=attribute) if found is missing else found

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._budget.spend(1)
        if type(argument) not in SCALARS and not isinstance(argument, Undefined):
            refuse(f"has a {kind(argument)} as index")
        if type(obj) in ITERABLES:
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        found = self._attribute(obj, argument) if isinstance(argument, str) else missing
        return self.undefined(obj=obj, name=argument) if found is missing else found

    def _attribute(self, obj: Any, name: str) -> Any:
        if isinstance(obj, Undefined):
            obj._fail_with_undefined_error()
        if type(obj) is Namespace:
            return missing if name.startswith("_") else getattr(obj, name, missing)
        if type(obj) is LoopContext and name in LOOP_VALUES:
            return getattr(obj, name)
        if type(obj) is Group and name in Group._fields:
            return getattr(obj, name)
        if self._old and type(obj) is str and name == "format":
            refuse(NO_FORMATS)
        if name not in METHODS.get(type(obj), ()):
            return missing
        function = getattr(type(obj), name)
        if type(obj) is str:
            function = self._texts.get(name, function)
        return Function(name, function, obj)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self._budget.spend(1 + len(args) + len(kwargs))
        if type(__obj) is Macro:
            return __self._called_macro(__context, __obj, *args, **kwargs)
        if type(__obj) is not Function:
            if isinstance(__obj, Undefined):
                __obj._fail_with_undefined_error()
            refuse(f"calls a {kind(__obj)}")
        if "caller" in kwargs:
            refuse(f"calls a {kind(__obj)} with a block")
        for name in ("_loop_vars", "_block_vars"):
            kwargs.pop(name, None)
        __self._budget.weigh(*args, *kwargs.values())
        if __obj.owner is None:
            return __self._budget.sealed(__obj.call(*args, **kwargs))
        return __self._called_method(__obj, *args, **kwargs)

    def _called_macro(self, context: Context, macro: Macro, /, *args: Any, **kwargs: Any) -> Any:
        if self._macros == MACROS_MAX:
            refuse(f"nests macros deeper than {MACROS_MAX}")
        self._macros += 1
        try:
            return self._budget.sealed(context.call(macro, *args, **kwargs))
        finally:
            self._macros -= 1

    def _called_method(self, method: Function, /, *args: Any, **kwargs: Any) -> Any:
        owner = method.owner
        if isinstance(owner, (str, list, tuple)):
            self._budget.weigh(owner)
        elif isinstance(owner, dict):
            self._budget.spend(len(owner))
        if method.name in SLOW_METHODS:
            longest = max((len(a) for a in (*args, *kwargs.values()) if type(a) is str), default=0)
            self._budget.spend(len(owner) * longest >> 10)
        result = method.call(owner, *args, **kwargs)
        if isinstance(owner, LoopContext) or method.name == "get":
            return result  # A boolean, or one of the values that it was given.
        if isinstance(owner, dict):
            result = list(result)
        if isinstance(result, list):
            self._budget.spend(len(result))
        return self._budget.sealed(result)

    def _add(self, left: Any, right: Any) -> Any:
        return self.call_binop(None, "+", left, right)

    def call_binop(self, context: Context | None, operator: str, left: Any, right: Any) -> Any:
        self._budget.spend(1)
        if isinstance(left, str) and operator == "%":
            if self._old:
                refuse(NO_FORMATS)
            self._budget.weigh(left, right)
            return self._budget.sealed(percent(left, right))
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return self.binop_table[operator](left, right)  # Raises, and names it.
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        sequences = type(left) is type(right) and type(left) in (str, list, tuple)
        if operator == "*" and not numbers:
            sequence, times = (left, right) if isinstance(right, int) else (right, left)
            if type(sequence) in (str, list, tuple) and isinstance(times, int):
                if len(sequence) * times > TEXT_MAX:
                    refuse(f"* gives more than {TEXT_MAX}")
                return self._budget.sealed(sequence * times)
        if not numbers and not (sequences and operator == "+"):
            refuse(f"has {kind(left)} {operator} {kind(right)}")
        if operator == "**" and not (
            isinstance(left, int) and isinstance(right, int) and 0 <= right <= 64
        ):
            refuse(f"{left!r} ** {right!r} is out of bounds")
        return self._budget.sealed(self.binop_table[operator](left, right))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        self._budget.spend(1)
        if not isinstance(arg, (int, float, Undefined)):
            refuse(f"has {operator} {kind(arg)}")
        return self._budget.sealed(self.unop_table[operator](arg))

    def _strftime(self, layout: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] is None:
                refuse(f"has an unknown date format {layout[match.start() :][:2]!r}")
            return self._date.strftime(match[0])

        self._budget.spend(layout.count("%"))
        return (_OLD_DATE if self._old else _DATE).sub(one, layout)
