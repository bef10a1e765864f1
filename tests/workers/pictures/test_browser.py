"""Pages in a real browser: no complaint on its console, no request but for the page itself."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchreports import group, report
from browsers import PLACE, Shown, needs_browser
from profiles import profile

from lockstep.bench import told
from lockstep.bench.comparing import compare
from lockstep.workers.pictures import profile_page
from lockstep.workers.pictures.page import figure, page
from lockstep.workers.pictures.timeline import SCRIPT, timeline

pytestmark = needs_browser


def boxes(dom: str) -> dict[tuple[str, str], str]:
    """(track, kind) to the outline that is drawn."""
    paths = re.findall(r"<path [^>]*data-track[^>]*>", dom)
    found = {}
    for path in paths:
        value = dict(re.findall(r'([\w-]+)="([^"]*)"', path))
        found[value["data-track"], value["data-kind"]] = value["d"]
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    yield Shown(profile_page(profile()), tmp_path_factory.mktemp("browser"))


def test_a_report_is_shown_without_a_complaint_and_asks_for_nothing(usual: Shown) -> None:
    assert usual.console == []
    assert usual.asked == [PLACE]
    assert "<svg" in usual.dom and 'class="bar"' in usual.dom  # The script ran.


@pytest.mark.parametrize("what", ["session", "comparison"])
def test_reports_of_benchmarks_are_shown_without_a_complaint(what: str, tmp_path: Path) -> None:
    whole = report(
        {"shm": group({"pipe": (1.0, 1.1, 1.2), "queue": (90.0, 100.0, 110.0)}, rate=1.0)}
    )
    found = compare(whole, whole, ("a", "b"))
    text = told.session_page(whole) if what == "session" else told.comparison_page(found)
    shown = Shown(text, tmp_path)
    assert (shown.console, shown.asked) == ([], [PLACE])
    assert "<svg" in shown.dom


def test_the_canary_a_page_that_asks_and_complains_is_noticed(tmp_path: Path) -> None:
    text = profile_page(profile()).replace("default-src 'none'", "default-src *")
    text = text.replace(
        "</main>", '<img src="http://elsewhere.invalid/a.png"><script>1</script></main>'
    )
    shown = Shown(text, tmp_path)
    assert "http://elsewhere.invalid/a.png" in shown.asked
    assert shown.console != []


def test_a_still_timeline_and_a_moved_one_are_drawn_alike(tmp_path: Path) -> None:
    # Zoomed in and out again, every outline is what it was: the script draws as Python did.
    still = profile_page(profile())
    there_and_back = "for (const n of [0, 4]) document.querySelectorAll('.bar button')[n].click();"
    script = SCRIPT.read_text() + there_and_back
    moved = Shown(page("t", "", [("s", _timeline(still))], script), tmp_path)
    before, after = boxes(still), boxes(moved.dom)
    assert moved.console == [] and before.keys() == after.keys()
    assert [k for k in before if before[k].count("z") != after[k].count("z")] == []


def test_looking_into_a_part_draws_more_of_it(tmp_path: Path) -> None:
    spans = [[n / 1e4, 5e-5, "s", "guest"] for n in range(20_000)]
    held = timeline("t", "a", [{"name": "a", "spans": spans}], 2.0)
    clicks = "for (let n = 0; n < 8; n++) document.querySelector('.bar button').click();"
    text = page("t", "", [("s", figure("t", held, kind="timeline"))], SCRIPT.read_text() + clicks)
    outline = boxes(Shown(text, tmp_path).dom)["0", "0"]
    assert 40 < outline.count("z") < 120  # 2 s / 2^8 at 10,000 spans a second, drawn one by one.


def _timeline(text: str) -> str:
    found = re.search(r'<figure class="wide timeline">.*?</figure>', text, re.S)
    assert found is not None
    return found[0]
