"""Body of the inference process: drain tickets, run the step that may run, report it.

It decides nothing: the stepper and planner of engine/ say which step runs and what is in it, the
decoder executes, the sampler draws by name. Sessions are created here, after the fork.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from typing import Any

import numpy as np

from lockstep.engine import keyed
from lockstep.engine.errors import EXIT_OK, LockstepError, RequestRejected
from lockstep.engine.plan import FINISH_STATUS, GOOD_FINISHES, Ended, Request, StepPlan
from lockstep.engine.planner import ModelLimits, Planner
from lockstep.engine.record import (
    FLAG_ERROR,
    FLAG_RAW,
    HEADER_BYTES,
    Kind,
    Record,
    aligned,
    decode,
    decode_at,
    encode,
)
from lockstep.engine.restored import ACTIVE, Asked, Restored
from lockstep.engine.settings import nearest
from lockstep.engine.stepper import Stepper
from lockstep.engine.wire import RESULT_SLOT, FromEngine, ToEngine
from lockstep.shm import BoardSlot
from lockstep.workers.inference.loaded import LoadedModel, load_all
from lockstep.workers.inference.relive import relive
from lockstep.workers.inference.request import InferRequest, parse_infer, tokens_out
from lockstep.workers.inference.result import encode_failure, encode_result
from lockstep.workers.inference.sampler import choose, finite
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.links import EngineEnd

_Row = tuple[int, int, int, int, int, int]  # Fields of RESULT_SLOT.


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


def inference_main(
    spec: InferenceSpec,
    end: EngineEnd,
    ready: int,
    board: BoardSlot | None = None,
    kv_files: Sequence[int] = (),
) -> int:
    """Load the models, become what an earlier process was, say so on ``ready``, and serve.

    What is said are JSON objects, one a line: ``{"note": text}``, as often as there is something
    for people to know, then ``{"models", "notes"}`` or ``{"error", "exit_code"}``. Then the
    descriptor is closed.

    Returns:
        Exit status: 0 after STOP, or when it was said why it cannot serve.
    """
    if board is not None:
        board.update(pid=os.getpid(), state=1)
    pipe = os.fdopen(ready, "wb", buffering=0)
    try:
        models = load_all(spec, kv_files)
        server = Server(spec, models, end, board)
        if spec.restored is not None:
            server.restore(spec.restored, lambda text: _say(pipe, {"note": text}))
    except LockstepError as error:
        _say(pipe, {"error": str(error), "exit_code": error.exit_code})
        return EXIT_OK
    said = [
        {
            "files": m.identity,
            "provider": m.decoder.report.to_json(),
            "outlives": m.decoder.outlives,
        }
        for m in models
    ]
    notes = [line for m in models for line in m.decoder.report.lines()]
    _say(pipe, {"models": said, "notes": notes})
    pipe.close()
    server.serve()
    return EXIT_OK


def _say(pipe: FileIO, value: dict[str, Any]) -> None:
    pipe.write(json.dumps(value).encode() + b"\n")


def sampling_key(seed: int, agent: str) -> bytes:
    """Key of an agent's draws: its name, never a ticket or a row (rule 14)."""
    return keyed.key(seed, "sampling", agent)


