"""A chat template as a bounded function of its variables: same text or same refusal, everywhere.

A template is a program that came with the model. Jinja2's sandbox keeps it from the process, but
not from randomness, addresses of objects or work without end. So here everything is opt-in:

- Statements, filters, tests, functions and methods are those listed below, no others.
- Values are text, numbers of 64 bits, lists, tuples, dicts and ranges, made only of each other
  (never a set: its order differs from process to process). Only text, numbers, booleans, none and
  undefined become text.
- Every operation spends steps in proportion to what it reads and makes. The syntax tree is
  rewritten before it is compiled, so that loops, macros, comparisons, `~` and slices spend too.
  Nothing is computed while compiling.
"""

import json
import re
import string
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.filters import FILTERS, sync_do_unique
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace, missing, pass_context
from jinja2.visitor import NodeTransformer

from lockstep.engine.errors import ModelRejected, RequestRejected

STEPS_MAX = 1_000_000  # Of one rendering.
STEP_CHARS_BITS = 6  # Reading or making 64 characters is one step.
CHAT_CHARS_MAX = 8 << 20
TEXT_MAX = 1 << 20  # Characters of a text, items of a list, that an operation makes.
INT_MAX = 1 << 63
RANGE_MAX = 100_000
NESTING_MAX = 32  # Of values that are compared, sorted, passed or written as JSON.
MACROS_MAX = 32  # Macros that call macros.
BRACKETS_MAX = 24  # Open ones in an expression.
TREE_MAX = 80  # Depth of the syntax tree: far from where Python's own limits begin.
ERROR_CHARS_MAX = 300


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STATEMENTS = _words(
    "Template Output TemplateData Name NSRef Const List Tuple Dict Pair Getattr Getitem Slice Call"
    " Keyword Filter Test Concat Compare Operand And Or Not Add Sub Mul Div FloorDiv Mod Pow Neg"
    " Pos CondExpr If For Assign AssignBlock Macro With Break Continue"
)
METHODS: Mapping[type, frozenset[str]] = {
    str: _words(
        "capitalize casefold center count endswith find format index isalnum isalpha isascii"
        " isdecimal isdigit islower isnumeric isspace istitle isupper join ljust lower lstrip"
        " partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip"
        " split splitlines startswith strip swapcase title upper zfill"
    ),
    list: _words("count index"),
    tuple: _words("count index"),
    dict: _words("get items keys values"),
    LoopContext: _words("changed cycle"),
}
LOOP_VALUES = _words(
    "depth depth0 first index index0 last length nextitem previtem revindex revindex0"
)
# They compare every character with every one of their argument.
SLOW_METHODS = _words("rfind rindex rsplit rpartition strip lstrip rstrip")
PLAIN_TESTS = _words(
    "boolean callable defined false float integer iterable mapping none number sequence string"
    " true undefined"
)
COMPARING_TESTS = _words("== != < <= > >= eq equalto ne lt lessthan le gt greaterthan ge in")

_FILTERS: Any = FILTERS
_TESTS: Any = TESTS
_SCALARS = (str, int, float, bool, type(None))
_CONTAINERS = (list, tuple, dict)
_ITERABLES = (*_CONTAINERS, str, range)
_KINDS = {LoopContext: "loop", Macro: "macro", Namespace: "namespace"}
_PERCENT = re.compile(r"%(?:\((\w+)\))?([-+ #0]*\d{0,2}(?:\.\d{1,2})?)([sdifFeEgGxXo%])?")
# Not %s and %c, %x, %X, %p: the machine's time zone and locale.
_DATE = re.compile(r"%(-?[aAbBdDeFgGHIjmMRSTuUVwWyYzZf%])?")


class _Refused(jinja2.TemplateRuntimeError):
    """The template did what templates here may not do."""


class _Callable:
    """A function or method as templates see it: it can be called, and has no text."""

    __slots__ = ("function", "name", "owner")

    def __init__(self, name: str, function: Callable[..., Any], owner: Any = None) -> None:
        self.name, self.function, self.owner = name, function, owner

    def __repr__(self) -> str:
        return f"<{_kind(self)} {self.name}>"


