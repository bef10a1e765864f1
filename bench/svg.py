"""Pictures of curves as SVG: panels side by side, a few lines each. No library, no script.

One y axis for all panels, so that they can be compared; colours that differ in brightness, too,
and a mark of its own per line, so that a picture printed in grey still tells them apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 300  # Of a panel.
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 74
COLOURS = ("#0b4f9e", "#d1701c", "#3f8f4f", "#8b2f73", "#555555")
MARKS = ("circle", "square", "diamond")
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram.

    Attributes:
        label: Of its x axis.
        logarithmic: Whether x goes by factors of two.
        lines: Name to points, by rising x.
    """

    label: str
    logarithmic: bool
    lines: Mapping[str, Points]


def picture(title: str, panels: Sequence[Panel]) -> str:
    """An SVG document.

    Raises:
        ValueError: no panel has a point.
    """
    values = [y for panel in panels for line in panel.lines.values() for _, y in line]
    if not values:
        raise ValueError("a picture of no points")
    marks = ticks(min(values), max(values))
    width = WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        f'width="{width}" height="{HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
        _text(width / 2, 18, title, "middle", 13),
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel, marks), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float) -> list[float]:
    """Some round numbers that enclose a range, evenly spaced."""
    spread = max(high - low, abs(high) * 0.02, 1e-9)
    scale = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(scale * s for s in STEPS if scale * s * 5 >= spread)
    first = math.floor(low / step)
    return [round(n * step, 10) for n in range(first, math.ceil(high / step) + 1)]


def _panel(panel: Panel, marks: list[float]) -> list[str]:
    xs = sorted({x for line in panel.lines.values() for x, _ in line})
    places = {x: _place(x, xs, panel.logarithmic) for x in xs}
    low, high = marks[0], max(marks[-1], marks[0] + 1e-9)

    def height(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (y - low) / (high - low))

    parts = []
    for mark in marks:
        y = height(mark)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{mark:g}", "end"))
    bottom = HEIGHT - BOTTOM
    for x, place in places.items():
        parts.append(_text(place, bottom + 16, f"{x:g}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 32, panel.label, "middle"))
    for number, (name, line) in enumerate(panel.lines.items()):
        dots = [(places[x], height(y)) for x, y in line]
        parts += _line(number, name, dots, bottom + 48 + 14 * (number // 2))
    return parts


def _place(x: float, xs: Sequence[float], logarithmic: bool) -> float:
    scale = math.log2 if logarithmic else float
    low, high = scale(xs[0]), scale(xs[-1])
    share = (scale(x) - low) / (high - low) if high > low else 0.5
    return LEFT + 14 + (WIDTH - LEFT - RIGHT - 28) * share


def _line(number: int, name: str, dots: Points, legend_y: float) -> list[str]:
    colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
    legend_x = LEFT + (number % 2) * (WIDTH - LEFT) / 2
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>',
        *(_mark(mark, x, y, colour) for x, y in dots),
        _mark(mark, legend_x, legend_y - 4, colour),
        _text(legend_x + 8, legend_y, name, "start"),
    ]


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return (f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}"'
            f"{turned}/>")  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str, size: int = 11) -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
            f"{escape(text)}</text>")  # fmt: skip
