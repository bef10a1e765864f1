"""The inference process, profiled: its steps with what is in them, and what it waits for.

The parts of a step are methods of its decoders and its desk; each is put in the place of itself
with a look at the clock before and after. What a step was made of is read off its report.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lockstep.engine.plan import Chunk, ModelPlan, Outcome
from lockstep.engine.plan import Place as Row
from lockstep.engine.wire import FromEngine, Slots
from lockstep.shm import BoardSlot
from lockstep.workers.engine_links import EngineEnd
from lockstep.workers.inference.config import GROWING
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.loaded import AnyModel
from lockstep.workers.inference.process import Server
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.profile.nodes import Nodes
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import Kind, Spans, now

NS_MIN = 10_000  # Of a look that found something, or nothing, at once nothing is said.
GRAPHS = (".onnx", ".data", ".bin", ".onnx_data")
_STEP, _TOKEN, _ENDED = int(Kind.STEP), int(Kind.TOKEN), int(Kind.ENDED)

Numbers = Callable[..., tuple[int, int, int]]  # a, b, c of a record, from a method's arguments.


class TimedEnd:
    """The inference process's end of its rings; notes waits and steps.

    Args:
        inner: The end.
        spans: Of the process.
        load: Rows, tickets that wait, and whether there is work.
    """

    def __init__(
        self, inner: EngineEnd, spans: Spans, load: Callable[[], tuple[int, int, bool]]
    ) -> None:
        self._inner, self._spans, self._load = inner, spans, load
        self._drained = now()

    def drain(self) -> tuple[Slots, bytes]:
        """As `EngineEnd.drain`."""
        found = self._inner.drain()
        self._drained = now()
        return found

    def wait(self) -> None:
        """As `EngineEnd.wait`."""
        begun = now()
        if begun - self._drained >= NS_MIN:
            self._spans.add(Kind.TAKE, self._drained, begun)
        self._inner.wait()
        ended = now()
        if ended - begun >= NS_MIN:
            rows, waiting, work = self._load()  # As before: nothing was taken in meanwhile.
            self._spans.add(Kind.WAIT, begun, ended, rows, waiting, work)
        self._spans.open()  # There is a place at the latest when there is something to do.

    def report(self, slots: Slots, records: bytes) -> None:
        """As `EngineEnd.report`."""
        self._inner.report(slots, records)
        ended, add = now(), self._spans.add
        rows, waiting, _ = self._load()
        tokens = step = 0
        for op, _, _, ticket, a, b in slots.tolist():
            if op == FromEngine.TOKEN:
                tokens += 1
                add(_TOKEN, ended, ended, ticket)
            elif op == FromEngine.END:
                add(_ENDED, ended, ended, ticket, b, a)
            elif op == FromEngine.STEP:
                step = a
        add(_STEP, self._drained, ended, step, rows << 32 | waiting, tokens)


class ProfiledServer(Server):
    """A server with a track.

    Args:
        spans: Of the process.
        place: Of the tracks.
        nodes: Of its sessions; None: nobody asks for them.
        spec, models, end, board: As of `Server`.
    """

    def __init__(
        self,
        spans: Spans,
        place: Place,
        nodes: Nodes | None,
        spec: InferenceSpec,
        models: Sequence[AnyModel],
        end: EngineEnd,
        board: BoardSlot | None,
    ) -> None:
        timed: Any = TimedEnd(end, spans, self._state)
        super().__init__(spec, models, timed, board)
        self._spans, self._place, self._nodes = spans, place, nodes
        for number, decoder in self._decoders.items():
            _time_decoder(spans, number, decoder)
        time(spans, Kind.SAMPLE, self._desk, "draw", lambda rows: (0, 0, len(rows)))
        time(spans, Kind.CALL, self._calls, "run", lambda ticket: (ticket, 0, 0))
        for number, model in enumerate(spec.models):
            size = _weight_bytes(Path(model.path), Path(model.file).name)
            moment = now()
            spans.add(Kind.WEIGHTS, moment, moment, number, size, model.intra_op_threads)

    def serve(self) -> None:
        """As `Server.serve`."""
        self._spans.add(Kind.LOADING, self._spans.began_ns, now())
        if self._nodes is not None:
            self._nodes.loaded(self._decoders)
        super().serve()
        if self._nodes is not None:
            self._nodes.end(self._place)

    def _compute(self, step: int, part: ModelPlan) -> dict[Row, Outcome]:
        done = super()._compute(step, part)
        if self._nodes is not None:
            self._nodes.computed(self._place)
        return done

    def _state(self) -> tuple[int, int, bool]:
        rows, waiting = self._planner.load()
        return rows, waiting, self._planner.next_step() is not None


def time(spans: Spans, kind: Kind, owner: object, name: str, numbers: Numbers) -> None:
    """Let calls of a method be noted.

    Args:
        spans: Where.
        kind: As what.
        owner: Whose method.
        name: Of the method.
        numbers: Of the record, from the arguments.
    """
    inner, code = getattr(owner, name), int(kind)

    def timed(*arguments: Any) -> Any:
        begun = now()
        result = inner(*arguments)
        spans.add(code, begun, now(), *numbers(*arguments))
        return result

    setattr(owner, name, timed)


def _time_decoder(spans: Spans, number: int, decoder: Decoder) -> None:
    alone = decoder.facts.path == GROWING  # Then each row reads the weights anew.

    def chunk(chunk: Chunk, _short: bool) -> tuple[int, int, int]:
        return number, len(chunk.tokens), 0

    def decode(plan: ModelPlan, _short: Any) -> tuple[int, int, int]:
        rows = len(plan.decodes)
        return number, rows if alone else 1, rows

    time(spans, Kind.PREFILL, decoder, "_prefill", chunk)
    time(spans, Kind.DECODE, decoder, "_decode", decode)
    time(spans, Kind.COPY, decoder.copies, "run", lambda _, copies: (number, 0, len(copies)))


def _weight_bytes(folder: Path, file: str) -> int:
    """Of the files of a graph, nearly all of which is weights.

    Args:
        folder: Of the model.
        file: The graph's, where there are several; empty: there is one.
    """
    try:
        files = [each for each in folder.rglob(f"{file}*") if each.suffix in GRAPHS]
        return sum(each.stat().st_size for each in files)
    except OSError:
        return 0
