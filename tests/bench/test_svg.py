"""Pictures are well-formed, and their axes enclose what they show."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from lockstep.bench.svg import HEIGHT, WIDTH, Panel, picture, ticks

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"a <b>": [(1.0, 0.9), (2.0, 1.0), (8.0, 0.95)], "c": [(1.0, 0.8), (8.0, 0.8)]}


def test_every_point_has_its_mark_inside_its_panel() -> None:
    root = ET.fromstring(picture("title & more", [Panel("x", True, LINES)]))
    circles = [c for c in root.iter(f"{SVG}circle") if float(c.attrib["cy"]) < HEIGHT - 74]
    assert len(circles) == len(LINES["a <b>"])
    assert all(0 < float(c.attrib["cx"]) < WIDTH for c in circles)
    xs = [float(c.attrib["cx"]) for c in circles]
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)  # Factors of two.
    assert "title & more" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_linear_axis_keeps_distances() -> None:
    root = ET.fromstring(picture("t", [Panel("x", False, {"a": LINES["a <b>"]})]))
    xs = [float(c.attrib["cx"]) for c in root.iter(f"{SVG}circle")][:3]
    assert (xs[2] - xs[1]) == pytest.approx(6 * (xs[1] - xs[0]), abs=0.5)


@pytest.mark.parametrize(
    ("low", "high"), [(0.8, 1.0), (0.993, 0.998), (1.0, 1.0), (0.0, 0.0), (3.0, 12_345.0)]
)
def test_ticks_enclose_the_range_evenly(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 1 <= len(found) <= 8
    gaps = {round(b - a, 9) for a, b in pairwise(found)}
    assert len(gaps) <= 1


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no points"):
        picture("t", [Panel("x", False, {})])
