"""Group ``tax``: what strict order costs: throughput strict / arrival, everything else equal.

Each cell of the table is a fleet. It is run in both orders alternately, one run each per pair;
throughput is tokens of answers per second from the first tag to the last, start of processes
excluded. docs/benchmarks.md says what the fleets are and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lockstep.bench import machine, models
from lockstep.bench.contestant import whole
from lockstep.bench.groups import Tell, building
from lockstep.bench.pairs import Ratio, interleave, paired, ratio
from lockstep.bench.report import Report
from lockstep.workers.pictures.chart import Chart, Line, row
from lockstep.workers.pictures.scale import Kind

PAIRS, PAIRS_QUICK = 9, 4
SECONDS = 2.0  # About what one run of a cell takes, without its start.
REQUESTS_MAX = 63  # What the guest takes.
FUEL_PER_MS = 20_000_000  # Of the guest's loop on the machine the cells were made for.
FUEL_PER_STEP = 3 * FUEL_PER_MS  # A step of the small model with 8 rows takes 3 ms there.
LOOKAHEAD = 1
ROWS_MIN = 8

CURVE_PAIRS, CURVE_PAIRS_QUICK = 7, 3
CURVE_CELLS = ("a8_t16_think2", "a16_t16_tail2", "a8_t16_slow20")
QUANTUM_FACTORS = (0.125, 0.25, 0.5, 1, 2, 4, 8)
LOOKAHEADS = (0, 1, 2, 4, 8)
TITLE = "Strict order over arrival order: tokens per second"
ABOUT = "A line for each fleet, over the quantum of logical time and over the lookahead; 1: no loss"

INPUT = '{"id": "all"}\n'
FLEET = """
[fleet]
name = "tax"
[schedule]
order = "{order}"
lookahead = {lookahead}
fuel_per_step = {fuel_per_step}
[models.default]
path = "{model}"
providers = ["cpu"]
rows_max = {rows}
tokens_max = {tokens_max}
"""
AGENTS = """
[agents.{name}]
module = "GUESTS/think.wasm"
replicas = {replicas}
input = "broadcast"
[agents.{name}.config]
fuel = {fuel}
tail = {tail}
requests = {requests}
tokens = {tokens}
prompt_bytes = {prompt}
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One fleet of the table: every agent thinks, asks and thinks again, many times.

    Attributes:
        agents: How many.
        tokens: Of each answer.
        think_ms: Guest work between an answer and the next request, about.
        tail: Thoughts vary: half of them are half as long or shorter, few many times as long.
        slow_ms: One agent's thoughts, if it is slower than the rest.
        prompt: Tokens of each prompt.
    """

    agents: int
    tokens: int
    think_ms: float
    tail: bool = False
    slow_ms: float = 0.0
    prompt: int = 16

    @property
    def name(self) -> str:
        """``a8_t16_think2``: agents, tokens, what is special."""
        kind = "tail" if self.tail else "think"
        what = f"slow{self.slow_ms:g}" if self.slow_ms else f"{kind}{self.think_ms:g}"
        long = f"_prompt{self.prompt}" if self.prompt > 16 else ""
        return f"a{self.agents}_t{self.tokens}_{what}{long}".replace(".", "")

    def requests(self, think_ms: float) -> int:
        """So many of each agent that a run takes about `SECONDS`."""
        step_ms = 1.2 + 0.24 * self.agents
        prefill_ms = 0.14 * self.prompt * self.agents
        busy_ms = self.think_ms * self.agents / 2  # Two cores, and the model wants its share.
        round_ms = self.tokens * step_ms + think_ms + busy_ms + prefill_ms
        return min(max(2, round(SECONDS * 1e3 / round_ms)), REQUESTS_MAX)

    def fleet(
        self,
        model: Path,
        order: str,
        fuel_per_step: int = FUEL_PER_STEP,
        lookahead: int = LOOKAHEAD,
    ) -> str:
        """Text of the fleet file."""
        head = FLEET.format(
            order=order,
            lookahead=lookahead,
            fuel_per_step=fuel_per_step,
            model=model,
            rows=max(ROWS_MIN, self.agents),
            tokens_max=self.prompt + self.tokens + 16,
        )
        slow = bool(self.slow_ms)
        groups = self._group("agent", self.agents - slow, self.think_ms)
        return head + groups + (self._group("slow", 1, self.slow_ms) if slow else "")

    def _group(self, name: str, replicas: int, think_ms: float) -> str:
        return AGENTS.format(
            name=name,
            replicas=replicas,
            fuel=round(think_ms * FUEL_PER_MS),
            tail=int(self.tail),
            requests=self.requests(think_ms),
            tokens=self.tokens,
            prompt=self.prompt,
        )


CELLS = (
    Cell(5, 5, 0.2),
    Cell(5, 64, 2),
    Cell(8, 16, 2),
    Cell(8, 16, 20),
    Cell(8, 32, 2, tail=True),
    Cell(8, 16, 2, slow_ms=20),
    Cell(8, 16, 2, prompt=400),
    Cell(16, 8, 5, tail=True),
    Cell(16, 16, 2, tail=True),
    Cell(16, 64, 0.2),
    Cell(32, 16, 1),
    Cell(64, 16, 0.5, tail=True),
)

setup = building(models.small)


def run(quick: bool, tell: Tell, curves: Path | None = None) -> Report:
    """Measure the table, and the curves if somebody wants the picture.

    Args:
        quick: Fewer pairs.
        tell: Hears how far it is.
        curves: Where to write the picture; None: measure the table only.

    Raises:
        UsageError: the model cannot be built, or a run ended before its time.
    """
    report = Report("tax", machine.describe())
    model = models.small(tell)
    cells: dict[str, Ratio] = {}
    for number, cell in enumerate(CELLS, 1):
        tell(f"cell {number} of {len(CELLS)}: {cell.name}")
        cells[cell.name] = _cell(report, cell, model, PAIRS_QUICK if quick else PAIRS)
    book(report, cells)
    if curves is not None:
        pairs = CURVE_PAIRS_QUICK if quick else CURVE_PAIRS
        drawn = row(TITLE, ABOUT, _curves(model, pairs, tell))
        curves.write_text(drawn, encoding="utf-8")
        tell(f"wrote {curves}")
    return report


def book(report: Report, cells: Mapping[str, Ratio]) -> None:
    """The table's own ratios: the median over the cells, and the worst cell."""
    report.ratios["strict_over_arrival"] = ratio([cell.median for cell in cells.values()])
    report.ratios["strict_over_arrival_worst"] = min(cells.values())
    report.ratios |= {f"strict_over_arrival_{name}": cell for name, cell in cells.items()}


