"""Pictures are well-formed, safe, and have each point where it belongs."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from lockstep.workers.pictures import svg
from lockstep.workers.pictures.bars import Bar, Span, bars, columns, intervals
from lockstep.workers.pictures.chart import HEIGHT, WIDTH, Chart, Line, chart, row
from lockstep.workers.pictures.scale import Kind
from lockstep.workers.pictures.timeline import HELD, TRACKS_MAX, timeline, with_stalls

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [(1.0, 0.9), (2.0, 1.0), (8.0, 0.95)]
HOSTILE = "<script>&\"'\x1b[31m\u202e\ud83d"
SAFE = "<script>&\"'\\x1b[31m\\u202e\\ud83d"


def parsed(text: str) -> ET.Element:
    text.encode()  # No lone surrogate is left.
    return ET.fromstring(text)


def circles(root: ET.Element, width: float = WIDTH) -> list[float]:
    return [float(c.attrib["cx"]) for c in root.iter(f"{SVG}circle")]


def texts(root: ET.Element) -> list[str]:
    return [t.text or "" for t in root.iter(f"{SVG}text")]


def of(lines: Sequence[Line], kind: Kind = "linear", **more: object) -> Chart:
    return Chart("title & more", "what is seen", "x", "y", lines, kind, **more)  # type: ignore[arg-type]


def test_a_picture_says_what_it_is_to_who_cannot_see_it() -> None:
    root = parsed(chart(of([Line("a", POINTS)])))
    assert root.attrib["role"] == "img"
    assert [root.findtext(f"{SVG}{name}") for name in ("title", "desc")] == [
        "title & more",
        "what is seen",
    ]


def test_every_point_has_its_mark_inside_the_picture() -> None:
    root = parsed(chart(of([Line("a", POINTS, dots=True)], "log2")))
    xs = circles(root)
    assert len(xs) == len(POINTS) and all(0 < x < WIDTH for x in xs)
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)  # Factors of two.


def test_a_linear_axis_keeps_distances() -> None:
    xs = circles(parsed(chart(of([Line("a", POINTS, dots=True)]))))
    assert xs[2] - xs[1] == pytest.approx(6 * (xs[1] - xs[0]), abs=0.5)


def test_two_lines_differ_in_colour_and_pattern_and_have_a_legend() -> None:
    root = parsed(chart(of([Line("first", POINTS), Line("second", POINTS)])))
    lines = {p.attrib["class"] for p in root.iter(f"{SVG}path") if "line" in p.attrib["class"]}
    assert lines == {"line c0", "line c1 d1"}
    assert {"first", "second"} <= set(texts(root))


def test_what_is_no_number_is_a_gap_and_nothing_is_said_to_be_nothing() -> None:
    odd = [(0.0, None), (1.0, float("nan")), (2.0, 5.0)]
    root = parsed(chart(of([Line("a", odd, dots=True)])))  # type: ignore[arg-type]
    assert len(circles(root)) == 1
    assert "nothing to show" in texts(parsed(chart(of([Line("a", odd[:2])]))))  # type: ignore[arg-type]
    assert "nothing to show" in texts(parsed(chart(of([]))))


def test_marks_that_are_close_do_not_lie_upon_each_other() -> None:
    marks = [(2.0, "p50"), (2.1, "p90"), (2.2, "p99"), (8.0, "last")]
    root = parsed(chart(of([Line("a", POINTS)], x_marks=marks)))
    heights = [t.attrib["y"] for t in root.iter(f"{SVG}text") if t.attrib["class"] == "b"]
    assert len(set(heights[:3])) == 3


def test_charts_in_a_row_share_their_axis_and_are_a_document_with_its_style() -> None:
    charts = [of([Line("a <b>", POINTS, dots=True)], "log2"), of([Line("c", [(1.0, 0.5)])])]
    root = parsed(row("a row", "two charts", charts))
    assert "--paper" in (root.findtext(f"{SVG}style") or "")
    labels = [[t.text for t in g.iter(f"{SVG}text") if t.attrib["text-anchor"] == "end"]
              for g in root.findall(f"{SVG}g")]  # fmt: skip
    assert labels[0] == labels[1] and "0.5" in labels[0]
    assert {"a row", "a <b>"} <= set(texts(root))


def test_a_row_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no points"):
        row("t", "a", [of([])])


def test_hostile_names_are_shown_as_what_they_are() -> None:
    assert svg.plain(HOSTILE) == SAFE
    drawn = [
        chart(of([Line(HOSTILE, POINTS), Line("b", POINTS)])),
        bars(HOSTILE, HOSTILE, "s", [Bar(HOSTILE, [(HOSTILE, 1.0)], HOSTILE)]),
        intervals(HOSTILE, HOSTILE, "x", [Span(HOSTILE, [(HOSTILE, 0.5, 1.0, 2.0)])]),
        columns(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [1, 2], 0.5),
    ]
    for text in drawn:
        assert not list(parsed(text).iter(f"{SVG}script"))
        assert "\x1b" not in text and "\u202e" not in text


def test_bars_are_as_long_as_what_they_show() -> None:
    rows = [Bar("a", [("x", 3.0), ("y", 1.0)]), Bar("b", [("x", 2.0)]), Bar("c", [("x", -1.0)])]
    root = parsed(bars("t", "a", "s", rows))
    full = [r for r in root.iter(f"{SVG}rect") if "gap" in r.attrib["class"]]
    widths = [float(r.attrib["width"]) for r in full]
    assert widths == pytest.approx([3 * widths[1], widths[1], 2 * widths[1]], rel=0.02)
    assert float(full[1].attrib["x"]) == pytest.approx(
        float(full[0].attrib["x"]) + widths[0], abs=0.2
    )


def test_a_column_stands_for_each_count() -> None:
    root = parsed(columns("t", "a", "rows", "steps", [0, 4, 8], 1.5))
    heights = [float(r.attrib["height"]) for r in root.iter(f"{SVG}rect")]
    assert heights == pytest.approx([0, heights[2] / 2, heights[2]], abs=0.2)
    assert "mean 1.5" in texts(root)
    assert "nothing to show" in texts(parsed(columns("t", "a", "x", "y", [0, 0], None)))


@pytest.mark.parametrize(
    ("low", "high"), [(0.99, 1.01), (0.3, 9.0), (1e-4, 1e5), (2.0, 3.0), (1e-308, 1e308)]
)
def test_intervals_stand_beside_a_line_at_one(low: float, high: float) -> None:
    middle = (low * high) ** 0.5
    root = parsed(intervals("t", "a", "ratio", [Span("r", [("ratio", low, middle, high)])]))
    (place,) = circles(root)
    (one,) = [p for p in root.iter(f"{SVG}path") if p.attrib["class"] == "base"]
    line = float(one.attrib["d"][1:].split()[0])
    assert (place > line) == (middle > 1) or place == pytest.approx(line, abs=0.1)
    assert "1" in texts(root) and len(texts(root)) <= 15


def test_bars_of_nothing_say_so() -> None:
    for text in (bars("t", "a", "s", []), bars("t", "a", "s", [Bar("a", [("x", 0.0)])]),
                 intervals("t", "a", "x", [])):  # fmt: skip
        assert "nothing to show" in texts(parsed(text))


def test_of_many_names_the_heaviest_have_colours_and_the_rest_are_one() -> None:
    assert svg.few([("a", 1.0), ("b", 2.0), ("a", 1.0)]) == ["a", "b"]
    many = [(f"n{n}", float(n)) for n in range(svg.COLOURS + 3)]
    found = svg.few(many)
    assert len(found) == svg.COLOURS - 1 and found[-1] == many[-1][0] and "n0" not in found


# -- timeline -------------------------------------------------------------------------------------

TRACKS = [
    {"name": "inference", "kind": "inference", "spans": [[0.0, 1.0, "4 rows", "decode"],
                                                         [1.0, 0.5, "prompt", "prefill"]]},
    {"name": "agent a", "kind": "agent", "spans": [[0.2, 0.1, "turn", "guest"]]},
]  # fmt: skip


def split(text: str) -> tuple[ET.Element, str]:
    """The picture, and what lies beside it."""
    picture, _, data = text.partition("<script")
    return parsed(picture), data


def boxes(root: ET.Element, track: int) -> int:
    paths = [p for p in root.iter(f"{SVG}path") if p.attrib.get("data-track") == str(track)]
    return sum(p.attrib["d"].count("z") for p in paths)


def test_a_timeline_has_a_row_for_each_track_and_a_box_for_each_span() -> None:
    root, _ = split(timeline("t", "a", TRACKS, 1.5))
    assert [boxes(root, 0), boxes(root, 1)] == [2, 1]
    assert {"inference", "agent a", "decode", "prefill", "guest"} <= set(texts(root))


def test_spans_that_are_closer_than_a_pixel_are_drawn_as_one() -> None:
    spans = [[n / 1e4, 5e-5, "s", "guest"] for n in range(20_000)]
    root, data = split(timeline("t", "a", [{"name": "a", "spans": spans}], 2.0))
    assert boxes(root, 0) == 1
    assert data.count("],[") > 19_000  # What was drawn is whole beside it.


def test_kinds_beyond_the_colours_are_drawn_as_others() -> None:
    spans = [[float(n), 1.0 + n, "s", f"kind {n}"] for n in range(12)]
    root, _ = split(timeline("t", "a", [{"name": "a", "spans": spans}], 30.0))
    assert svg.OTHER in texts(root) and "kind 0" not in texts(root) and "kind 11" in texts(root)
    assert boxes(root, 0) >= svg.COLOURS


def test_stalls_are_a_track_before_the_agents() -> None:
    late = {"name": "sync", "kind": "sync", "spans": []}
    found = with_stalls([*TRACKS, late], [[0.5, 0.1, "agent a", 7]])
    assert [track["name"] for track in found] == ["inference", "sync", HELD, "agent a"]
    assert found[2]["spans"] == [[0.5, 0.1, "agent a, step 7", "stall"]]
    assert with_stalls(TRACKS, []) == TRACKS


def test_a_timeline_shows_so_many_tracks_and_no_more() -> None:
    tracks = [{"name": f"t{n}", "spans": [[0.0, 1.0, "s", "guest"]]} for n in range(200)]
    root, _ = split(timeline("t", "a", tracks, 1.0))
    assert len([t for t in texts(root) if t.startswith("t")]) == TRACKS_MAX + 1  # And its axis.
    assert float(root.attrib["height"]) < TRACKS_MAX * 20 + HEIGHT


def test_what_lies_beside_a_timeline_cannot_end_its_element() -> None:
    tracks = [{"name": "</script><b>", "spans": [[0.0, 1.0, "</script>", "<!--"]]}]
    text = timeline("t", "a", tracks, 1.0)
    inside = text.partition('<script type="application/json">')[2]
    assert inside.count("<") == 1 and inside.endswith("</script>")
