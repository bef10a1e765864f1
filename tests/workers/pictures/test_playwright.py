"""The report of a profile in a browser that is driven: what a person sees, types and clicks.

Needs the extra `browser` (``pip install -e '.[test,browser]'``) and a Chromium that is there
already: ``pytest -m browser``. Without it test_browser.py looks at the same page.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from browsers import BROWSER, PLACE, needs_browser
from profiles import profile

from lockstep.workers.pictures import profile_page

drive = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
pytestmark = needs_browser

OUTLINES = "paths => paths.map(path => path.getAttribute('d'))"
COLOUR = "getComputedStyle(document.body).{}"


class Page:
    """One page, and all that went on beside it."""

    def __init__(self, browser: Any, text: str, scheme: str) -> None:
        self.said: list[str] = []  # On the console, and what was thrown.
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))
        self.page.route("**/*", lambda route: self._answer(route, text))
        self.page.goto(PLACE)

    def _answer(self, route: Any, text: str) -> None:
        self.asked.append(route.request.url)
        if route.request.url == PLACE:
            route.fulfill(body=text, content_type="text/html; charset=utf-8")
        else:
            route.abort()

    def outlines(self) -> list[str]:
        """What the timeline shows."""
        found: list[str] = self.page.eval_on_selector_all(".timeline path[data-track]", OUTLINES)
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with drive.sync_playwright() as tool:
        made = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(params=["light", "dark"])
def shown(browser: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    made = Page(browser, profile_page(profile()), request.param)
    yield made
    made.page.close()


def test_it_is_whole_in_itself_in_both_colour_schemes(browser: Any, shown: Page) -> None:
    assert (shown.said, shown.asked, shown.failed) == ([], [PLACE], [])
    assert shown.page.locator("svg").count() > 3
    other = Page(browser, profile_page(profile()), "light")
    colours = [COLOUR.format(name) for name in ("color", "backgroundColor")]
    same = [shown.page.evaluate(c) == other.page.evaluate(c) for c in colours]
    dark = shown.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert same == [not dark] * 2
    other.page.close()


def test_the_timeline_obeys_keys(shown: Page) -> None:
    svg = shown.page.locator(".timeline svg")
    seen = [shown.outlines()]
    for key in ("+", "+", "ArrowRight", "ArrowLeft", "-"):
        svg.press(key)
        seen.append(shown.outlines())
    assert all(before != after for before, after in pairwise(seen))
    svg.press("0")
    drawn = shown.outlines()  # As the script draws the whole run, not as Python did.
    svg.press("+")
    svg.press("0")
    assert shown.outlines() == drawn
    assert (shown.said, shown.asked) == ([], [PLACE])


def test_the_timeline_obeys_clicks_and_drags_and_says_what_is_under_the_pointer(
    shown: Page,
) -> None:
    page, whole = shown.page, shown.outlines()
    page.get_by_role("button", name="zoom in").first.click()
    zoomed = shown.outlines()
    assert zoomed != whole
    page.get_by_role("button", name="the whole run").first.click()
    again = shown.outlines()
    assert again != zoomed
    svg, told = page.locator(".timeline svg"), page.locator(".timeline output")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    hint = told.inner_text()
    y = box["y"] + box["height"] / 4
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    assert told.inner_text() != hint
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=3)
    page.mouse.up()
    assert shown.outlines() != again
    assert (shown.said, shown.asked) == ([], [PLACE])


def test_the_canary_a_page_that_asks_and_complains_is_noticed(browser: Any) -> None:
    text = profile_page(profile()).replace("default-src 'none'", "default-src *")
    more = '<img src="http://elsewhere.invalid/a.png"><script>1</script></main>'
    page = Page(browser, text.replace("</main>", more), "light")
    assert "http://elsewhere.invalid/a.png" in page.asked
    assert page.failed == ["http://elsewhere.invalid/a.png"] and page.said
    page.page.close()
