"""A topology as SVG: one file, no script, no font, readable on light and dark."""

from html import escape

from lockstep.engine.graph import INPUT, MAY, Edge, Graph, Node
from lockstep.engine.graph_layout import Placed, place

MARGIN = 24
HEAD = 56  # Title and subtitle.
COLUMN_GAP = 84  # Between boxes of neighbouring columns.
LABEL_GAP = 44  # Beside a label, between columns.
NAME_PX, NOTE_PX = 9.4, 7.1  # Width of a letter, on the safe side.
PAD = 14
LINE = 17  # Height of a line of notes.
STACK = 4  # What of the boxes behind is seen where there are replicas.
NAMES_SHOWN = 4  # Of tools and topics in a box.

Way = tuple[tuple[int, int], ...]  # (column, y) each.

_STYLE = """
svg{font-family:ui-sans-serif,system-ui,"Segoe UI","Liberation Sans","DejaVu Sans",sans-serif}
.bg{fill:#fff}.h{font-size:18px;font-weight:600;fill:#16202b}.s{font-size:12.5px;fill:#55636f}
.n{font-size:14px;font-weight:600;fill:#16202b}.t{font-size:12px;fill:#4d5b68}
.agent{fill:#eef3fb;stroke:#5577a8}.io{fill:#e9ecef;stroke:#7d8a96}
.source{fill:#e8f5ee;stroke:#3d8561}.e{fill:none;stroke:#66747f;stroke-width:1.6}
.a{fill:#66747f}.may{stroke:#b0561f;stroke-dasharray:6 4}.amay{fill:#b0561f}
.event{stroke:#3d8561}.aevent{fill:#3d8561}
.l{font-size:11.5px;fill:#9a4717;stroke:#fff;stroke-width:4px;paint-order:stroke}
@media (prefers-color-scheme:dark){
.bg{fill:#11161c}.h,.n{fill:#e7edf3}.s,.t{fill:#a3b1bd}
.agent{fill:#1b2735;stroke:#6d94cc}.io{fill:#242b32;stroke:#8593a0}
.source{fill:#16291f;stroke:#5cb98a}.e{stroke:#8b99a6}.a{fill:#8b99a6}
.may{stroke:#e5985c}.amay{fill:#e5985c}.event{stroke:#5cb98a}.aevent{fill:#5cb98a}
.l{fill:#f0ab77;stroke:#11161c}}
"""


def svg(graph: Graph) -> str:
    """Draw input, sources, agents and output; tools, topics and models are named. Pure ASCII."""
    nodes = graph.of_kind("input", "source", "agent", "output")
    place_of = {node.id: n for n, node in enumerate(nodes)}
    edges = [e for e in graph.edges if e.start in place_of and e.end in place_of]
    notes = _notes(graph, nodes)
    heights = [_height(node, lines) for node, lines in zip(nodes, notes, strict=True)]
    lines = [(place_of[start], place_of[end]) for start, end in map(_forward, edges)]
    led_to = dict.fromkeys(end for _, end in lines)
    late = [n for n, node in enumerate(nodes) if node.kind != INPUT and n not in led_to]
    placed = place(heights, lines, late)
    widths = [0] * placed.columns
    for (column, _, _), node, texts in zip(placed.boxes, nodes, notes, strict=True):
        widths[column] = max(widths[column], _width(node, texts))
    lefts = _lefts(widths, _label_columns(edges, placed))
    ways = list(zip(edges, placed.lines, strict=True))
    boxes = zip(nodes, notes, placed.boxes, strict=True)
    body = [_line(edge, way, lefts, widths) for edge, way in ways]
    body += [
        _box(n, texts, lefts[c], widths[c], HEAD + MARGIN + y, h) for n, texts, (c, y, h) in boxes
    ]
    body += [_label(edge, way, lefts, widths) for edge, way in ways if edge.label]
    page = _page(graph, body, lefts[-1] + widths[-1] if widths else 0, placed)
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _forward(edge: Edge) -> tuple[str, str]:
    """Who stands further left: what goes back is drawn from right to left."""
    backward = edge.kind in ("back", "round")
    return (edge.end, edge.start) if backward else (edge.start, edge.end)


def _notes(graph: Graph, nodes: list[Node]) -> list[list[str]]:
    names = {node.id: node.name for node in graph.nodes}
    topics: dict[str, list[str]] = {}
    tools: dict[str, list[str]] = {}
    for edge in graph.edges:
        if edge.kind == "topic":
            topics.setdefault(edge.end, []).append(names[edge.start])
        elif edge.kind == "tool":
            tools.setdefault(edge.start, []).append(names[edge.end])
    hears = {node: [f"hears {_some(heard)}"] for node, heard in topics.items()}
    calls = {node: [f"calls {_some(called)}"] for node, called in tools.items()}
    return [[*n.notes, *hears.get(n.id, []), *calls.get(n.id, [])] for n in nodes]


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _title(node: Node) -> str:
    return f"{node.name} \u00d7{node.replicas}" if node.replicas > 1 else node.name