class Server:
    """Tickets in, step reports out."""

    def __init__(
        self,
        spec: InferenceSpec,
        models: Sequence[LoadedModel],
        end: EngineEnd,
        board: BoardSlot | None,
    ) -> None:
        limits = [ModelLimits(m.rows_max, m.prefill_tokens_per_step, m.period) for m in spec.models]
        self._spec = spec
        self._models = models
        self._end = end
        self._board = board
        self._planner = Planner(limits, spec.priority_steps)
        self._arrival = spec.order == "arrival"
        lookahead = 0 if self._arrival else spec.lookahead
        self._stepper = Stepper(self._planner, lookahead, self._arrival and not spec.repeats)
        self._names = [model.name for model in spec.models]
        self._keys: dict[tuple[int, int], bytes] = {}  # By seed and agent.
        self._open: dict[int, _Open] = {}
        self._records: deque[Record] = deque()  # INFERs whose slots have not been read yet.
        self._tokens = spec.tokens
        self._stopped = False

    def serve(self) -> None:
        """Until STOP."""
        while True:
            self._drain()
            if self._stopped:
                return
            step = self._stepper.runnable()
            if step is None:
                self._end.wait()
                continue
            plan = self._stepper.plan(step)
            rows, sampled = self._execute(plan)
            answers = self._finish(plan.step, self._stepper.commit(sampled), rows)
            rows.append((FromEngine.STEP, 0, 0, 0, plan.step, 0))
            self._end.report(np.array(rows, dtype=RESULT_SLOT), answers)
            self._show(step)

    def _drain(self) -> None:
        slots, records = self._end.drain()
        self._records.extend(decode(records))
        for op, agent, ticket, a, b in slots.tolist():
            if op == ToEngine.TICKET:
                self._offer(ticket, agent, a, b)
            elif op == ToEngine.CANCEL:
                self._stepper.cancel(ticket, a)
            elif op == ToEngine.GRANT:
                self._stepper.grant(a, b)
            else:
                self._stopped = True

    def restore(self, past: Restored, note: Callable[[str], None]) -> None:
        """Become what an earlier process of the run was, behind its last recorded step.

        If the slab was not lost it is taken as it is. The step that the earlier process was in is
        not recorded, so it is planned and run again, and nothing that it had written of it
        matters. It is the same plan, from the same tickets. Its chunks and rows write the same
        positions from the same inputs, every one of them at or behind the length that the slot
        has in the record, and a run reads no position that it or the record did not write. A slot
        that it had taken over from another conversation is taken over again.

        Raises:
            Diverged: what is computed again is not what was recorded.
        """
        requests = {asked.ticket: self._again(asked) for asked in past.asked}
        relive(past.again, requests, [m.decoder for m in self._models], self._choose_past, note)
        self._stepper.restore(past, requests)
        served = dict.fromkeys([*past.queued, *past.offered])
        for kept in past.kept:
            if kept.ended == ACTIVE:
                served[kept.ticket] = None
                open_ = self._open[kept.ticket]
                open_.tokens, open_.cached = list(kept.tokens), kept.hit
        self._open = {ticket: self._open[ticket] for ticket in served}

    def _again(self, asked: Asked) -> Request:
        record, _ = decode_at(asked.record, 0)
        return self._request(record, asked.ticket, asked.agent, asked.due, asked.ordinal)

    def _offer(self, ticket: int, agent: int, due: int, ordinal: int) -> None:
        record = self._records.popleft()
        self._stepper.offer(self._request(record, ticket, agent, due, ordinal))

    def _request(
        self, record: Record, ticket: int, agent: int, due: int, ordinal: int
    ) -> Request:  # fmt: skip
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

    def _execute(self, plan: StepPlan) -> tuple[list[_Row], dict[int, int | None]]:
        """Run a plan: the step's slots, and ticket -> token (None: not finite)."""
        rows: list[_Row] = []
        sampled: dict[int, int | None] = {}
        if self._arrival:
            rows += [(FromEngine.TAKEN, what, 0, t, due, 0) for what, t, due in plan.taken]
        for part in plan.models:
            m = part.model
            rows += [(FromEngine.EVICT, m, slot, 0, 0, 0) for slot in part.evicted]
            for admission in part.admitted:
                self._open[admission.ticket].cached = admission.hit
                rows.append((FromEngine.ADMIT, m, admission.slot, admission.ticket,
                             admission.hit, 0))  # fmt: skip
            where: dict[int, tuple[int, int]] = {}
            for chunk in part.chunks:
                size = len(chunk.tokens)
                rows.append((FromEngine.CHUNK, m, chunk.slot, chunk.ticket, chunk.start, size))
                where[chunk.ticket] = (chunk.slot, chunk.start + size)
            for row in part.decodes:
                where[row.ticket] = (row.slot, row.past + 1)
            if not part.chunks and not part.decodes:
                continue
            for ticket, logits in self._models[m].decoder.run(part):
                token = self._sample(ticket, logits)
                sampled[ticket] = token
                slot, position = where[ticket]
                if token is not None:
                    rows.append((FromEngine.TOKEN, m, slot, ticket, token, position))
        return rows, sampled

    def _sample(self, ticket: int, logits: Any) -> int | None:
        tokens = self._open[ticket].tokens
        token = self._choose(self._spec.seed, ticket, logits, len(tokens))
        if token is not None:
            tokens.append(token)
            self._tokens += 1
        return token

    def _choose_past(self, step: int, ticket: int, logits: Any, place: int) -> int | None:
        """As `_choose`, with the seed that the step had."""
        seeds = [seed for before, seed in self._spec.past_seeds if step < before]
        return self._choose((*seeds, self._spec.seed)[0], ticket, logits, place)

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

    def _finish(self, step: int, ended: Sequence[Ended], rows: list[_Row]) -> bytes:
        """END slots and the records of the answers."""
        records = []
        for end in ended:
            open_ = self._open.pop(end.ticket)
            reason, record = self._answer(step, end, open_)
            status = FINISH_STATUS[reason]
            rows.append((FromEngine.END, 0, 0, end.ticket, status, open_.prompt_tokens))
            records.append(record)
        return b"".join(records)

    def _answer(self, step: int, end: Ended, open_: _Open) -> tuple[str, bytes]:
        """How the request ended, and its answer as the guest reads it."""
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
        return end.reason, answer

    def _show(self, step: int) -> None:
        if self._board is not None:
            rows, waiting = self._planner.load()
            self._board.update(step=step, rows=rows, tickets_waiting=waiting, tokens=self._tokens)
