"""Charts of lines: over time, distributions, curves. A line has a colour and a pattern of its own,
so that a picture printed in grey still tells them apart."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lockstep.workers.pictures import svg
from lockstep.workers.pictures.scale import Kind, Scale, decades, figure, is_number, ticks

WIDTH, HEIGHT = 480, 260
WIDE = 960
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 26, 44
LEGEND = 20  # Height of the legend.
HINTS_MAX = 200  # Places of a line that say their value when pointed at.
LOG_TICKS_MAX = 8  # More of 1, 2, 5, ... would crowd: then those of ten alone.
DASHES = ("", " d1", " d2", " d3")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        name: In the legend.
        points: (x, y) by rising x. A y that is no number is a gap.
        dots: Whether each point is marked.
        area: Whether what is below it is tinted.
    """

    name: str
    points: Points
    dots: bool = False
    area: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: Of what.
        about: What is to be seen, for who cannot see it.
        x_label: Of the axis, with its unit.
        y_label: Likewise.
        lines: From the one in front to the one behind.
        x_kind: Of the scale.
        x_marks: (x, words): vertical lines.
        y_range: (low, high) that are always shown; None: what the lines need, and 0.
        wide: Twice as wide.
    """

    title: str
    about: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_kind: Kind = "linear"
    x_marks: Sequence[tuple[float, str]] = ()
    y_range: tuple[float, float] | None = None
    wide: bool = False

    @property
    def width(self) -> int:
        """In pixels."""
        return WIDE if self.wide else WIDTH


def chart(of: Chart) -> str:
    """An SVG picture for a page; one without points says that there are none."""
    named = len(of.lines) > 1
    height = HEIGHT + LEGEND * named
    return svg.picture(of.title, of.about, of.width, height, draw(of, named))


def row(title: str, about: str, charts: Sequence[Chart]) -> str:
    """An SVG document of charts side by side, on one y axis so that they can be compared.

    Raises:
        ValueError: no chart has a point.
    """
    values = [y for one in charts for line in one.lines for _, y in line.points if is_number(y)]
    if not values:
        raise ValueError("a picture of no points")
    marks = ticks(min(values), max(values))
    parts = [svg.label(WIDTH * len(charts) / 2, 20, title, "h")]
    for number, one in enumerate(charts):
        drawn = draw(replace(one, y_range=(marks[0], marks[-1])), True)
        place = f"translate({number * WIDTH} {LEGEND})"
        parts.append(svg.tag("g", "\n".join(drawn), transform=place))
    return svg.document(title, about, WIDTH * len(charts), HEIGHT + 3 * LEGEND, parts)


def draw(of: Chart, named: bool) -> list[str]:
    """The elements of a chart."""
    lines = [replace(line, points=_known(line.points)) for line in of.lines]
    if not any(line.points for line in lines):
        return [svg.label(of.width / 2, HEIGHT / 2, "nothing to show")]
    x, x_ticks = _x_axis(of, [px for line in lines for px, _ in line.points])
    y, y_ticks = _y_axis(of, [py for line in lines for _, py in line.points])
    parts = [*_frame(of, x, x_ticks, y, y_ticks)]
    for number, line in reversed(list(enumerate(lines))):
        parts += _line(number, line, x, y)
    parts += _marks(of.x_marks, x)
    parts += _hints(of, lines, x)
    return [*parts, *_legend(of)] if named else parts


def _known(points: Points) -> Points:
    return [(x, y) for x, y in points if is_number(x) and is_number(y)]


def _x_axis(of: Chart, values: list[float]) -> tuple[Scale, list[float]]:
    values = values + [x for x, _ in of.x_marks if is_number(x)]
    start, end = LEFT, of.width - RIGHT
    if of.x_kind == "linear":
        low, high = min(values), max(values)
        inside = [t for t in ticks(low, high) if low <= t <= high]
        return Scale(low, high, start, end), inside
    above = [x for x in values if x > 0] or [1.0]
    if of.x_kind == "log2":
        marks = sorted(dict.fromkeys(above))
        return Scale(marks[0], marks[-1], start + 14, end - 14, "log2"), marks
    marks = decades(min(above), max(above))
    tens = [mark for mark in marks if math.log10(mark).is_integer()]
    said = marks if len(marks) <= LOG_TICKS_MAX else tens
    return Scale(marks[0], marks[-1], start, end, "log10"), said


def _y_axis(of: Chart, values: list[float]) -> tuple[Scale, list[float]]:
    low, high = of.y_range or (min(0.0, *values), max(values))
    marks = ticks(low, high if high > low else low + 1)
    return Scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP), marks


def _frame(
    of: Chart, x: Scale, x_ticks: list[float], y: Scale, y_ticks: list[float]
) -> Iterable[str]:
    right, bottom = of.width - RIGHT, HEIGHT - BOTTOM
    for mark in y_ticks:
        yield svg.tag("path", class_="grid", d=f"M{LEFT} {y.at(mark):.1f}H{right}")
        yield svg.label(LEFT - 6, y.at(mark) + 4, figure(mark), anchor="end")
    for mark in x_ticks:
        at = x.at(mark)
        yield svg.tag("path", class_="base", d=f"M{at:.1f} {bottom}v4")
        half = len(figure(mark)) * svg.DIGIT_PX / 2
        yield svg.label(min(at, of.width - half), bottom + 17, figure(mark))
    yield svg.tag("path", class_="base", d=f"M{LEFT} {bottom}H{right}")
    yield svg.label(LEFT - 52, 14, of.y_label, anchor="start")
    yield svg.label((LEFT + right) / 2, bottom + 36, of.x_label)


def _line(number: int, line: Line, x: Scale, y: Scale) -> list[str]:
    if not line.points:
        return []
    dots = [(x.at(px), y.at(py)) for px, py in line.points]
    path = "L".join(f"{px:.1f} {py:.1f}" for px, py in dots)
    colour = svg.colour(number)
    drawn = [svg.tag("path", class_=f"line {colour}{_dash(number)}", d=f"M{path}")]
    if line.area:
        floor = f"{y.at(max(y.low, 0)):.1f}"
        outline = f"M{dots[0][0]:.1f} {floor}L{path}V{floor}z"
        drawn.insert(0, svg.tag("path", class_=f"area {colour}", d=outline))
    if line.dots:
        drawn += [svg.tag("circle", class_=f"full {colour}", cx=px, cy=py, r=3) for px, py in dots]
    return drawn


def _marks(marks: Iterable[tuple[float, str]], x: Scale) -> Iterable[str]:
    """Vertical lines; words that would lie upon those before go a line higher."""
    taken: list[float] = []
    for value, said in marks:
        if not is_number(value):
            continue
        at = x.at(value)
        width = len(said) * svg.LETTER_PX + 8
        left = at + 4 + width > x.end  # No room at its right.
        start = at - 4 - width if left else at + 4
        low = next((n for n, end in enumerate(taken) if start >= end), len(taken))
        taken[low : low + 1] = [start + width]
        yield svg.tag("path", class_="mark", d=f"M{at:.1f} {TOP}V{HEIGHT - BOTTOM}")
        anchor = "end" if left else "start"
        yield svg.label(at + (-4 if left else 4), HEIGHT - BOTTOM - 8 - 15 * low, said, "b", anchor)


def _hints(of: Chart, lines: Sequence[Line], x: Scale) -> Iterable[str]:
    """Columns that say the values at their place when pointed at."""
    longest = max((line.points for line in lines), key=len)
    every = math.ceil(len(longest) / HINTS_MAX)
    places = [at for at, _ in longest[::every]]
    tables = [(line.name, dict(line.points)) for line in lines]
    for number, place in enumerate(places):
        left = (x.at(places[number - 1]) + x.at(place)) / 2 if number else x.at(place)
        last = number == len(places) - 1
        right = x.at(place) if last else (x.at(places[number + 1]) + x.at(place)) / 2
        said = [f"{of.x_label}: {figure(place)}"]
        said += [f"{name}: {figure(table[place])}" for name, table in tables if place in table]
        yield svg.tag(
            "rect", "<title>" + "\n".join(svg.words(line) for line in said) + "</title>",
            class_="hit", x=left, y=TOP, width=max(right - left, 1.0), height=HEIGHT - BOTTOM - TOP,
        )  # fmt: skip


def _legend(of: Chart) -> Iterable[str]:
    room = (of.width - LEFT - RIGHT) / max(len(of.lines), 1)
    for number, line in enumerate(of.lines):
        at, y = LEFT + room * number, HEIGHT + LEGEND - 6
        kind = f"line {svg.colour(number)}{_dash(number)}"
        yield svg.tag("path", class_=kind, d=f"M{at:.1f} {y - 4}h22")
        yield svg.label(at + 28, y, svg.cut(line.name, room - 34), anchor="start")


def _dash(number: int) -> str:
    return DASHES[number % len(DASHES)]
