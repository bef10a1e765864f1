"""The budget of one rendering: how much a chat template may do, and how large its values may be.

Work is counted in steps in proportion to what an operation reads and makes, never in time, so the
same template stops at the same place on every machine.
"""

from collections.abc import Callable
from typing import Any

from jinja2.runtime import Undefined
from jinja2.utils import Namespace

from lockstep.workers.inference.template_values import (
    CONTAINERS,
    INT_MAX,
    ITERABLES,
    TEXT_MAX,
    kind,
    refuse,
    refuse_long_text,
)

STEPS_MAX = 1_000_000  # Of one rendering.
STEP_CHARS_BITS = 6  # Reading or making 64 characters is one step.
NESTING_MAX = 32  # Of values that are compared, sorted, passed or written as JSON.


class Budget:
    """The steps that are left, and the operations that spend them."""

    def __init__(self) -> None:
        self._steps = 0

    def reset(self) -> None:
        self._steps = 0

    def spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS_MAX:
            refuse(f"takes more than {STEPS_MAX} steps")

    def weigh(self, *values: Any) -> None:
        """Spend one step for every value in these, and refuse what is nested too deep."""
        todo = [(value, 0) for value in values]
        while todo:
            value, depth = todo.pop()
            if type(value) in CONTAINERS:
                if depth == NESTING_MAX:
                    refuse(f"has a value nested deeper than {NESTING_MAX}")
                self.spend(1 + len(value))
                inner = (*value, *value.values()) if type(value) is dict else value
                todo.extend((item, depth + 1) for item in inner)
            else:
                self.spend(1 + (len(value) if type(value) is range else char_steps(value)))

    def weighed(self, value: Any) -> Any:
        self.weigh(value)
        return value

    def sealed(self, value: Any) -> Any:
        """A result, if it is a value that templates may have."""
        if isinstance(value, (str, *CONTAINERS)):
            if len(value) > TEXT_MAX:
                what = "text" if isinstance(value, str) else "list"
                refuse(f"makes a {what} longer than {TEXT_MAX}")
            self.spend(1 + (len(value) >> STEP_CHARS_BITS))
        elif isinstance(value, int):
            if abs(value) > INT_MAX:
                refuse("makes a number beyond 64 bits")
        elif not isinstance(value, (float, type(None), range, Undefined, Namespace)):
            refuse(f"makes a {kind(value)}")
        return value

    def iterated(self, value: Any, weight: int = 1) -> list[Any]:
        """The items of a value, `weight` steps for each."""
        if isinstance(value, Undefined):
            return []
        if type(value) not in ITERABLES:
            refuse(f"iterates over a {kind(value)}")
        self.spend(1 + len(value) * weight)
        return list(value)

    def joined(self, separator: str, parts: Any) -> str:
        parts = self.iterated(parts)
        size = len(separator) * len(parts)
        for part in parts:
            if not isinstance(part, str):
                refuse(f"joins a {kind(part)}")
            size += len(part)
        if size > TEXT_MAX + len(separator):
            refuse_long_text()
        return separator.join(parts)

    def counted(self, function: Callable[..., Any], seal: bool = True) -> Callable[..., Any]:
        """This function, all its arguments weighed and its result sealed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.weigh(*args, *kwargs.values())
            result = function(*args, **kwargs)
            return self.sealed(result) if seal else result

        return call

    def shallow(self, function: Callable[..., Any], seal: bool = True) -> Callable[..., Any]:
        """As `counted`, for what does not look into its first argument."""

        def call(value: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.spend(1)
            self.weigh(*args, *kwargs.values())
            result = function(value, *args, **kwargs)
            return self.sealed(result) if seal else result

        return call


def char_steps(value: Any) -> int:
    """Steps to read this, if it is a text."""
    return len(value) >> STEP_CHARS_BITS if isinstance(value, str) else 0
