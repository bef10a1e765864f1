"""Step reports on their way into the history: after all tags with a step up to theirs (rule 7)."""

from collections.abc import Callable, Iterator

from lockstep.engine.counts import Counts
from lockstep.engine.history import Entry, step_entry
from lockstep.engine.requests import Ticket
from lockstep.engine.wire import UNCOMPUTED, StepReport


class Reports:
    """Steps that were reported and are not in the history yet.

    Args:
        find: An unanswered ticket by its number: a report enters the history before the tag that
            books its answers.

    Attributes:
        last: Last step that was reported, -1 before the first.
        rows: Tokens of that step: for display.
    """

    def __init__(self, find: Callable[[int], Ticket]) -> None:
        self._find = find
        self._waiting: list[StepReport] = []
        self._tokens: dict[int, list[int]] = {}  # Ticket -> token ids, until it is answered.
        self.last = -1
        self.rows = 0

    def add(self, report: StepReport) -> None:
        """The engine executed a step."""
        self.last = report.step
        self.rows = len(report.tokens)
        self._waiting.append(report)
        for ticket, token in report.tokens:
            self._tokens.setdefault(ticket, []).append(token)

    def ahead(self) -> list[bytes]:
        """Entries that steps will have which are not in the history yet, in order."""
        return [step_entry(report, []).body for report in self._waiting]

    def take(self, before: int, counts: Counts) -> Iterator[Entry]:
        """Entries of the steps below ``before``, in order; what they did is counted."""
        while self._waiting and self._waiting[0].step < before:
            yield self._entry(self._waiting.pop(0), counts)

    def _entry(self, report: StepReport, counts: Counts) -> Entry:
        finished = []
        counts.steps += 1
        for answer in report.answers:
            ticket = self._find(answer.ticket)
            tokens = self._tokens.pop(answer.ticket, [])
            if tokens or answer.status not in UNCOMPUTED:
                counts.tokens_in += answer.prompt_tokens
            if answer.failed:
                counts.requests_failed += 1
                counts.request_failure = counts.request_failure or answer.reason()
            counts.tokens_out += len(tokens)
            finished.append((ticket.agent, ticket.ordinal, tokens))
        return step_entry(report, finished)
