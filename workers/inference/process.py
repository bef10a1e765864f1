"""Body of the inference process: drain tickets, run the step that may run, report it.

It decides nothing: the stepper and planner of engine/ say which step runs and what is in it, the
decoder executes, the desk draws tokens by name. Sessions are created here, after the fork.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from typing import Any

import numpy as np

from lockstep.engine import step_rows
from lockstep.engine.errors import EXIT_OK, LockstepError, ProviderFailed, ProviderMissing
from lockstep.engine.plan import Booked, ModelPlan, Outcome, Place, Request, StepPlan
from lockstep.engine.planner import Planner, limits_of
from lockstep.engine.record import Kind, Record, decode, decode_at, encode
from lockstep.engine.restored import Asked, Restored
from lockstep.engine.stepper import Stepper
from lockstep.engine.wire import RESULT_SLOT, FromEngine, ToEngine
from lockstep.shm import BoardSlot
from lockstep.workers.engine_links import EngineEnd
from lockstep.workers.inference import step_limit
from lockstep.workers.inference.calls import Calls
from lockstep.workers.inference.desk import Desk
from lockstep.workers.inference.loaded import AnyModel, LoadedModel, load_all
from lockstep.workers.inference.pace import Pace
from lockstep.workers.inference.relive import relive
from lockstep.workers.inference.shortlist import Row
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.inference.tensor_model import TensorModel

ERROR_CHARS_MAX = 1000  # Of what a provider says when it fails.
_Row = tuple[int, int, int, int, int, int]  # Fields of RESULT_SLOT.


def inference_main(
    spec: InferenceSpec,
    end: EngineEnd,
    ready: int,
    board: BoardSlot | None = None,
    kv_files: Sequence[int] = (),
    make: "Callable[..., Server] | None" = None,
) -> int:
    """Load the models, become what an earlier process was, say so on ``ready``, and serve.

    What is said are JSON objects, one a line: ``{"note": text}``, as often as there is something
    for people to know, then ``{"models", "notes"}`` or ``{"error", "exit_code", "provider"}`` (is
    it that one is missing). Then the descriptor is closed.

    Args:
        spec, end, board: As of `Server`.
        ready: The descriptor.
        kv_files: As of `load_all`.
        make: Makes the server; None: `Server`.

    Returns:
        Exit status: 0 after STOP, or when it was said why it cannot serve or go on.
    """
    if board is not None:
        board.update(pid=os.getpid(), state=1)
    pipe = os.fdopen(ready, "wb", buffering=0)
    try:
        models = load_all(spec, kv_files)
        server = (make or Server)(spec, models, end, board)
        if spec.restored is not None:
            server.restore(spec.restored, lambda text: _say(pipe, {"note": text}))
    except LockstepError as error:
        missing = isinstance(error, ProviderMissing)
        _say(pipe, {"error": str(error), "exit_code": error.exit_code, "provider": missing})
        return EXIT_OK
    said = [
        {
            "files": m.identity,
            "provider": m.report.to_json(),
            "outlives": m.outlives,
            "class": m.proven,
        }
        for m in models
    ]
    notes = [line for m in models for line in m.notes()]
    _say(pipe, {"models": said, "notes": notes})
    pipe.close()
    try:
        server.serve()
    except ProviderFailed as failure:
        row = (FromEngine.FAILED, failure.model, 0, 0, 0, 0)
        end.report(np.array([row], dtype=RESULT_SLOT), encode(Kind.FAILED, str(failure).encode()))
    return EXIT_OK


def _say(pipe: FileIO, value: dict[str, Any]) -> None:
    pipe.write(json.dumps(value).encode() + b"\n")


class Server:
    """Tickets in, step reports out."""

    def __init__(
        self,
        spec: InferenceSpec,
        models: Sequence[AnyModel],
        end: EngineEnd,
        board: BoardSlot | None,
    ) -> None:
        limits = [limits_of(model) for model in spec.models]
        self._end = end
        self._board = board
        self._planner = Planner(limits, spec.priority_steps)
        self._arrival = spec.order == "arrival"
        lookahead = 0 if self._arrival else spec.lookahead
        self._stepper = Stepper(self._planner, lookahead, self._arrival and not spec.repeats)
        decoders = {n: m for n, m in enumerate(models) if isinstance(m, LoadedModel)}
        others = {n: m for n, m in enumerate(models) if isinstance(m, TensorModel)}
        self._desk = Desk(spec, decoders)
        self._decoders = {number: model.decoder for number, model in decoders.items()}
        names = [model.name for model in spec.models]
        self._calls = Calls(names, others, spec.record_bytes_max, spec.logic_flags)
        self._records: deque[Record] = deque()  # INFERs whose slots have not been read yet.
        self._stopped = False
        self._since = spec.since
        threads = max((model.intra_op_threads for model in spec.models), default=1)
        self._step_s = spec.step_s * threads
        self._pace = Pace(spec.tokens, time.monotonic())

    def serve(self) -> None:
        """Until STOP.

        Raises:
            ProviderFailed: nothing of the step that it failed in was reported.
        """
        while True:
            self._drain()
            if self._stopped:
                return
            step = self._stepper.runnable()
            if step is None:
                self._end.wait()
                continue
            plan = self._stepper.plan(step)
            step_limit.begin(self._step_s)
            rows, outcomes = self._execute(plan)
            step_limit.end()
            answers = self._finish(plan.step, self._stepper.commit(outcomes), rows)
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
        that it had taken over from another conversation is taken over again. Copies, which write
        below such a length, are not done twice (workers/inference/copies.py).

        Raises:
            Diverged: what is computed again is not what was recorded.
        """
        requests = {asked.ticket: self._again(asked) for asked in past.asked}
        relive(past.again, requests, self._decoders, self._desk, note, self._since)
        self._stepper.restore(past, requests)
        queued = dict.fromkeys(each.ticket for each in past.queued)
        # Rows of theirs that have ended count, too: their answers are not given yet.
        rows = [kept for kept in (*past.kept, *past.left) if kept.ticket in queued]
        open_ = dict.fromkeys([*queued, *past.offered])
        self._calls.go_on(open_)
        waiting = [ticket for ticket in open_ if ticket not in self._calls]
        self._desk.go_on(waiting, rows, past.scores)

    def _again(self, asked: Asked) -> Request:
        record, _ = decode_at(asked.record, 0)
        return self._take(record, asked.ticket, asked.agent, asked.due, asked.ordinal)

    def _offer(self, ticket: int, agent: int, due: int, ordinal: int) -> None:
        record = self._records.popleft()
        self._stepper.offer(self._take(record, ticket, agent, due, ordinal))

    def _take(self, record: Record, ticket: int, agent: int, due: int, ordinal: int) -> Request:
        model, here = self._calls.asked(record)
        if here:
            return self._calls.take(record, ticket, agent, due, model)
        return self._desk.take(record._replace(peer=model), ticket, agent, due, ordinal)

    def _execute(self, plan: StepPlan) -> tuple[list[_Row], dict[Place, Outcome]]:
        """Run a plan: the step's slots, and what each row got."""
        rows: list[_Row] = []
        outcomes: dict[Place, Outcome] = {}
        if self._arrival:
            rows += [(FromEngine.TAKEN, what, 0, t, due, 0) for what, t, due in plan.taken]
        for part in plan.models:
            rows += step_rows.planned(part)
            if self._calls.takes(part.model):
                for chunk in part.chunks:
                    outcomes[part.model, chunk.slot] = self._calls.run(chunk.ticket)
                continue
            for admission in part.admitted:
                self._desk.admitted(admission.ticket, admission.sample, admission.hit)
            if part.copies or part.chunks or part.decodes:
                outcomes |= self._compute(plan.step, part)
                rows += step_rows.drawn(part, outcomes)
                rows += self._desk.scores()
        return rows, outcomes

    def _compute(self, step: int, part: ModelPlan) -> dict[Place, Outcome]:
        """Run a model and draw its tokens."""
        whose = {chunk.slot: (chunk.ticket, chunk.sample) for chunk in part.chunks}
        whose |= {row.slot: (row.ticket, row.sample) for row in part.decodes}
        results = self._run(step, part, whose)
        for chunk in part.chunks:
            self._desk.computed(chunk.ticket, len(chunk.tokens))
        drawn = self._desk.draw([(*whose[slot], logits) for slot, logits in results])
        places = ((part.model, slot) for slot, _ in results)
        return dict(zip(places, drawn, strict=True))

    def _run(
        self, step: int, part: ModelPlan, whose: Mapping[int, tuple[int, int]]
    ) -> list[tuple[int, Row]]:
        """The decoder's run, with short rows where they are enough. ``whose``: by slot.

        Raises:
            ProviderFailed: a provider that is not the CPU did, or copies on its device.
        """
        decoder = self._decoders[part.model]
        most = decoder.candidates
        short = [s for s in whose if 0 < self._desk.enough(*whose[s]) <= most] if most else ()
        try:
            return decoder.rows(part, step, short)
        except ProviderMissing as error:
            raise ProviderFailed(str(error), part.model) from None
        except LockstepError:
            raise
        except Exception as error:  # ONNX Runtime's have no common base below Exception.
            if decoder.report.running == "cpu":
                raise
            said = " ".join(str(error).split())[:ERROR_CHARS_MAX]
            raise ProviderFailed(said, part.model) from None

    def _finish(self, step: int, booked: Booked, rows: list[_Row]) -> bytes:
        """LEAVE and END slots and the records of the answers."""
        rows += step_rows.left(booked)
        records = []
        for end in booked.ended:
            desk = self._calls if end.ticket in self._calls else self._desk
            status, prompt_tokens, record = desk.answer(step, end)
            rows.append((FromEngine.END, 0, 0, end.ticket, status, prompt_tokens))
            records.append(record)
        return b"".join(records)

    def _show(self, step: int) -> None:
        if self._board is not None:
            rows, waiting = self._planner.load()
            tokens, now_s = self._desk.tokens, time.monotonic()
            self._board.update(
                step=step,
                rows=rows,
                tickets_waiting=waiting,
                tokens=tokens,
                tokens_per_s=self._pace.after(tokens, now_s),
                at_us=int(now_s * 1e6),
            )
