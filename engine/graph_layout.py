"""Layout: boxes in columns from left to right, and lines between them that cross few others.

The usual four steps for layered graphs (Sugiyama): every box gets a column behind all that lead to
it; a line over several columns is given a place in each of them; the order within a column is
swept until lines cross little; then boxes move to where their lines come from, as far as their
neighbours let them. Whole numbers of pixels, ties broken by number: one picture per fleet.
"""

import itertools
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

SWEEPS = 12
ROW_GAP = 26  # Between boxes of a column, pixels.
LINE_GAP = 18  # Between lines, and between a line and a box.
PORT_GAP = 16  # Between the ends of lines at one box.
THROUGH_MAX = 4000  # Places of long lines; beyond, they are drawn straight across.


@dataclass(slots=True)
class _Cell:
    """A box, or the place where a long line passes a column."""

    height: int
    column: int
    box: int  # Number of the box; -1: a line passes.
    y: float = 0.0  # Of the middle.


@dataclass(frozen=True, slots=True)
class Placed:
    """Where everything is, in pixels from the top left.

    Attributes:
        boxes: (column, y of the top, height) of each box.
        lines: Of each line, its height as it leaves a box, at each column it passes, and as it
            arrives: (column, y) each.
        columns: How many there are.
        height: Of the whole.
    """

    boxes: tuple[tuple[int, int, int], ...]
    lines: tuple[tuple[tuple[int, int], ...], ...]
    columns: int
    height: int


def place(heights: Sequence[int], lines: Sequence[tuple[int, int]], late: Sequence[int]) -> Placed:
    """Lay out boxes and lines.

    Args:
        heights: Of each box, at least.
        lines: (from, to) by number of box, without cycles; from left to right.
        late: Boxes that stand as far to the right as they can.
    """
    columns = _columns(len(heights), lines, late)
    cells = [_Cell(h, c, n) for n, (h, c) in enumerate(zip(heights, columns, strict=True))]
    chains = _chains(cells, lines)
    for box, count in enumerate(_ports_max(len(heights), lines)):
        cells[box].height = max(cells[box].height, (count + 1) * PORT_GAP)
    before: list[list[int]] = [[] for _ in cells]
    after: list[list[int]] = [[] for _ in cells]
    for chain in chains:
        for left, right in itertools.pairwise(chain):
            after[left].append(right)
            before[right].append(left)
    layers: list[list[int]] = [[] for _ in range(max(columns, default=0) + 1)]
    for number, cell in enumerate(cells):
        layers[cell.column].append(number)
    layers = _ordered(layers, before, after)
    _settle(layers, cells, before, after)
    return _placed(layers, cells, chains, len(heights))


def _columns(boxes: int, lines: Sequence[tuple[int, int]], late: Sequence[int]) -> list[int]:
    """The longest way to each box; those that may be late move to just before who follows."""
    after: list[list[int]] = [[] for _ in range(boxes)]
    waits = [0] * boxes
    for start, end in lines:
        after[start].append(end)
        waits[end] += 1
    columns = [0] * boxes
    ready = [box for box in range(boxes) if not waits[box]]
    for box in ready:
        for end in after[box]:
            columns[end] = max(columns[end], columns[box] + 1)
            waits[end] -= 1
            if not waits[end]:
                ready.append(end)
    for box in late:
        columns[box] = max(min((columns[end] for end in after[box]), default=1) - 1, 0)
    return columns


