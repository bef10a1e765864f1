"""Plots of a sweep: what its runs came to, by seed and by each value that was varied.

A page that is whole in itself (workers/pictures/). It holds times, so it differs from execution
to execution; what is the same each time is in the table.
"""

from collections.abc import Iterator, Sequence
from statistics import median

from lockstep.workers.pictures.chart import Chart, Line, chart
from lockstep.workers.pictures.page import Cell, cards, figure, figures, numbers, page, table
from lockstep.workers.pictures.scale import is_number
from lockstep.workers.sweeps.grid import Axis
from lockstep.workers.sweeps.table import Row

# Column, title, unit of the axis.
SHOWN = (
    ("tokens_out", "Tokens made", "tokens"),
    ("steps", "Steps executed", "steps"),
    ("items_failed", "Items failed", "items"),
    ("tokens_per_s", "Pace", "tokens/s"),
    ("wall_s", "Wall time", "s"),
)
LINES_MAX = 4  # Combinations that are told apart by lines; more are a line by number of the run.
POINTS_MAX = 1000  # Of a line; of more, every second, third, ... is drawn.
DOTS_MAX = 100  # A line of more points has no dots.
ROWS_MAX = 1000  # Of the table; the whole one is results.csv.
DIGEST_CHARS = 12


def plots(name: str, rows: Sequence[Row], axes: Sequence[Axis], runs: int) -> str:
    """An HTML document.

    Args:
        name: Of the sweep.
        rows: As in the table.
        axes: What was varied, besides the seed.
        runs: How many there are in all.
    """
    return page(
        f"sweep {name}",
        f"{len(rows)} of {runs} runs",
        [
            ("Overview", _overview(rows, runs)),
            ("By seed", figures(_by_seed(rows, axes))),
            *((f"By {axis.key}", figures(_by_value(rows, axis))) for axis in axes),
            ("Runs", _runs(rows, axes)),
        ],
    )


def _overview(rows: Sequence[Row], runs: int) -> str:
    failed = sum(row["exit_code"] != 0 for row in rows)
    tokens = sum(row["tokens_out"] or 0 for row in rows)
    digests = dict.fromkeys(row["digest_text"] for row in rows if row["digest_text"])
    return cards([
        ("runs", f"{len(rows)} of {runs}"),
        ("failed", str(failed)),
        ("tokens made", str(tokens)),
        ("different results", str(len(digests))),
    ])  # fmt: skip


def _by_seed(rows: Sequence[Row], axes: Sequence[Axis]) -> Iterator[str]:
    """A line for each combination of values, as far as they can be told apart."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    if len(seeds) < 2:
        return
    combined: dict[str, list[Row]] = {}
    for row in rows:
        values = [f"{axis.key.rpartition('.')[2]} {row[axis.key]}" for axis in axes]
        combined.setdefault(", ".join(values), []).append(row)
    x = "seed" if len(combined) <= LINES_MAX else "run"
    groups = combined if x == "seed" else {"": list(rows)}
    for column, title, unit in SHOWN:
        lines = [_line(label, group, x, column) for label, group in groups.items()]
        if _worth(rows, column):
            yield _figure(f"{title} by {x}", x, unit, lines)


def _by_value(rows: Sequence[Row], axis: Axis) -> Iterator[str]:
    """The runs of each value together: their median, and how far apart they are."""
    if not all(is_number(setting.value) for setting in axis.values):
        return
    for column, title, unit in SHOWN:
        if not _worth(rows, column):
            continue
        groups: dict[float, list[float]] = {}
        for row in rows:
            if row[column] is not None:
                groups.setdefault(float(row[axis.key]), []).append(row[column])
        points = sorted(groups.items())
        lines = [
            Line("median", [(x, median(ys)) for x, ys in points], dots=True),
            Line("least", [(x, min(ys)) for x, ys in points]),
            Line("most", [(x, max(ys)) for x, ys in points]),
        ]
        yield _figure(f"{title} by {axis.key}", axis.key, unit, lines)


def _line(label: str, rows: Sequence[Row], x: str, y: str) -> Line:
    points = sorted((row[x], row[y]) for row in rows if row[y] is not None)
    every = -(-len(points) // POINTS_MAX) or 1
    return Line(label, points[::every], dots=len(points) <= DOTS_MAX)


def _figure(title: str, x_label: str, unit: str, lines: Sequence[Line]) -> str:
    about = f"{title}, {len(lines)} lines" if len(lines) > 1 else title
    picture = chart(Chart(title, about, x_label, unit, lines))
    behind: list[list[Cell]] = [[line.name, x, y] for line in lines for x, y in line.points]
    return figure(title, picture, below=numbers(["line", x_label, unit], behind[:ROWS_MAX]))


def _runs(rows: Sequence[Row], axes: Sequence[Axis]) -> str:
    keys = [axis.key for axis in axes]
    shown = [column for column, _, _ in SHOWN]
    head = ["run", "seed", *keys, "state", "digest", *shown]
    body = [
        [row["run"], row["seed"], *(_cell(row[key]) for key in keys), row["state"],
         (row["digest"] or "")[:DIGEST_CHARS], *(row[column] for column in shown)]
        for row in rows[:ROWS_MAX]
    ]  # fmt: skip
    more = f"the first {ROWS_MAX}; all are in results.csv" if len(rows) > ROWS_MAX else ""
    return table(head, body, more)


def _cell(value: object) -> Cell:
    return value if is_number(value) else str(value)


def _worth(rows: Sequence[Row], column: str) -> bool:
    """Whether there is anything to see: not of what is 0 everywhere."""
    return any(row[column] for row in rows)
