"""Pages are whole in themselves: nothing is fetched, nothing but what is named may run."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from profiles import HOSTILE, profile

from lockstep.workers.pictures import profile_page
from lockstep.workers.pictures.page import page, table
from lockstep.workers.pictures.profile import ROWS_MAX, SERIES_POINTS, at_share, cdf, coarse
from lockstep.workers.pictures.timeline import SCRIPT, TRACKS_MAX

VOID = ("meta", "input", "br", "link", "img")


class Seen(HTMLParser):
    """Elements of a page, their nesting checked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def hashes(text: str, tag: str) -> Iterator[str]:
    for found in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S):
        digest = hashlib.sha256(found.encode()).digest()
        yield f"'sha256-{base64.b64encode(digest).decode()}'"


@pytest.fixture(scope="module")
def usual() -> str:
    return profile_page(profile())


def test_a_page_allows_its_own_style_and_script_and_nothing_else(usual: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', usual)
    assert policy is not None
    (style,), (script,) = hashes(usual, "style"), hashes(usual, "script")
    assert policy[1] == (
        f"default-src 'none'; style-src {style}; script-src {script}; "
        "base-uri 'none'; form-action 'none'"
    )


def test_nothing_in_a_page_points_outside_it(usual: str) -> None:
    places = {
        value
        for _, attributes in Seen(usual).tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "xlink:href", "style") or name.startswith("on")
    }
    assert all(value and value.startswith("#") for value in places)
    assert "url(" not in usual and "@import" not in usual


def test_every_part_of_a_profile_is_shown(usual: str) -> None:
    words = Seen(usual).words
    for part in ("Throughput over time", "Time to first token", "p99", "Phases of the inference",
                 "Time of the processes", "Rows of a step: default", "Who held the model back",
                 "Messages", "What each process did", "memory bandwidth", "What would help",
                 "solver[0]", "held the model back", "9f3a61c2"):  # fmt: skip
        assert part in words, part


def test_behind_every_picture_is_a_table_or_a_sentence(usual: str) -> None:
    for figure in re.findall(r"<figure.*?</figure>", usual, re.S):
        assert "<desc>" in figure and "<title>" in figure
    assert usual.count("<table>") >= 7


def test_a_page_of_a_thousand_agents_stays_of_one_size() -> None:
    text = profile_page(profile(agents=1_000))
    assert len(text) < 4_000_000
    words = Seen(text).words
    assert f"{1_000 - ROWS_MAX} more agents are in the table" in words
    assert f"The first {TRACKS_MAX} of 1003 tracks" in words
    assert "solver[998]" in words


@pytest.mark.parametrize("agents", [0, 1])
def test_a_profile_of_hardly_anybody_is_a_page(agents: int) -> None:
    whole = profile(agents=max(agents, 1))
    if not agents:
        whole |= {"agents": [], "stalls": []}
    assert "Timeline" in Seen(profile_page(whole)).words


SMALL = profile(agents=2, wall_s=1.0, bins=8)


@pytest.mark.parametrize("part", SMALL)
def test_what_is_missing_or_empty_is_left_out(part: str) -> None:
    Seen(profile_page({name: held for name, held in SMALL.items() if name != part}))
    empty: Any = type(SMALL[part])()
    Seen(profile_page(SMALL | {part: empty}))


def test_a_profile_of_nothing_at_all_is_a_page() -> None:
    assert "Profile of a run" in Seen(profile_page({})).words


def test_what_is_no_number_is_a_gap() -> None:
    whole = profile()
    whole["series"]["tokens_per_s"][3] = None
    whole["series"]["rows"][5] = float("nan")
    whole["distributions"]["ttft_ms"]["values"][0] = 0.0
    whole["limits"][0]["limit"] = 0
    whole["processes"][0]["cpu_s"] = None
    text = profile_page(whole)
    Seen(text)
    assert "nan" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S).lower()


def hostile(value: Any) -> Any:
    """The same with every word of it hostile."""
    if isinstance(value, dict):
        return {key: hostile(held) for key, held in value.items()}
    if isinstance(value, list):
        return [hostile(held) for held in value]
    return HOSTILE if isinstance(value, str) else value


def test_what_the_profile_says_of_all_values_counts_more_than_those_it_kept() -> None:
    whole = profile(bins=8)
    whole["distributions"]["turn_ms"]["p99"] = 123.4
    assert "p99 123.4 ms" in Seen(profile_page(whole)).words


def test_a_line_over_time_is_the_mean_of_neighbours() -> None:
    times = [float(n) for n in range(4 * SERIES_POINTS)]
    points = coarse(times, [0.0, 8.0, None, 4.0] * SERIES_POINTS)
    assert len(points) == SERIES_POINTS and points[:2] == [(0.0, 4.0), (4.0, 4.0)]
    assert coarse([1.0, 2.0], [3.0, None]) == [(1.0, 3.0)]


def test_what_is_nought_all_the_time_is_said_and_not_drawn() -> None:
    whole = profile(bins=8)
    whole["series"]["messages_per_s"] = [0.0] * 8
    words = Seen(profile_page(whole)).words
    assert "Nothing but 0, so not drawn: messages." in words and "messages/s" not in words


def test_hostile_names_stay_words() -> None:
    text = profile_page(hostile(profile()))
    text.encode()
    seen = Seen(text)
    assert seen.count("img") == 0 and "alert(1)" in seen.words
    assert seen.count("script") == 2  # Ours, and the data beside the timeline.
    assert "\x1b" not in text and "\u202e" not in text


def test_a_page_without_a_script_allows_none() -> None:
    text = page("t", "", [("empty", ""), ("full", "<p>words</p>")])
    assert "script-src" not in text and "<script" not in text
    assert "empty" not in Seen(text).words and "full" in Seen(text).words


def test_colours_are_chosen_without_a_script(usual: str) -> None:
    chosen = [a["id"] for tag, a in Seen(usual).tags if tag == "input"]
    assert chosen == ["auto", "light", "dark"]
    assert all(f":root:has(#{name}:checked)" in usual for name in chosen[1:])


def test_a_table_sets_numbers_to_the_right_and_verdicts_in_colour() -> None:
    text = table(("a", "b", "c"), [("<x>", 1234.5, None), ("better", 1, 2)])
    assert '<td>&lt;x&gt;</td><td class="n">1,234</td>' in text
    assert '<td class="better">better</td>' in text


def test_a_distribution_keeps_its_ends_and_its_shares() -> None:
    values = [float(n) for n in range(1, 5_001)]
    points = cdf(values)
    assert len(points) <= 202 and points[0] == (1.0, 1 / 5_000) and points[-1] == (5_000.0, 1.0)
    assert [at_share(values, share) for share in (0.5, 0.9, 0.99)] == [2_500, 4_500, 4_950]
    assert cdf([7.0, 9.0]) == [(7.0, 0.0), (7.0, 0.5), (9.0, 0.5), (9.0, 1.0)]
    assert at_share([7.0], 0.5) == 7.0


def test_the_script_names_no_address_and_evaluates_nothing() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    for word in ("http", "eval", "innerHTML", "fetch", "import", "Function"):
        assert word not in text.replace("http://www.w3.org/2000/svg", ""), word