def _cell(report: Report, cell: Cell, model: Path, pairs: int) -> Ratio:
    measured = _pairs(cell, model, pairs, {})
    for order, values in zip(("strict", "arrival"), zip(*measured, strict=True), strict=True):
        report.results[f"{cell.name}_{order}"] = (median(values), "tokens/s")
    return paired([strict / arrival for strict, arrival in measured])


def _pairs(
    cell: Cell, model: Path, pairs: int, settings: Mapping[str, Any]
) -> list[tuple[float, float]]:
    """(strict, arrival) throughputs; ``settings`` are for strict order, arrival knows none."""
    strict, arrival = cell.fleet(model, "strict", **settings), cell.fleet(model, "arrival")
    return list(interleave(lambda: throughput(strict), lambda: throughput(arrival), pairs))


def throughput(fleet: str) -> float:
    """Tokens per second of one run, from its first tag to its last.

    Raises:
        UsageError: it was refused, or something in it failed.
    """
    run = whole(fleet, INPUT)
    return run.tokens_out / run.seconds


def _curves(model: Path, pairs: int, tell: Tell) -> list[Chart]:
    quanta = {f * FUEL_PER_STEP / 1e6: {"fuel_per_step": round(f * FUEL_PER_STEP)}
              for f in QUANTUM_FACTORS}  # fmt: skip
    lookaheads = {float(n): {"lookahead": n} for n in LOOKAHEADS}
    panels: list[tuple[str, Kind, Mapping[float, Mapping[str, Any]]]] = [
        ("fuel_per_step, millions", "log2", quanta),
        ("lookahead, steps", "linear", lookaheads),
    ]
    return [
        Chart(
            TITLE,
            ABOUT,
            label,
            "strict / arrival",
            lines(_points(model, pairs, points, tell)),
            kind,
        )
        for label, kind, points in panels
    ]


def lines(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[Line]:
    """The lines of a chart: name to points."""
    return [Line(name, found, dots=True) for name, found in points.items()]


def _points(
    model: Path, pairs: int, points: Mapping[float, Mapping[str, Any]], tell: Tell
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in [cell for cell in CELLS if cell.name in CURVE_CELLS]:
        for x, settings in points.items():
            tell(f"curve of {cell.name}: {settings}")
            measured = _pairs(cell, model, pairs, settings)
            y = median(strict / arrival for strict, arrival in measured)
            found.setdefault(cell.name, []).append((x, y))
    return found
