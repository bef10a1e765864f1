"""The grid: which runs a sweep is made of, and in which order. Pure.

Every combination of the values that keys were given, the first key slowest; for each of them every
seed. A run's number is its place in this order, whatever is finished first.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import SEED_MAX
from lockstep.engine.overrides import Setting, path_of, value_of

RUNS_MAX = 100_000
_SEEDS = re.compile(r"(\d{1,19})(?:\.\.(\d{1,19}))?")
_OPENING, _CLOSING = "[{", "]}"


@dataclass(frozen=True, slots=True)
class Axis:
    """One key and its values, in the order given."""

    key: str
    values: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One run.

    Attributes:
        number: From 1.
        seed: Of the run.
        settings: One of each axis.
    """

    number: int
    seed: int
    settings: tuple[Setting, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """As a `Job` takes them."""
        return tuple(map(str, self.settings))

    def __str__(self) -> str:
        return " ".join((f"seed={self.seed}", *self.texts))


def seeds_of(text: str) -> list[int]:
    """Seeds as people type them: ``0..99``, ``7``, ``1,5,20..29``.

    Raises:
        UsageError: it is none of these, or a seed is there twice.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = _SEEDS.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= SEED_MAX:
            raise UsageError(
                f"--seeds {text}: {part!r}, expected a seed or FIRST..LAST, such as 0..99, none "
                f"above {SEED_MAX}"
            )
        if last - first >= RUNS_MAX:
            raise _too_many(last - first + 1)
        for seed in range(first, last + 1):
            if seed in seeds:
                raise UsageError(f"--seeds {text}: seed {seed} is there twice")
            seeds[seed] = None
    return list(seeds)


def axes_of(texts: Sequence[str]) -> list[Axis]:
    """Axes as people type them, ``KEY=V1,V2`` each (`axis_of`).

    Raises:
        UsageError: one is none, or two are of one key.
    """
    axes: dict[str, Axis] = {}
    for text in texts:
        axis = axis_of(text)
        if axis.key in axes:
            raise UsageError(f"--set {text}: {axis.key} is set twice")
        if axis.key == "fleet.seed":
            raise UsageError(f"--set {text}: seeds are given by --seeds")
        axes[axis.key] = axis
    return list(axes.values())


def axis_of(text: str) -> Axis:
    """An axis: a dotted key (a bare one is of [fleet]) and values with commas between them.

    Values are as they stand in a fleet file. A word needs no quotes; what has a comma in it does.

    Raises:
        UsageError: it is none, or a value is there twice.
    """
    key, equals, rest = text.partition("=")
    if not (equals and key.strip() and rest.strip()):
        raise UsageError(f"--set is {text!r}, expected KEY=V1,V2, such as schedule.lookahead=1,2")
    where = f"--set {text}"
    path = path_of(key.strip(), where)
    settings: dict[str, Setting] = {}
    for part in _split(rest):
        setting = Setting(path, value_of(part.strip(), where))
        if str(setting) in settings:
            raise UsageError(f"{where}: {part.strip()} is there twice")
        settings[str(setting)] = setting
    values = tuple(settings.values())
    return Axis(values[0].key, values)


def _split(text: str) -> Iterator[str]:
    """At commas that are neither in quotes nor in brackets."""
    part, quote, depth, escaped = "", "", 0, False
    for character in text:
        if quote:
            ends = character == quote and not escaped
            escaped = character == "\\" and quote == '"' and not escaped
            quote = "" if ends else quote
        elif character in "\"'":
            quote = character
        elif character == "," and depth == 0:
            yield part
            part = ""
            continue
        depth += (character in _OPENING) - (character in _CLOSING) if not quote else 0
        part += character
    yield part


def combinations(axes: Sequence[Axis]) -> list[tuple[Setting, ...]]:
    """Every combination of values; one that is empty where there are no axes.

    Raises:
        UsageError: too many.
    """
    count = math.prod(len(axis.values) for axis in axes)
    if count > RUNS_MAX:
        raise _too_many(count)
    return list(itertools.product(*(axis.values for axis in axes)))


def points(combined: Sequence[tuple[Setting, ...]], seeds: Sequence[int]) -> list[Point]:
    """The grid.

    Raises:
        UsageError: too many.
    """
    if len(combined) * len(seeds) > RUNS_MAX:
        raise _too_many(len(combined) * len(seeds))
    pairs = itertools.product(combined, seeds)
    return [Point(n, seed, settings) for n, (settings, seed) in enumerate(pairs, 1)]


def _too_many(count: int) -> UsageError:
    return UsageError(f"a sweep of {count} runs, at most {RUNS_MAX} are possible")
