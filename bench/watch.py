"""Watch: when each request of a run was asked, and when its tokens came.

Held to a supervisor's sequencer from outside (bench/tap.py): a ticket is asked when the sequencer
issues it, a token is there when the supervisor takes the report of its step. Lists of numbers are
all that is made while the run goes on; answers are read when it is over.
"""

import time
from collections.abc import Iterable
from typing import Any

from lockstep.engine import actions
from lockstep.engine.record import decode_at
from lockstep.engine.strict_json import loads
from lockstep.engine.wire import StepReport


class RequestWatch:
    """Of one run."""

    def __init__(self) -> None:
        self._asked_ns: dict[int, int] = {}
        self._tokens_ns: dict[int, list[int]] = {}
        self._answers: dict[int, bytes] = {}
        self._rows: list[int] = []

    def issued(self, done: Iterable[actions.Action]) -> None:
        """What the sequencer wants done, tickets among it."""
        now = time.perf_counter_ns()
        for action in done:
            if isinstance(action, actions.Issue):
                self._asked_ns[action.ticket.number] = now

    def reported(self, report: StepReport) -> None:
        """A step is over and the supervisor has it."""
        now = time.perf_counter_ns()
        for entry in report.tokens:
            self._tokens_ns.setdefault(entry[0], []).append(now)
        if report.tokens:
            self._rows.append(len(report.tokens))
        for answer in report.answers:
            self._answers[answer.ticket] = answer.record

    def to_json(self) -> dict[str, Any]:
        """``requests``: as `bench.serving.Served.of` takes them; ``rows``: tokens of each step."""
        requests = []
        for ticket, tokens_ns in self._tokens_ns.items():
            record, _ = decode_at(self._answers[ticket], 0)
            usage: Any = loads(record.payload)["usage"]
            requests.append([self._asked_ns[ticket], tokens_ns, usage["prompt_tokens"],
                             usage["cached_tokens"]])  # fmt: skip
        return {"requests": requests, "rows": self._rows}
