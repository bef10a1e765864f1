"""The desk: requests that are not answered yet, from the asking record to the answering one.

It decides nothing: the planner says which row runs, the decoder gives its logits; here the row
gets its token, drawn by name (rule 14), and in the end its answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lockstep.engine import keyed
from lockstep.engine.errors import RequestRejected
from lockstep.engine.plan import FINISH_STATUS, GOOD_FINISHES, Ended, Outcome, Request
from lockstep.engine.record import (
    FLAG_ERROR,
    FLAG_RAW,
    HEADER_BYTES,
    Kind,
    Record,
    aligned,
    encode,
)
from lockstep.engine.restored import Kept
from lockstep.engine.settings import nearest
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.request import InferRequest, parse_infer, tokens_out
from lockstep.workers.inference.result import encode_failure, encode_result
from lockstep.workers.inference.sampler import choose, finite
from lockstep.workers.inference.spec import InferenceSpec


@dataclass(slots=True)
class _Open:
    """A ticket that is not answered yet."""

    agent: int
    ordinal: int
    record: Record
    request: InferRequest
    model: int
    prompt_tokens: int
    cached: int = 0
    tokens: list[int] = field(default_factory=list)


def sampling_key(seed: int, agent: str) -> bytes:
    """Key of an agent's draws: its name, never a ticket or a row (rule 14)."""
    return keyed.key(seed, "sampling", agent)


class Desk:
    """Open tickets, by number.

    Attributes:
        tokens: That were made so far, for display.
    """

    def __init__(self, spec: InferenceSpec, models: Sequence[LoadedModel]) -> None:
        self._spec = spec
        self._models = models
        self._names = [model.name for model in spec.models]
        self._keys: dict[tuple[int, int], bytes] = {}  # By seed and agent.
        self._open: dict[int, _Open] = {}
        self.tokens = spec.tokens

    def take(self, record: Record, ticket: int, agent: int, due: int, ordinal: int) -> Request:
        """The request in a record, open from now on; what cannot be served says so."""
        refusal, prompt, model = "", [], record.peer
        request = InferRequest(raw=bool(record.flags & FLAG_RAW))
        wanted = 1
        try:
            request = parse_infer(record.payload, request.raw)
            model = self._model(request, record)
            loaded = self._models[model]
            prompt = loaded.text.prompt_ids(request)
            wanted = tokens_out(request, len(prompt), loaded.tokens_max)
        except RequestRejected as error:
            refusal = str(error)
        self._open[ticket] = _Open(agent, ordinal, record, request, model, len(prompt))
        conversation = request.conversation
        named = f"item {record.item}" if conversation is None else f"named {conversation}"
        return Request(
            ticket=ticket,
            due=due,
            model=model,
            conversation=(agent, named),
            prompt=tuple(prompt),
            tokens_out_max=wanted,
            stop=self._models[model].stop,
            priority=request.priority,
            timeout_steps=request.timeout_steps,
            refusal=refusal,
        )

    def _model(self, request: InferRequest, record: Record) -> int:
        if request.model is None:
            return record.peer
        if request.model not in self._names:
            hint = nearest(request.model, self._names)
            raise RequestRejected(f"model: {request.model!r} is not in the fleet{hint}")
        return self._names.index(request.model)

    def admitted(self, ticket: int, sample: int, hit: int) -> None:
        """A row of a ticket got its slot, with so many tokens of its prompt in it."""
        self._open[ticket].cached = hit

    def computed(self, ticket: int, tokens: int) -> None:
        """So many prompt tokens of a ticket were prefilled in this step."""

    def draw(self, rows: Sequence[tuple[int, int, Any]]) -> list[Outcome]:
        """The next token of each row (ticket, sample, logits), booked."""
        return [Outcome(self._draw(ticket, logits)) for ticket, _, logits in rows]

    def _draw(self, ticket: int, logits: Any) -> int | None:
        tokens = self._open[ticket].tokens
        token = self._choose(self._spec.seed, ticket, logits, len(tokens))
        if token is not None:
            tokens.append(token)
            self.tokens += 1
        return token

    def draw_again(
        self, step: int, ticket: int, sample: int, logits: Any, place: int
    ) -> int | None:
        """The ``place``-th token of a row, with the step's own seed; nothing is booked."""
        seeds = [seed for before, seed in self._spec.past_seeds if step < before]
        return self._choose((*seeds, self._spec.seed)[0], ticket, logits, place)

    def go_on(self, waiting: Iterable[int], active: Iterable[Kept]) -> None:
        """These tickets are open, and no others; the active ones have been answered in part."""
        served = dict.fromkeys(waiting)
        for kept in active:
            served[kept.ticket] = None
            open_ = self._open[kept.ticket]
            open_.tokens, open_.cached = list(kept.tokens), kept.hit
        self._open = {ticket: self._open[ticket] for ticket in served}

    def _choose(self, seed: int, ticket: int, logits: Any, place: int) -> int | None:
        """The ``place``-th token of a request; None: the logits are not finite."""
        if not finite(logits):
            return None
        open_ = self._open[ticket]
        request = open_.request
        uniform = 0.0
        if request.temperature > 0:
            key = self._key(seed if request.seed is None else request.seed, open_.agent)
            # Attempt and sample are 0 until retries and n > 1 exist (rule 14).
            uniform = keyed.uniform(key, open_.ordinal, 0, 0, place)
        return choose(logits, request.temperature, uniform)

    def _key(self, seed: int, agent: int) -> bytes:
        key = self._keys.get((seed, agent))
        if key is None:
            key = sampling_key(seed, self._spec.agent_names[agent])
            if seed == self._spec.seed:  # Others come from requests: there may be any number.
                self._keys[seed, agent] = key
        return key

    def answer(self, step: int, end: Ended) -> tuple[int, int, bytes]:
        """Close a ticket: its status, its prompt tokens, its answer as the guest reads it."""
        open_ = self._open.pop(end.ticket)
        raw = open_.request.raw
        kind = Kind.CANCELLED if end.reason == "cancelled" else Kind.RESULT
        good = end.reason in GOOD_FINISHES
        if good:
            spoken = open_.tokens[:-1] if end.reason == "stop" else open_.tokens
            payload = encode_result(
                raw,
                text=self._models[open_.model].text.decode(spoken),
                token_ids=open_.tokens,
                finish_reason=end.reason,
                tokens_in=open_.prompt_tokens,
                tokens_cached=open_.cached,
                ticket=end.ticket,
                step=step,
            )
            if aligned(HEADER_BYTES + len(payload)) > self._spec.record_bytes_max:
                good = False
                end = Ended(
                    end.ticket,
                    "refused",
                    f"the answer has {len(payload)} bytes, [fleet] record_bytes_max allows "
                    f"{self._spec.record_bytes_max - HEADER_BYTES}",
                )
        if not good:
            payload = encode_failure(
                raw, finish_reason=end.reason, error=end.text, ticket=end.ticket, step=step
            )
        flags = (FLAG_RAW if raw else 0) | (0 if good else FLAG_ERROR)
        record = open_.record
        answer = encode(
            kind, payload, flags=flags, id=record.id, item=record.item, peer=open_.model
        )
        return FINISH_STATUS[end.reason], open_.prompt_tokens, answer
