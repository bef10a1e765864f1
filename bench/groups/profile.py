"""Group ``profile``: what it costs to record where the time goes (docs/profiling.md).

Two runs of one fleet go on side by side, one recorded and one not, and are asked for rounds in
turn: wall time and CPU time of all processes. A ratio of 1 means that recording costs nothing.

Where memory happens to lie makes one process a few percent slower than its equal, for its life. So
both are started several times, in turn the one first and the other.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from lockstep.bench import machine, models
from lockstep.bench.contestant import lockstep
from lockstep.bench.groups import Tell, building
from lockstep.bench.groups.agents import ENDLESS
from lockstep.bench.groups.agents import FLEET as RING
from lockstep.bench.groups.journal import FLEET as ASKING
from lockstep.bench.line import Line
from lockstep.bench.pairs import ratio
from lockstep.bench.report import Report

AGENTS = 16
STARTS, STARTS_QUICK = 6, 2
PAIRS = 8  # Of rounds, with each start.
WARM_TURNS = 500
TURNS, ASKING_TURNS = 1_000, 64  # Of a round.


class Cost(NamedTuple):
    """Of one round, in ns."""

    wall: float
    cpu: float


setup = building(models.small)


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: the model cannot be built, or a run ended before its time.
    """
    report = Report("profile", machine.describe())
    starts = STARTS_QUICK if quick else STARTS
    tell(f"{AGENTS} agents that pass a token, recorded in pairs with not")
    _price(report, "turns", ring(), "", TURNS, starts)
    tell(f"{AGENTS} agents that ask a model, likewise")
    _price(report, "model", asking(models.small(tell)), "{}\n" * 100_000, ASKING_TURNS, starts)
    return report


def ring() -> str:
    """Agents that pass one token of 64 bytes round: each turn is one pass, and little in it."""
    config = f"tokens = 1, bytes = 64, hops = {ENDLESS}"
    return RING.format(name="ring", guest="relay", agents=AGENTS, config=config)


def asking(model: Path) -> str:
    """Agents that ask a model for 32 tokens, again and again."""
    return ASKING.format(agents=AGENTS, window_s=1, model=model, input="deal", fuel=2_000_000,
                         requests=63, tokens=32, prompt=32)  # fmt: skip


def _price(report: Report, name: str, fleet: str, lines: str, turns: int, starts: int) -> None:
    measured = [
        pair for number in range(starts) for pair in _started(fleet, lines, turns, number % 2 > 0)
    ]
    for what in Cost._fields:
        report.ratios[f"{name}_{what}"] = ratio(
            [getattr(without, what) / getattr(held, what) for held, without in measured]
        )
        spent = median(getattr(without, what) for _, without in measured)
        report.results[f"{name}_{what}_us"] = (spent / turns / 1e3, "us")


def _started(fleet: str, lines: str, turns: int, other_first: bool) -> list[tuple[Cost, Cost]]:
    """Both, from their start to their end: pairs of a recorded round and one that is not."""
    with ExitStack() as stack:
        both = {
            profiled: stack.enter_context(lockstep(fleet, lines, profiled=profiled))
            for profiled in (not other_first, other_first)
        }
        for line in both.values():
            line.ask(turns=4 * AGENTS if lines else WARM_TURNS)
        return list(_alternating(both[True], both[False], turns, PAIRS))


def _alternating(ours: Line, theirs: Line, turns: int, pairs: int) -> Iterator[tuple[Cost, Cost]]:
    """As `pairs.interleave`, of costs: one asked while the other waits."""
    for number in range(pairs):
        if number % 2:
            other = _round(theirs, turns)
            yield _round(ours, turns), other
        else:
            own = _round(ours, turns)
            yield own, _round(theirs, turns)


def _round(line: Line, turns: int) -> Cost:
    before = _cpu_ns(line.pid)
    answer = line.ask(turns=turns)
    used = _cpu_ns(line.pid) - before
    return Cost(*(each / answer["turns"] * turns for each in (answer["ns"], used)))


def _cpu_ns(pid: int) -> int:
    """Of a supervisor and its children, of whose threads the first one does the work."""
    pids = [pid, *(child.pid for child in psutil.Process(pid).children())]
    return sum(int(Path(f"/proc/{each}/schedstat").read_text().split()[0]) for each in pids)
