"""Bars: shares of a whole, counts by size, and figures with their intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lockstep.workers.pictures import svg
from lockstep.workers.pictures.scale import Scale, figure, is_number, ticks

WIDTH = 480
NAME = 158  # Room for names at the left,
SAID = 136  # and for figures at the right.
ROW = 24
HEAD, FOOT = 8, 34
LEGEND = 20
COLUMNS_HEIGHT = 240
FACTOR_MAX = 1e12  # Beyond it an interval ends at the edge.


@dataclass(frozen=True, slots=True)
class Bar:
    """One row.

    Attributes:
        name: At its left.
        parts: (kind, size), one behind the other.
        said: At its right.
    """

    name: str
    parts: Sequence[tuple[str, float]]
    said: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """One row of `intervals`: a figure per kind.

    Attributes:
        name: At its left.
        values: (kind, low, middle, high), all above 0.
        said: At its right.
    """

    name: str
    values: Sequence[tuple[str, float, float, float]]
    said: str = ""


def bars(title: str, about: str, label: str, rows: Sequence[Bar], whole: float = 0.0) -> str:
    """Rows of bars from one left edge.

    Args:
        title: Of the picture.
        about: What is to be seen, for who cannot see it.
        label: Of the axis, with its unit.
        rows: From top to bottom.
        whole: The axis reaches so far at least.
    """
    named = dict.fromkeys(kind for row in rows for kind, _ in row.parts)
    kinds = sorted(named, key=lambda kind: kind == svg.OTHER)  # It is the last.
    longest = max([whole, *(sum(size for _, size in _sizes(row)) for row in rows)])
    if not rows or longest <= 0:
        return _nothing(title, about)
    marks = ticks(0.0, longest)
    scale = Scale(0.0, marks[-1], NAME, WIDTH - SAID)
    squares, top = legend(kinds, WIDTH) if len(kinds) > 1 else ([], HEAD)
    bottom = top + ROW * len(rows)
    parts = [*squares, *_axis(scale, marks, top, bottom, label)]
    for number, row in enumerate(rows):
        parts += _bar(row, kinds, scale, top + ROW * number)
    return svg.picture(title, about, WIDTH, bottom + FOOT, parts)


def columns(
    title: str, about: str, x_label: str, y_label: str, counts: Sequence[float], mean: float | None
) -> str:
    """A column for each of 0, 1, 2, ..., and a line at their mean."""
    if not any(counts):
        return _nothing(title, about)
    marks = ticks(0.0, max(counts))
    left, bottom = 62, COLUMNS_HEIGHT - 44
    y = Scale(0.0, marks[-1], bottom, 26)
    each = (WIDTH - left - 14) / len(counts)
    parts = [svg.label(10, 14, y_label, anchor="start")]
    for mark in marks:
        parts.append(svg.tag("path", class_="grid", d=f"M{left} {y.at(mark):.1f}H{WIDTH - 14}"))
        parts.append(svg.label(left - 6, y.at(mark) + 4, figure(mark), anchor="end"))
    for number, count in enumerate(counts):
        at, top = left + each * number, y.at(count)
        parts.append(svg.tag(
            "rect", svg.hint(f"{number}: {figure(count)}"), class_="full c0",
            x=at + each * 0.1, y=top, width=each * 0.8, height=bottom - top,
        ))  # fmt: skip
        if number % max(len(counts) // 12, 1) == 0:
            parts.append(svg.label(at + each / 2, bottom + 17, number))
    if is_number(mean):
        at = left + each * (mean + 0.5)
        parts.append(svg.tag("path", class_="mark", d=f"M{at:.1f} 18V{bottom}"))
        parts.append(svg.label(at, 14, f"mean {figure(mean)}", "b"))
    parts.append(svg.label((left + WIDTH - 14) / 2, bottom + 36, x_label))
    return svg.picture(title, about, WIDTH, COLUMNS_HEIGHT, parts)


def intervals(title: str, about: str, label: str, rows: Sequence[Span], wide: bool = True) -> str:
    """Figures with their intervals on a scale of factors, beside a line at 1."""
    if not rows:
        return _nothing(title, about)
    width, name = (960, 260) if wide else (WIDTH, NAME)
    kinds = list(dict.fromkeys(kind for row in rows for kind, *_ in row.values))
    ends = [1.0, *(end for row in rows for _, low, _, high in row.values for end in (low, high))]
    marks = _factors(min(ends), max(ends))
    scale = Scale(marks[0], marks[-1], name, width - 190, "log2")
    squares, top = legend(kinds, width) if len(kinds) > 1 else ([], HEAD)
    step = max(ROW, 12 * len(kinds) + 6)
    bottom = top + step * len(rows)
    parts = [*squares, *_axis(scale, marks, top, bottom, label)]
    parts.append(svg.tag("path", class_="base", d=f"M{scale.at(1.0):.1f} {top}V{bottom}"))
    for number, row in enumerate(rows):
        middle = top + step * (number + 0.5)
        parts.append(_name(row.name, name, middle))
        parts.append(svg.label(width - 182, middle + 4, row.said, anchor="start"))
        for value in row.values:
            place = kinds.index(value[0])
            at = middle + 12 * (place - (len(kinds) - 1) / 2)
            parts.append(_span(row.name, value, scale, at, place))
    return svg.picture(title, about, width, bottom + FOOT, parts)


def _sizes(row: Bar) -> list[tuple[str, float]]:
    return [(kind, float(size)) for kind, size in row.parts if is_number(size) and size > 0]


def _nothing(title: str, about: str) -> str:
    return svg.picture(title, about, WIDTH, 60, [svg.label(WIDTH / 2, 34, "nothing to show")])


def _axis(
    scale: Scale, marks: Sequence[float], top: float, bottom: float, label: str
) -> Iterable[str]:
    for mark in marks:
        at = scale.at(mark)
        yield svg.tag("path", class_="grid", d=f"M{at:.1f} {top}V{bottom}")
        yield svg.label(at, bottom + 15, figure(mark))
    yield svg.label((scale.start + scale.end) / 2, bottom + 30, label)


def _name(name: str, room: float, middle: float) -> str:
    said = svg.words(svg.cut(name, room - 12)) + svg.hint(name)
    return svg.tag("text", said, x=room - 8, y=middle + 4, text_anchor="end")


def _bar(row: Bar, kinds: Sequence[str], scale: Scale, top: float) -> Iterable[str]:
    yield _name(row.name, NAME, top + ROW / 2)
    at = 0.0
    for kind, size in _sizes(row):
        start, end = scale.at(at), scale.at(at + size)
        at += size
        yield svg.tag(
            "rect", svg.hint(f"{row.name}, {kind}: {figure(size)}"),
            class_=f"full gap {svg.colour(kinds.index(kind))}",
            x=start, y=top + 4, width=max(end - start, 0.5), height=ROW - 8,
        )  # fmt: skip
    yield svg.label(scale.end + 8, top + ROW / 2 + 4, svg.cut(row.said, SAID - 8), anchor="start")


def _span(
    name: str, value: tuple[str, float, float, float], scale: Scale, at: float, place: int
) -> str:
    kind, low, middle, high = value
    said = f"{name}, {kind}: {figure(middle)} ({figure(low)} to {figure(high)})"
    start, end = scale.at(low), scale.at(high)
    return svg.tag("g", "".join([
        svg.hint(said),
        svg.tag("rect", class_="soft", x=start, y=at - 4, width=max(end - start, 1.0), height=8),
        svg.tag("circle", class_="full", cx=scale.at(middle), cy=at, r=4),
    ]), class_=svg.colour(place))  # fmt: skip


def _factors(low: float, high: float) -> list[float]:
    """Marks that enclose a range around 1: round numbers, of a wide one powers of 2, 4, 16, ..."""
    low, high = min(max(low, 1 / FACTOR_MAX), 1.0), max(min(high, FACTOR_MAX), 1.0)
    near = [mark for mark in ticks(low, high) if mark > 0]
    if high <= 4 * low and near[0] <= low:
        return near
    factor = 2.0
    while high > low * factor**8:
        factor *= factor
    marks = [1.0]
    while marks[0] > low:
        marks.insert(0, marks[0] / factor)
    while marks[-1] < high:
        marks.append(marks[-1] * factor)
    return marks


def legend(kinds: Sequence[str], width: float) -> tuple[list[str], float]:
    """Squares with names, in as many lines as they need, and where what follows may begin."""
    parts, x, y = [], 8.0, 14.0
    for number, kind in enumerate(kinds):
        room = len(svg.plain(kind)) * svg.LETTER_PX + 34
        if x + room > width and x > 8:
            x, y = 8.0, y + LEGEND
        kind_of = f"full {svg.colour(number)}"
        parts.append(svg.tag("rect", class_=kind_of, x=x, y=y - 9, width=11, height=11))
        parts.append(svg.label(x + 16, y, kind, anchor="start"))
        x += room
    return parts, y + 12
