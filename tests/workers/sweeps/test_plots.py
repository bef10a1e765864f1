"""Plots of a sweep."""

from html.parser import HTMLParser
from typing import Any

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.sweeps.grid import axes_of, combinations, points
from lockstep.workers.sweeps.plots import LINES_MAX, plots
from lockstep.workers.sweeps.table import row_of, row_without

SUMMARY = {
    **dict.fromkeys(("turns", "messages", "requests", "requests_failed", "tokens_in"), 3),
    "state": "finished",
    "exit_code": 0,
    "reason": "",
    "digest": "a" * 64,
    "run_s": 0.5,
    "digest_text": "b" * 64,
    "steps": 9,
    "items_failed": 0,
    "wall_s": 1.5,
    "restarts": 0,
}


class Page(HTMLParser):
    """Titles of pictures and of sections."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._in = tag

    def handle_data(self, data: str) -> None:
        if self._in in ("h2", "h3") and data.strip():
            self.titles.append(data)


def _page(sets: list[str], seeds: list[int]) -> tuple[Page, str]:
    axes = axes_of(sets)
    grid = points(combinations(axes), seeds)
    rows = [
        row_of(point, f"runs/{point.number}", "0", {**SUMMARY, "tokens_out": point.number * 7})
        for point in grid[:-1]
    ]
    rows.append(row_without(grid[-1], "runs/x", UsageError("</script>\x1b[0m")))
    text = plots("<sweep>", rows, axes, len(grid))
    return Page(text), text


def test_figures_are_shown_by_seed_and_by_each_number_that_was_varied() -> None:
    page, text = _page(["schedule.lookahead=1,2", "schedule.policy=dag,events"], [1, 2, 3])
    figures = ("Tokens made", "Steps executed", "Pace", "Wall time")
    assert page.titles == [
        *("Overview", "By seed", *(f"{title} by seed" for title in figures)),
        *("By schedule.lookahead", *(f"{title} by schedule.lookahead" for title in figures)),
        "Runs",
    ]
    assert "lookahead 1, policy dag" in text and "11 of 12" not in text and "12 of 12" in text


def test_too_many_combinations_are_one_line_by_number_of_the_run() -> None:
    values = ",".join(map(str, range(1, LINES_MAX + 2)))
    page, _ = _page([f"schedule.lookahead={values}"], [1, 2])
    assert "Tokens made by run" in page.titles and "Tokens made by seed" not in page.titles


def test_a_page_of_many_runs_stays_small() -> None:
    _, text = _page(["schedule.lookahead=1,2"], list(range(1500)))
    assert len(text) < 2 << 20


@pytest.mark.parametrize("seeds", [[5], [5, 6]])
def test_what_was_not_varied_has_no_picture_and_nothing_is_shown_of_nothing(
    seeds: list[int],
) -> None:
    page, text = _page([], seeds)
    assert ("By seed" in page.titles) == (len(seeds) > 1)
    assert "Items failed by seed" not in page.titles
    assert "<script" not in text and "\x1b" not in text and "&lt;sweep&gt;" in text
    assert Page(plots("empty", [], [], 3)).titles == ["Overview", "Runs"]