def _height(node: Node, lines: list[str]) -> int:
    return 38 + LINE * len(lines)


def _width(node: Node, lines: list[str]) -> int:
    longest = max((len(line) for line in lines), default=0)
    return round(max(len(_title(node)) * NAME_PX, longest * NOTE_PX, 44)) + 2 * PAD


def _label_columns(edges: list[Edge], placed: Placed) -> dict[int, int]:
    """Columns with a label at their right, and the room that it takes."""
    room: dict[int, int] = {}
    for edge, way in zip(edges, placed.lines, strict=True):
        if edge.label:
            column = _label_end(edge, way)[0][0]
            room[column] = max(room.get(column, 0), round(len(edge.label) * NOTE_PX) + LABEL_GAP)
    return room


def _label_end(edge: Edge, way: Way) -> Way:
    """The stretch of a line that its label stands on: where it leaves its agent."""
    return way[-2:] if edge.kind in ("back", "round") else way[:2]


def _lefts(widths: list[int], room: dict[int, int]) -> list[int]:
    lefts, x = [], MARGIN
    for column, width in enumerate(widths):
        lefts.append(x)
        x += width + max(COLUMN_GAP, room.get(column, 0))
    return lefts


def _box(node: Node, lines: list[str], x: int, width: int, y: int, height: int) -> str:
    kind = {"agent": "agent", "source": "source"}.get(node.kind, "io")
    round_by = 6 if kind == "agent" else 16
    parts = [f"<title>{escape(node.kind)} {escape(_title(node))}</title>"]
    for behind in range(2 if node.replicas > 2 else node.replicas - 1, -1, -1):
        by = behind * STACK
        parts.append(
            f'<rect class="{kind}" x="{x + by}" y="{y - by}" width="{width}" height="{height}" '
            f'rx="{round_by}"/>'
        )
    first = y + (height - 38 - LINE * len(lines)) // 2 + 24
    parts.append(_text("n", x + width // 2, first, _title(node)))
    parts += [_text("t", x + width // 2, first + LINE * (n + 1), s) for n, s in enumerate(lines)]
    return f"<g>{''.join(parts)}</g>"


def _text(kind: str, x: int, y: int, words: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def _points(way: Way, lefts: list[int], widths: list[int]) -> list[tuple[int, int]]:
    """Corners: right of the first box, both sides of each column it passes, left of the last."""
    down = HEAD + MARGIN
    points = []
    for n, (column, y) in enumerate(way):
        if n:
            points.append((lefts[column], y + down))
        if n < len(way) - 1:
            points.append((lefts[column] + widths[column], y + down))
    return points


def _line(edge: Edge, way: Way, lefts: list[int], widths: list[int]) -> str:
    kind = "may" if edge.kind in MAY else "event" if edge.kind == "event" else ""
    points = _points(way, lefts, widths)
    if edge.kind in ("back", "round"):
        points.reverse()
    (x, y), *rest = points
    path = [f"M{x} {y}"]
    for n, (to_x, to_y) in enumerate(rest):
        if n % 2 == 0:
            middle = (x + to_x) // 2
            path.append(f"C{middle} {y} {middle} {to_y} {to_x} {to_y}")
        else:
            path.append(f"H{to_x}")
        x, y = to_x, to_y
    return f'<path class="e {kind}" d="{"".join(path)}" marker-end="url(#a{kind})"/>'


def _label(edge: Edge, way: Way, lefts: list[int], widths: list[int]) -> str:
    (x, y), (to_x, to_y) = _points(_label_end(edge, way), lefts, widths)
    return _text("l", (x + to_x) // 2, (y + to_y) // 2 - 4, edge.label)


def _page(graph: Graph, body: list[str], right: int, placed: Placed) -> str:
    agents = f"{graph.agents} agent{'s' * (graph.agents != 1)}"
    models = ", ".join(node.name for node in graph.of_kind("model"))
    subtitle = f"{graph.policy} · {agents}" + (f" · models: {models}" if models else "")
    foot = ["dashed: if an agent says so"] if any(e.kind in MAY for e in graph.edges) else []
    words = max(len(graph.name) * 10.5, len(subtitle) * 7.0)
    width = max(right, round(words) + MARGIN) + MARGIN + 2 * STACK
    height = HEAD + placed.height + 2 * MARGIN + 22 * len(foot)
    arrows = "".join(
        f'<marker id="a{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path class="a a{kind}" '
        'd="M0 0L10 5L0 10z"/></marker>'
        for kind in ("", "may", "event")
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(graph.name)}, '
        f'{escape(subtitle)}">',
        f"<style>{_STYLE}</style>",
        f"<defs>{arrows}</defs>",
        f'<rect class="bg" width="{width}" height="{height}"/>',
        _text("h", MARGIN, MARGIN + 16, graph.name, "start"),
        _text("s", MARGIN, MARGIN + 36, subtitle, "start"),
        *body,
        *(_text("s", MARGIN, height - 16, line, "start") for line in foot),
        "</svg>",
        "",
    ])  # fmt: skip
