"""The recovery table: documentation, code and this test say the same, for every case there is."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from lockstep.engine.journal.recovery import TABLE, Found, Rest, Verdict, Where, judge, markdown

DOCUMENT = Path(__file__).parents[3] / "docs/journal.md"


def cut(found: Found, where: Where, rest: Rest) -> bool:
    """The rule in other words: what can only be the end of a last write that was torn."""
    if where is Where.EARLIER or rest is Rest.FRAMES:
        return False
    if found in (Found.HEAD_SHORT, Found.BODY_SHORT):
        return True
    if found in (Found.HEAD_BAD, Found.BODY_BAD):
        return rest in (Rest.ZEROS, Rest.ZERO_TAIL)
    if where is Where.LAST and found is Found.HEADER_BAD:
        return rest is Rest.ZEROS
    return where is Where.LAST and found is Found.HEADER_SHORT


def test_every_case_is_cut_or_refused_as_the_rule_says() -> None:
    cases = list(product(Found, Where, Rest))
    assert len(cases) == 12 * 3 * 4
    for case in cases:
        assert (judge(*case).verdict is Verdict.CUT) == cut(*case), case


def test_every_row_decides_some_case() -> None:
    deciding = [judge(*case) for case in product(Found, Where, Rest)]
    assert all(row in deciding for row in TABLE)


def test_the_document_shows_the_table() -> None:
    assert markdown() in DOCUMENT.read_text(encoding="utf-8")
