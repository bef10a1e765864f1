"""Decoding: the inference process of Lockstep, measured step by step without a supervisor.

``python -m lockstep.bench.decoding READ WRITE``: the server of workers/inference/process.py with
its planner, decoder, sampler and answers; only the rings are played by lists, so that a step is
measured as what it is for the model and nothing else. Requests, a line of JSON each:

``{"do": "open", "model", "threads", "rows_max", "tokens_max"}``   before all others
``{"do": "begin", "rows", "prompt", "tokens"}``   so many requests with prompts of ``prompt``
    tokens, all prefilled in one step, whose answers have ``tokens`` more tokens
``{"do": "steps", "steps"}``   so many decode steps: ``times_ns`` of each, and ``engine_ns``, how
    much of that was inside ONNX Runtime
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from lockstep.bench.models import SPOKEN
from lockstep.engine import keyed
from lockstep.engine.fleet import Model
from lockstep.engine.fleet_file import parse
from lockstep.engine.record import Kind, encode
from lockstep.engine.strict_json import dumps
from lockstep.engine.wire import TICKET_SLOT, FromEngine, Slots, ToEngine
from lockstep.workers.inference.loaded import LoadedModel, load_all
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.process import Server
from lockstep.workers.inference.spec import InferenceSpec

PREFILL_TOKENS = 1 << 16  # Of one step: a whole batch, so that all of its rows begin together.
FAR = 1 << 40  # A grant that knows everything: this is the only sequencer.

FLEET = """
[fleet]
name = "decoding"
[models.default]
path = "{model}"
providers = ["cpu"]
intra_op_threads = {threads}
spin = "on"
rows_max = {rows_max}
tokens_max = {tokens_max}
prefill_tokens_per_step = {prefill}
[agents.none]
module = "none.wasm"
"""


def prompt(row: int, tokens: int) -> str:
    """A text of so many tokens, by the row alone."""
    stream = keyed.key(0, "decoding", "prompt")
    return "".join(SPOKEN[keyed.draw(stream, row, place) % len(SPOKEN)] for place in range(tokens))


def spec(model: str, threads: int, rows_max: int, tokens_max: int) -> InferenceSpec:
    """What the inference process is given for one model."""
    text = FLEET.format(
        model=model,
        threads=threads,
        rows_max=rows_max,
        tokens_max=tokens_max,
        prefill=PREFILL_TOKENS,
    )
    fleet = parse(text.encode(), "decoding")
    models: tuple[Model, ...] = fleet.models
    schedule = fleet.schedule
    return InferenceSpec(
        models=models,
        agent_names=("none",),
        seed=0,
        frozen_date=fleet.frozen_date,
        lookahead=schedule.lookahead,
        priority_steps=schedule.priority_steps,
        record_bytes_max=fleet.record_bytes_max,
    )


class TimedSession:
    """An ONNX Runtime session that counts how long its runs take.

    Attributes:
        ns: Of all runs so far.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.ns = 0

    def run_with_iobinding(self, *arguments: Any) -> None:
        """As the session's."""
        begun = time.perf_counter_ns()
        self._inner.run_with_iobinding(*arguments)
        self.ns += time.perf_counter_ns() - begun

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Conductor:
    """Plays the inference process's end of the rings; asks for rounds on a line of its own."""

    def __init__(self, reading: int, writing: int) -> None:
        self._requests = os.fdopen(reading, "rb", buffering=0)
        self._answers = os.fdopen(writing, "wb", buffering=0)
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._records = b""
        self._tickets = 0
        self._step = -1  # The last one reported.
        self._said = 0  # Tokens of the last step.
        self._times_ns: list[int] = []
        self._engine_ns: list[int] = []
        self._since_ns = self._engine_since_ns = 0
        self._conversation = self._converse()
        self.session: TimedSession | None = None

    def ask(self) -> dict[str, Any] | None:
        """The next request; None: nobody asks any more."""
        line = self._requests.readline()
        return json.loads(line) if line else None

    def say(self, answer: dict[str, Any]) -> None:
        """Answer it."""
        self._answers.write(json.dumps(answer).encode() + b"\n")

    # -- the end of the rings, as the server sees it ------------------------------------------

    def drain(self) -> tuple[Slots, bytes]:
        """What there is to do."""
        rows, records = self._rows, self._records
        self._rows, self._records = [], b""
        return np.array(rows, dtype=TICKET_SLOT), records

    def wait(self) -> None:
        """Everything was done: on to the next request."""
        next(self._conversation)

    def report(self, slots: Slots, _records: bytes) -> None:
        """A step is over."""
        assert self.session is not None
        now = time.perf_counter_ns()
        self._times_ns.append(now - self._since_ns)
        self._engine_ns.append(self.session.ns - self._engine_since_ns)
        self._since_ns, self._engine_since_ns = now, self.session.ns
        self._step = int(slots["a"][-1])
        self._said = int(np.count_nonzero(slots["op"] == FromEngine.TOKEN))

    # -- rounds -------------------------------------------------------------------------------

    def _converse(self) -> Iterator[None]:
        """Each ``yield`` is a wait that ends because there is something to do."""
        while (request := self.ask()) is not None:
            if request["do"] == "begin":
                self._begin(request["rows"], request["prompt"], request["tokens"])
                yield
                self._expect(request["rows"])
                self.say({})
            else:
                self._grant(request["steps"])
                yield
                self.say({"times_ns": self._times_ns, "engine_ns": self._engine_ns})
        self._rows.append((ToEngine.STOP, 0, 0, 0, 0))
        yield

    def _begin(self, rows: int, prompt_tokens: int, tokens: int) -> None:
        for row in range(rows):
            self._tickets += 1
            # The prompt's own step says the first token. A row keeps its item, so its slot.
            asked = {"prompt": prompt(row, prompt_tokens), "max_tokens": tokens + 1}
            record = encode(Kind.INFER, dumps(asked), id=self._tickets, item=row + 1, peer=0)
            due = self._step + 1
            self._rows.append((ToEngine.TICKET, 0, self._tickets, due, self._tickets))
            self._records += record
        self._grant(1)

    def _grant(self, steps: int) -> None:
        self._rows.append((ToEngine.GRANT, 0, 0, self._step + 1 + steps, FAR))
        self._times_ns, self._engine_ns = [], []
        assert self.session is not None
        self._since_ns, self._engine_since_ns = time.perf_counter_ns(), self.session.ns

    def _expect(self, rows: int) -> None:
        if self._said != rows:
            raise SystemExit(f"{self._said} of {rows} rows were prefilled in one step")


def _use(address: int, size_bytes: int) -> None:
    """Memory that was used before, as that of a server is, and as peers' is by their first step."""
    ctypes.memset(address, 0, size_bytes)


def main() -> int:
    """Entry of the process."""
    conductor = Conductor(int(sys.argv[-2]), int(sys.argv[-1]))
    conductor.say({"versions": {"onnxruntime": ort.__version__}})
    request = conductor.ask()
    if request is None:
        return 0
    given = spec(request["model"], request["threads"], request["rows_max"], request["tokens_max"])
    models = load_all(given)
    assert isinstance(models[0], LoadedModel)
    decoder: Any = models[0].decoder
    _use(*decoder.slab.memory())
    conductor.session = decoder.session = TimedSession(decoder.session)
    end: Any = conductor
    server = Server(given, models, end, None)
    conductor.say({})
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
