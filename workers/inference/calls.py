"""Calls: requests to models that are no decoders, from the asking record to the answering one.

The desk's sibling (desk.py) for tensors and embeddings. A call takes one step: it is admitted, run
alone and answered in it, in ticket order; nothing of it is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.plan import GOOD_FINISHES, Ended, Outcome, Request
from lockstep.engine.record import (
    FLAG_RAW,
    Record,
)
from lockstep.engine.settings import nearest
from lockstep.engine.strict_json import dumps
from lockstep.engine.version import LOGIC_FLAGS
from lockstep.workers.inference.fields import Fields, object_of, wrong
from lockstep.workers.inference.request import (
    NAME_BYTES_MAX,
    PRIORITY_MAX,
    REQUEST_BYTES_MAX,
    TIMEOUT_STEPS_MAX,
)
from lockstep.workers.inference.result import encode_answer
from lockstep.workers.inference.tensor_model import Runs, TensorModel
from lockstep.workers.inference.tensor_request import TensorRequest, parse_tensor_request
from lockstep.workers.inference.tensors import RANK_MAX

DEPTH_MAX = RANK_MAX + 4  # Of the JSON: a tensor's lists, in an object of tensors, in the request.
DONE = Outcome(0, stop=True)  # There is no token; the planner only needs to know that it ended.


@dataclass(slots=True)
class _Open:
    """A call that is not answered yet; ``answer`` is what its model gave, ``error`` why nothing."""

    record: Record
    model: int
    request: TensorRequest
    runs: Runs
    answer: dict[str, Any] | None = None
    error: str = ""


class Calls:
    """Open calls, by ticket.

    Args:
        names: Of all models of the fleet, in order.
        models: Those that are no decoders, by index.
        record_bytes_max: Largest record an answer may be.
        logic_flags: Rules of the run.
    """

    def __init__(
        self,
        names: Sequence[str],
        models: Mapping[int, TensorModel],
        record_bytes_max: int,
        logic_flags: int = LOGIC_FLAGS,
    ) -> None:
        self._names = list(names)
        self._models = models
        self._bytes_max = record_bytes_max
        self._logic_flags = logic_flags
        self._open: dict[int, _Open] = {}

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._open

    def asked(self, record: Record) -> tuple[int, bool]:
        """Which model a record asks, and whether it is answered here.

        So is who asks for a model that there is not: nobody knows of which kind it would be.
        """
        model = record.peer
        if not self._models or record.flags & FLAG_RAW:
            return model, self.takes(model)
        try:
            name = _object(record).get("model")
        except RequestRejected:
            return model, self.takes(model)
        if isinstance(name, str) and name not in self._names:
            return model, True
        model = self._names.index(name) if isinstance(name, str) else model
        return model, self.takes(model)

    def takes(self, model: int) -> bool:
        """Whether a model is one of these."""
        return model in self._models

    def take(self, record: Record, ticket: int, agent: int, due: int, model: int) -> Request:
        """The call in a record, open from now on; what cannot be served says so."""
        request, runs, refusal = TensorRequest(), [], ""
        priority = timeout_steps = 0
        try:
            fields = self._fields(record)
            priority = fields.integer("priority", 0, PRIORITY_MAX) or 0
            timeout_steps = fields.integer("timeout_steps", 0, TIMEOUT_STEPS_MAX) or 0
            request = parse_tensor_request(_object(record))
            runs = self._models[model].prepare(request)
        except RequestRejected as error:
            refusal = error.said(self._logic_flags)
        self._open[ticket] = _Open(record, model, request, runs)
        return Request(
            ticket=ticket,
            due=due,
            model=model,
            conversation=(agent, f"item {record.item}"),
            prompt=(),
            tokens_out_max=1,
            priority=priority,
            timeout_steps=timeout_steps,
            refusal=refusal,
        )

    def _fields(self, record: Record) -> Fields:
        if record.flags & FLAG_RAW:
            raise RequestRejected("request: the binary form is for decoders, expected JSON")
        fields = Fields(_object(record))
        name = fields.name("model", NAME_BYTES_MAX)
        if name is not None and name not in self._names:
            hint = nearest(name, self._names)
            raise wrong("model: ", name, f" is not in the fleet{hint}", None)
        return fields

    def run(self, ticket: int) -> Outcome:
        """Execute a call."""
        open_ = self._open[ticket]
        try:
            open_.answer = self._models[open_.model].answer(open_.request, open_.runs)
        except RequestRejected as error:
            open_.error = error.said(self._logic_flags)
            return Outcome(None)
        return DONE

    def answer(self, step: int, end: Ended) -> tuple[int, int, bytes]:
        """As `Desk.answer`: status, prompt tokens, the answer as the guest reads it."""
        open_ = self._open.pop(end.ticket)
        payload = b""
        if end.reason in GOOD_FINISHES:
            assert open_.answer is not None
            head = {"finish_reason": end.reason, "ticket": end.ticket, "step": step}
            payload = dumps(open_.answer | head)
        end = end._replace(text=open_.error or end.text)
        status, answer = encode_answer(
            open_.record, open_.model, step, end, payload, self._bytes_max
        )
        return status, _tokens(open_.answer), answer

    def go_on(self, tickets: Mapping[int, object]) -> None:
        """These are open, and no others."""
        self._open = {t: open_ for t, open_ in self._open.items() if t in tickets}


def _tokens(answer: dict[str, Any] | None) -> int:
    return int(answer["usage"]["prompt_tokens"]) if answer and "usage" in answer else 0


def _object(record: Record) -> dict[str, Any]:
    """The request. Raises `RequestRejected`."""
    return object_of(record.payload, REQUEST_BYTES_MAX, DEPTH_MAX)
