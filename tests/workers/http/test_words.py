"""Words: what is told of a growing answer is always a beginning of it, cut before stop strings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.workers.http.problems import Problem
from lockstep.workers.http.words import Words
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.text import Text

MODEL = Path(__file__).parents[2] / "data" / "genai-micro-fp32"


@pytest.fixture(scope="module")
def text() -> Text:
    folder = ModelFolder.open(MODEL)
    try:
        return Text(folder)
    finally:
        folder.close()


def before(whole: str, stops: list[str]) -> str:
    """The text before the first of the stop strings."""
    return whole[: min([at for stop in stops if (at := whole.find(stop)) >= 0], default=len(whole))]


@settings(deadline=None)
@given(
    st.text(st.sampled_from("ab é日\n"), max_size=30),
    st.lists(st.text(st.sampled_from("ab \n"), min_size=1, max_size=4), max_size=3),
)
def test_pieces_and_the_rest_are_the_answer_however_it_is_cut(
    text: Text, said: str, stops: list[str]
) -> None:
    words = Words(text, stops)
    ids = text.encode(said)
    answer = before(text.decode(ids), stops)
    pieces = ""
    for at, token in enumerate(ids[:-1]):  # The one that ends it is not told.
        if len(before(text.decode(ids[: at + 1]), stops)) < len(text.decode(ids[: at + 1])):
            break  # The answer has ended.
        pieces += words.push(at, [token])
        assert answer.startswith(pieces)
    assert pieces + words.rest(answer) == answer


def test_after_a_gap_nothing_is_told_before_the_answer(text: Text) -> None:
    words = Words(text, [])
    ids = text.encode("a b a b")
    first = words.push(0, ids[:1])
    assert words.push(2, ids[2:3]) == "" and words.push(3, ids[3:]) == ""
    assert first + words.rest("a b a b") == "a b a b"


def test_without_a_tokenizer_all_comes_at_the_end() -> None:
    words = Words(None, ["x"])
    assert words.push(0, [1]) == "" and words.rest("whole") == "whole"


def test_an_answer_that_does_not_begin_with_what_was_told_is_a_problem(text: Text) -> None:
    words = Words(text, [])
    assert words.push(0, text.encode("ab ab"))
    with pytest.raises(Problem, match="tokenizer"):
        words.rest("else")
