"""Step reports on their way into the history: what is counted of them."""

from __future__ import annotations

import pytest

from lockstep.engine.counts import Counts
from lockstep.engine.plan import FINISH_STATUS
from lockstep.engine.record import Kind, encode
from lockstep.engine.reports import Reports
from lockstep.engine.requests import Ticket
from lockstep.engine.wire import Answer, StepReport

PROMPT = 7


@pytest.mark.parametrize(
    ("reason", "tokens", "counted"),
    [
        ("stop", 2, PROMPT),
        ("length", 1, PROMPT),
        ("stop", 0, PROMPT),  # Vectors: an answer without tokens.
        ("invalid_output", 0, PROMPT),
        ("timeout", 1, PROMPT),
        ("cancelled", 3, PROMPT),
        ("refused", 0, 0),
        ("timeout", 0, 0),
        ("cancelled", 0, 0),
    ],
)
def test_a_prompt_that_was_refused_or_never_answered_is_not_counted(
    reason: str, tokens: int, counted: int
) -> None:
    reports = Reports(lambda number: Ticket(number, 1, 0, 1, 0, 0))
    record = encode(Kind.RESULT, b'{"error":"why"}', id=1)
    answer = Answer(1, FINISH_STATUS[reason], PROMPT, record)
    reports.add(StepReport(4, b"", ((1, 5),) * tokens, (answer,)))
    counts = Counts()
    assert len(list(reports.take(5, counts))) == 1
    assert (counts.tokens_in, counts.tokens_out) == (counted, tokens)