class ChatTemplate:
    """One model's template. It renders one conversation at a time."""

    def __init__(self, source: str, date: datetime) -> None:
        """Compile.

        Args:
            source: Jinja2.
            date: What `strftime_now` shows.

        Raises:
            ModelRejected: malformed, nested too deep, or it has a statement that is not allowed.
        """
        self._environment = _Environment(date)
        try:
            self._template = self._environment.compiled(source)
        except RecursionError:
            raise ModelRejected(_deep_source()) from None
        except (jinja2.TemplateError, SyntaxError, ValueError, OverflowError) as error:
            text = error.msg if isinstance(error, SyntaxError) else str(error)
            raise ModelRejected(text[:ERROR_CHARS_MAX]) from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for these variables: texts, numbers, lists and dicts.

        Raises:
            RequestRejected: the template raised, or passed one of the limits.
        """
        self._environment.reset()
        parts, size = [], 0
        try:
            for part in self._template.generate(variables):
                parts.append(part)
                size += len(part)
                if size > CHAT_CHARS_MAX:
                    _refuse(f"writes more than {CHAT_CHARS_MAX} characters")
        except MemoryError:  # An accident of this process: no verdict on the request.
            raise
        except RecursionError:
            raise RequestRejected("messages: chat template: nested too deep") from None
        except Exception as error:  # A template can raise anything that Python can.
            text = f"messages: chat template: {error}"
            raise RequestRejected(text[:ERROR_CHARS_MAX]) from None
        return "".join(parts)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
    intercepted_unops = frozenset(("+", "-"))

    def __init__(self, date: datetime) -> None:
        # A `finalize` that takes the context and `optimized=False`: nothing is folded, so no
        # filter runs while compiling.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            finalize=self._written,
            optimized=False,
        )
        self._date = date
        self._steps = self._macros = 0
        functions: dict[str, Callable[..., Any]] = {
            "dict": _dict,
            "namespace": Namespace,
            "raise_exception": lambda message="": _refuse(_text(message)),
            "range": _range,
            "strftime_now": self._strftime,
        }
        self.globals = {name: _Callable(name, function) for name, function in functions.items()}
        self.filters.clear()
        self.filters.update(self._filters())
        self.tests.clear()
        self.tests.update(self._tests())

    def compiled(self, source: str) -> jinja2.Template:
        depth = deepest = 0
        for _, kind, token in self.lex(source):
            if kind == "operator":
                depth += (token in "([{") - (token in ")]}")
                deepest = max(deepest, depth)
        if deepest > BRACKETS_MAX:
            _refuse(_deep_source())
        tree = self.parse(source)
        _check(tree)
        code = self.compile(_Rewriter().visit(tree))
        return jinja2.Template.from_code(self, code, self.globals)

    def reset(self) -> None:
        self._steps = self._macros = 0

    def spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS_MAX:
            _refuse(f"takes more than {STEPS_MAX} steps")

    def weigh(self, *values: Any) -> None:
        """Spend one step for every value in these, and refuse what is nested too deep."""
        todo = [(value, 0) for value in values]
        while todo:
            value, depth = todo.pop()
            if type(value) in _CONTAINERS:
                if depth == NESTING_MAX:
                    _refuse(f"has a value nested deeper than {NESTING_MAX}")
                self.spend(1 + len(value))
                inner = (*value, *value.values()) if type(value) is dict else value
                todo.extend((item, depth + 1) for item in inner)
            else:
                self.spend(1 + (len(value) if type(value) is range else _chars(value)))

    def sealed(self, value: Any) -> Any:
        """A result, if it is a value that templates may have."""
        if isinstance(value, (str, *_CONTAINERS)):
            if len(value) > TEXT_MAX:
                what = "text" if isinstance(value, str) else "list"
                _refuse(f"makes a {what} longer than {TEXT_MAX}")
            self.spend(1 + (len(value) >> STEP_CHARS_BITS))
        elif isinstance(value, int):
            if abs(value) > INT_MAX:
                _refuse("makes a number beyond 64 bits")
        elif not isinstance(value, (float, type(None), range, Undefined, Namespace)):
            _refuse(f"makes a {_kind(value)}")
        return value

    # What compiled templates call.

    @pass_context
    def _written(self, _: Context, value: Any) -> str:
        text = _text(value)
        self.spend(1 + _chars(text))
        return text

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.spend(1)
        found = self._attribute(obj, attribute)
        if found is missing and type(obj) is dict:
            found = obj.get(attribute, missing)
        return self.undefined(obj=obj, name=attribute) if found is missing else found

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.spend(1)
        if type(argument) not in _SCALARS and not isinstance(argument, Undefined):
            _refuse(f"has a {_kind(argument)} as index")
        if type(obj) in _ITERABLES:
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
        if name not in METHODS.get(type(obj), ()):
            return missing
        if type(obj) is str and name in ("center", "format", "join", "ljust", "rjust", "zfill"):
            bounded = {"format": self._format, "join": self._join}.get(name)
            return _Callable(name, bounded or _padded(name), obj)
        return _Callable(name, _replace if name == "replace" else getattr(type(obj), name), obj)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.spend(1 + len(args) + len(kwargs))
        if type(__obj) is Macro:
            if __self._macros == MACROS_MAX:
                _refuse(f"nests macros deeper than {MACROS_MAX}")
            __self._macros += 1
            try:
                return __self.sealed(__context.call(__obj, *args, **kwargs))
            finally:
                __self._macros -= 1
        if type(__obj) is not _Callable:
            if isinstance(__obj, Undefined):
                __obj._fail_with_undefined_error()
            _refuse(f"calls a {_kind(__obj)}")
        for name in ("_loop_vars", "_block_vars"):
            kwargs.pop(name, None)
        return __self._called(__obj, *args, **kwargs)

    def _called(self, method: _Callable, /, *args: Any, **kwargs: Any) -> Any:
        owner = method.owner
        self.weigh(*args, *kwargs.values())
        if isinstance(owner, (str, list, tuple)):
            self.weigh(owner)
        elif isinstance(owner, dict):
            self.spend(len(owner))
        if owner is None:
            return self.sealed(method.function(*args, **kwargs))
        if method.name in SLOW_METHODS:
            longest = max((len(a) for a in (*args, *kwargs.values()) if type(a) is str), default=0)
            self.spend(len(owner) * longest >> 10)
        result = method.function(owner, *args, **kwargs)
        if isinstance(owner, LoopContext):
            return result  # One of the arguments, or a boolean.
        if isinstance(owner, dict) and method.name != "get":
            result = list(result)
        if method.name == "get":
            return result
        if isinstance(result, list):
            self.spend(len(result))
        return self.sealed(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.spend(1)
        if isinstance(left, str) and operator == "%":
            return self.sealed(self._percent(left, right))
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return self.binop_table[operator](left, right)  # Raises, and names it.
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        sequences = type(left) is type(right) and type(left) in (str, list, tuple)
        if operator == "*" and not numbers:
            sequence, times = (left, right) if isinstance(right, int) else (right, left)
            if type(sequence) in (str, list, tuple) and isinstance(times, int):
                if len(sequence) * times > TEXT_MAX:
                    _refuse(f"* gives more than {TEXT_MAX}")
                return self.sealed(sequence * times)
        if not numbers and not (sequences and operator == "+"):
            _refuse(f"has {_kind(left)} {operator} {_kind(right)}")
        if operator == "**" and not (
            isinstance(left, int) and isinstance(right, int) and 0 <= right <= 64
        ):
            _refuse(f"{left!r} ** {right!r} is out of bounds")
        return self.sealed(self.binop_table[operator](left, right))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        self.spend(1)
        if not isinstance(arg, (int, float, Undefined)):
            _refuse(f"has {operator} {_kind(arg)}")
        return self.sealed(self.unop_table[operator](arg))

    # Filters, tests and functions.

    def _filters(self) -> dict[str, Any]:
        counted, shallow = self._counted, self._shallow
        filters = {
            "abs": counted(abs),
            "capitalize": counted(lambda value: _text(value).capitalize()),
            "dictsort": counted(self._dictsort),
            "first": lambda value: self._end(value, 0, "first"),
            "float": counted(_FILTERS["float"]),
            "format": counted(
                lambda value, /, *args, **named: self._percent(_text(value), named or args)
            ),
            "indent": counted(_indent),
            "int": counted(_FILTERS["int"]),
            "items": shallow(lambda value: [] if isinstance(value, Undefined) else _items(value)),
            "join": counted(self._join_filter),
            "last": lambda value: self._end(value, -1, "last"),
            "list": shallow(self._iterated),
            "lower": counted(lambda value: _text(value).lower()),
            "max": counted(lambda *args, **named: _FILTERS["max"](self, *args, **named)),
            "min": counted(lambda *args, **named: _FILTERS["min"](self, *args, **named)),
            "replace": counted(
                lambda value, old, new, count=None: _replace(
                    _text(value), _text(old), _text(new), -1 if count is None else count
                )
            ),
            "reverse": shallow(
                lambda v: v[::-1] if isinstance(v, str) else self._iterated(v)[::-1]
            ),
            "round": counted(_round),
            "sort": counted(lambda *args, **named: _FILTERS["sort"](self, *args, **named)),
            "string": counted(_text),
            "sum": counted(self._sum),
            "title": counted(lambda value: _FILTERS["title"](_text(value))),
            "tojson": counted(_to_json),
            "trim": counted(self._trim),
            "unique": counted(lambda *args, **named: list(sync_do_unique(self, *args, **named))),
            "upper": counted(lambda value: _text(value).upper()),
            # What `_Rewriter` puts in. Their names cannot be written, `_over` refuses them too.
            "~": shallow(lambda parts: self._join("", [_text(part) for part in parts])),
            "[:]": shallow(_slice),
            "{:}": self._key,
            "==": self._weighed,
            "for()": self._iterated,
            "()": self.spend,
        }
        filters["count"] = filters["length"] = shallow(_length)
        filters["d"] = filters["default"] = _FILTERS["default"]
        filters["safe"] = filters["string"]  # Nothing is escaped here.
        for name in ("map", "reject", "rejectattr", "select", "selectattr"):
            filters[name] = self._over(name)
        return filters

    def _tests(self) -> dict[str, Any]:
        tests = {name: self._shallow(_TESTS[name], False) for name in PLAIN_TESTS}
        for name in COMPARING_TESTS:
            tests[name] = self._counted(_TESTS[name], False)
        for name in ("odd", "even", "divisibleby"):
            tests[name] = self._counted(_of_integers(_TESTS[name]), False)
        tests["lower"] = self._counted(lambda value: _text(value).islower(), False)
        tests["upper"] = self._counted(lambda value: _text(value).isupper(), False)
        tests["sameas"] = self._counted(_same, False)
        return tests

    def _counted(self, function: Callable[..., Any], seal: bool = True) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.weigh(*args, *kwargs.values())
            result = function(*args, **kwargs)
            return self.sealed(result) if seal else result

        return call

    def _shallow(self, function: Callable[..., Any], seal: bool = True) -> Callable[..., Any]:
        """As `_counted`, for what does not look into its first argument."""

        def call(value: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.spend(1)
            self.weigh(*args, *kwargs.values())
            result = function(value, *args, **kwargs)
            return self.sealed(result) if seal else result

        return call

    def _over(self, name: str) -> Callable[..., Any]:
        """The filters that apply another filter or a test to every item."""

        @pass_context
        def call(context: Context, value: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.weigh(*args, *kwargs.values())
            if name == "map" and args and not str(_text(args[0])).isidentifier():
                _refuse("no such filter")
            return list(_FILTERS[name](context, self._iterated(value), *args, **kwargs))

        return call

    def _iterated(self, value: Any, weight: int = 1) -> list[Any]:
        if isinstance(value, Undefined):
            return []
        if type(value) not in _ITERABLES:
            _refuse(f"iterates over a {_kind(value)}")
        self.spend(1 + len(value) * weight)
        return list(value)

    def _weighed(self, value: Any) -> Any:
        self.weigh(value)
        return value

    def _key(self, value: Any) -> Any:
        if type(value) not in _SCALARS:
            _refuse(f"has a {_kind(value)} as key")
        return value

    def _end(self, value: Any, index: int, name: str) -> Any:
        if type(value) is dict:
            value = self._iterated(value)
        if isinstance(value, Undefined) or (type(value) in _ITERABLES and not value):
            return self.undefined(f"No {name} item, sequence was empty.")
        if type(value) not in _ITERABLES:
            _refuse(f"iterates over a {_kind(value)}")
        return value[index]

    def _trim(self, value: Any, chars: str | None = None) -> str:
        text = _text(value)
        self.spend(len(text) * len(chars or "") >> 10)
        return text.strip(chars)

    def _dictsort(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if type(value) is not dict:
            _refuse(f"sorts a {_kind(value)} as a dict")
        return _FILTERS["dictsort"](value, *args, **kwargs)

    def _sum(self, value: Any, attribute: Any = None, start: Any = 0) -> Any:
        total = start
        for item in self._iterated(value):
            term = item if attribute is None else self.getitem(item, attribute)
            if not isinstance(term, (int, float)) or not isinstance(total, (int, float)):
                _refuse(f"sums a {_kind(term)}")
            total += term
        return total

    def _join_filter(self, value: Any, d: Any = "", attribute: Any = None) -> str:
        items = self._iterated(value)
        if attribute is not None:
            for part in str(_text(attribute)).split("."):
                items = [self.getitem(i, int(part) if part.isdecimal() else part) for i in items]
        return self._join(_text(d), [_text(item) for item in items])

    def _join(self, separator: str, parts: Any) -> str:
        parts = self._iterated(parts)
        size = len(separator) * len(parts)
        for part in parts:
            if not isinstance(part, str):
                _refuse(f"joins a {_kind(part)}")
            size += len(part)
        if size > TEXT_MAX + len(separator):
            _refuse(f"makes a text longer than {TEXT_MAX}")
        return separator.join(parts)

    def _percent(self, text: str, values: Any) -> str:
        """`text % values`, with texts and numbers only."""
        self.spend(1 + _chars(text) + text.count("%"))
        given = iter(values if isinstance(values, tuple) else (values,))
        parts, end, size = [], 0, 0
        for match in _PERCENT.finditer(text):
            name, layout, kind = match.groups()
            if kind is None or (kind == "%" and match[0] != "%%"):
                _refuse(f"has an unknown format {match[0]!r}")
            value: Any = "%"
            if kind != "%":
                named = values if isinstance(values, dict) else {}
                value = named.get(name, missing) if name else next(given, missing)
            if value is missing:
                _refuse("has more formats than values")
            if kind not in "s%" and not isinstance(value, (int, float)):
                _refuse(f"formats a {_kind(value)} as number")
            value = _text(value) if kind in "s%" else value
            piece = value if kind == "%" else f"%{layout}{kind}" % value
            parts += [text[end : match.start()], piece]
            end = match.end()
            size += len(piece)
            if size > TEXT_MAX:
                _refuse(f"makes a text longer than {TEXT_MAX}")
        if not isinstance(values, dict) and next(given, missing) is not missing:
            _refuse("has more values than formats")
        return "".join((*parts, text[end:]))

    def _format(self, text: str, /, *args: Any, **kwargs: Any) -> str:
        """`text.format(...)` with plain fields only."""
        self.spend(1 + text.count("{"))
        parts: list[str] = []
        size = automatic = 0
        for literal, field, layout, conversion in string.Formatter().parse(text):
            parts.append(literal)
            if field is None:
                continue
            if layout or conversion:
                _refuse("has a format with more than a name")
            if not field:
                field, automatic = str(automatic), automatic + 1
            named: Any = dict(enumerate(args)) if field.isdecimal() else kwargs
            value = named.get(int(field) if field.isdecimal() else field, missing)
            if value is missing:
                _refuse(f"has no value for the field {field!r}")
            parts.append(_text(value))
            size += len(parts[-1])
            if size > TEXT_MAX:
                _refuse(f"makes a text longer than {TEXT_MAX}")
        return "".join(parts)

    def _strftime(self, layout: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] is None:
                _refuse(f"has an unknown date format {layout[match.start() :][:2]!r}")
            return self._date.strftime(match[0])

        self.spend(layout.count("%"))
        return _DATE.sub(one, layout)


class _Rewriter(NodeTransformer):
    """Puts calls of filters around what jinja2 compiles to bare Python."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [
            nodes.Const(child.data, lineno=child.lineno)
            if isinstance(child, nodes.TemplateData)
            else child
            for child in node.nodes
        ]
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter("~", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _compared(node.expr)
        for operand in node.ops:
            operand.expr = _compared(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        cut = node.arg
        if not isinstance(cut, nodes.Slice):
            return node
        none = nodes.Const(None, lineno=node.lineno)
        return _filter("[:]", node.node, cut.start or none, cut.stop or none, cut.step or none)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter("{:}", node.key)
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        if node.filter is None:
            node.filter = nodes.Filter(None, "string", [], [], None, None, lineno=node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        weight = nodes.Const(_size(node), lineno=node.lineno)
        self.generic_visit(node)
        node.iter = _filter("for()", node.iter, weight)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        weight = nodes.Const(_size(node), lineno=node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter("()", weight), lineno=node.lineno))
        return node


def _filter(name: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _compared(value: nodes.Expr) -> nodes.Expr:
    return value if isinstance(value, nodes.Const) else _filter("==", value)


def _size(node: nodes.Node) -> int:
    """Steps of what in a body spends none by itself."""
    return 1 + sum(1 for _ in node.find_all(nodes.Node)) // 16


def _check(tree: nodes.Template) -> None:
    todo: list[tuple[nodes.Node, int]] = [(tree, 1)]
    while todo:
        node, depth = todo.pop()
        name = type(node).__name__
        if name not in STATEMENTS or (isinstance(node, nodes.For) and node.recursive):
            _refuse(f"{name} is not allowed" + (f" (line {node.lineno})" if node.lineno else ""))
        if depth > TREE_MAX:
            _refuse(_deep_source())
        if isinstance(node, nodes.Const) and isinstance(node.value, (int, float)):
            if not -INT_MAX <= node.value <= INT_MAX and not isinstance(node.value, float):
                _refuse(f"line {node.lineno}: a number beyond 64 bits")
            if abs(node.value) == float("inf"):
                _refuse(f"line {node.lineno}: a number that is not finite")
        todo.extend((child, depth + 1) for child in node.iter_child_nodes())


def _deep_source() -> str:
    return f"nested deeper than {BRACKETS_MAX} brackets or {TREE_MAX} levels"


def _refuse(text: str) -> NoReturn:
    raise _Refused(text)


def _kind(value: Any) -> str:
    if isinstance(value, _Callable):
        return "function" if value.owner is None else "method"
    return _KINDS.get(type(value), type(value).__name__)


def _chars(value: Any) -> int:
    return len(value) >> STEP_CHARS_BITS if isinstance(value, str) else 0


def _text(value: Any) -> str:
    if type(value) in _SCALARS or isinstance(value, Undefined):
        return str(value)
    return _refuse(f"prints a {_kind(value)}")


def _items(value: Any) -> list[Any]:
    if type(value) is not dict:
        _refuse(f"takes the items of a {_kind(value)}")
    return list(value.items())


def _length(value: Any) -> int:
    if type(value) not in _ITERABLES and not isinstance(value, Undefined):
        _refuse(f"takes the length of a {_kind(value)}")
    return len(value)


def _slice(value: Any, start: Any, stop: Any, step: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if type(value) not in (str, list, tuple, range):
        _refuse(f"slices a {_kind(value)}")
    return value[start:stop:step]


def _same(left: Any, right: Any) -> bool:
    """As `is`, but not for texts and numbers: which of those are one object is Python's affair."""
    if type(left) in _SCALARS:
        return type(left) is type(right) and bool(left == right)
    return left is right


def _of_integers(test: Callable[..., bool]) -> Callable[..., bool]:
    def call(*values: Any) -> bool:
        if not all(isinstance(value, int) for value in values):
            _refuse("has a test of integers with something else")
        return test(*values)

    return call


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    made = dict(*args, **kwargs)
    for key in made:
        if type(key) not in _SCALARS:
            _refuse(f"has a {_kind(key)} as key")
    return made


def _range(*args: Any) -> range:
    made = range(*args)
    if -((made.start - made.stop) // made.step) > RANGE_MAX:  # len() overflows at 2 ** 63.
        _refuse(f"has a range of more than {RANGE_MAX}")
    return made


def _replace(text: str, old: str, new: str, count: int = -1, /) -> str:
    found = text.count(old)
    if count >= 0:
        found = min(found, count)
    if len(text) + found * (len(new) - len(old)) > TEXT_MAX:
        _refuse(f"makes a text longer than {TEXT_MAX}")
    return text.replace(old, new, count)


def _padded(name: str) -> Callable[..., str]:
    def call(text: str, width: int, *args: str) -> str:
        if width > TEXT_MAX:
            _refuse(f"makes a text longer than {TEXT_MAX}")
        return str(getattr(text, name)(width, *args))

    return call


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text = _text(value)
    each = len(width) if isinstance(width, str) else width
    if len(text) + (len(text.splitlines()) + 1) * (each + 1) > TEXT_MAX:
        _refuse(f"makes a text longer than {TEXT_MAX}")
    return str(_FILTERS["indent"](text, width, first, blank))


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if not isinstance(value, (int, float)) or not -20 <= precision <= 20:
        _refuse("rounds something else than a number, or to more than 20 digits")
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
        _refuse("indents JSON by more than 16")
    if separators is not None and max(map(len, separators), default=0) > 16:
        _refuse("separates JSON by more than 16 characters")
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    parts, size = [], 0
    for part in encoder.iterencode(value):
        parts.append(part)
        size += len(part)
        if size > TEXT_MAX:
            _refuse(f"makes a text longer than {TEXT_MAX}")
    return "".join(parts)