def _chains(cells: list[_Cell], lines: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The cells that each line goes through, its two boxes included."""
    through = sum(max(cells[end].column - cells[start].column - 1, 0) for start, end in lines)
    chains = []
    for start, end in lines:
        chain = [start]
        if through <= THROUGH_MAX:
            for column in range(cells[start].column + 1, cells[end].column):
                chain.append(len(cells))
                cells.append(_Cell(0, column, -1))
        chains.append([*chain, end])
    return chains


def _ports_max(boxes: int, lines: Sequence[tuple[int, int]]) -> list[int]:
    leaving, arriving = [0] * boxes, [0] * boxes
    for start, end in lines:
        leaving[start] += 1
        arriving[end] += 1
    return [max(pair) for pair in zip(leaving, arriving, strict=True)]


def _ordered(
    layers: list[list[int]], before: list[list[int]], after: list[list[int]]
) -> list[list[int]]:
    best, fewest = layers, _crossings(layers, after)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        layers = [list(layer) for layer in layers]
        order = range(1, len(layers)) if down else range(len(layers) - 2, -1, -1)
        for n in order:
            _sort_by_neighbours(layers, n, -1 if down else 1, before if down else after)
        count = _crossings(layers, after)
        if count < fewest:
            best, fewest = layers, count
    return best


def _sort_by_neighbours(
    layers: list[list[int]], n: int, step: int, neighbours: list[list[int]]
) -> None:
    place = {cell: at for at, cell in enumerate(layers[n + step])}
    keys = {}
    for at, cell in enumerate(layers[n]):
        near = [place[other] for other in neighbours[cell] if other in place]
        keys[cell] = (sum(near) / len(near) if near else float(at), at)
    layers[n].sort(key=lambda cell: keys[cell])


def _crossings(layers: list[list[int]], after: list[list[int]]) -> int:
    count = 0
    for left, right in itertools.pairwise(layers):
        place = {cell: at for at, cell in enumerate(right)}
        ends: list[int] = []
        for cell in left:
            mine = sorted(place[other] for other in after[cell] if other in place)
            count += sum(len(ends) - bisect_right(ends, at) for at in mine)
            for at in mine:
                insort(ends, at)
    return count


def _settle(
    layers: list[list[int]], cells: list[_Cell], before: list[list[int]], after: list[list[int]]
) -> None:
    for layer in layers:
        _spread(layer, cells, [0.0] * len(layer))
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            near = before if down else after
            wanted = []
            for number in layer:
                others = near[number] or before[number] or after[number]
                mean = sum(cells[o].y for o in others) / len(others) if others else 0.0
                wanted.append(mean if others else cells[number].y)
            _spread(layer, cells, wanted)


def _spread(layer: list[int], cells: list[_Cell], wanted: Sequence[float]) -> None:
    """Put cells where they want to be, as near as their order and gaps let them.

    The least sum of squares: what would overlap is pooled and shares its mean.
    """
    offsets, at = [], 0.0
    for n, number in enumerate(layer):
        if n:
            at += _gap(cells[layer[n - 1]], cells[number])
        offsets.append(at)
    pools: list[tuple[float, int]] = []  # (mean of wanted places without offsets, cells)
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean = (mean * count + other * more) / (count + more)
            count += more
        pools.append((mean, count))
    shifts = [mean for mean, count in pools for _ in range(count)]
    for number, offset, shift in zip(layer, offsets, shifts, strict=True):
        cells[number].y = offset + shift


def _gap(upper: _Cell, lower: _Cell) -> float:
    gap = ROW_GAP if upper.box >= 0 and lower.box >= 0 else LINE_GAP
    return upper.height / 2 + gap + lower.height / 2


def _placed(
    layers: list[list[int]], cells: list[_Cell], chains: list[list[int]], boxes: int
) -> Placed:
    top = min((cell.y - cell.height / 2 for cell in cells), default=0.0)
    bottom = max((cell.y + cell.height / 2 for cell in cells), default=0.0)
    leaving = _ends(cells, [(n, chain[0], chain[1]) for n, chain in enumerate(chains)])
    arriving = _ends(cells, [(n, chain[-1], chain[-2]) for n, chain in enumerate(chains)])
    lines = []
    for n, chain in enumerate(chains):
        places = [(cells[chain[0]].column, round(leaving[n] - top))]
        places += [(cells[c].column, round(cells[c].y - top)) for c in chain[1:-1]]
        places.append((cells[chain[-1]].column, round(arriving[n] - top)))
        lines.append(tuple(places))
    return Placed(
        tuple(
            (cell.column, round(cell.y - cell.height / 2 - top), cell.height)
            for cell in cells[:boxes]
        ),
        tuple(lines),
        len(layers),
        round(bottom - top),
    )


def _ends(cells: list[_Cell], meets: Sequence[tuple[int, int, int]]) -> dict[int, float]:
    """Height of the end of each line at a box; lines are ordered by where they lead.

    Args:
        cells: All of them.
        meets: (line, its box, the next cell on its way).
    """
    at_box: dict[int, list[tuple[float, int]]] = {}
    for line, box, other in meets:
        at_box.setdefault(box, []).append((cells[other].y, line))
    found = {}
    for box, others in at_box.items():
        first = cells[box].y - (len(others) - 1) * PORT_GAP / 2
        for place, (_, line) in enumerate(sorted(others)):
            found[line] = first + place * PORT_GAP
    return found
