"""Device: one model on one provider, in a process of its own (docs/gpu.md).

``python -P -m lockstep.bench.device ASKED`` prints one line of JSON about what `Asked` asks.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lockstep.bench.bandwidth import BUFFER_BYTES, Probe
from lockstep.engine.errors import EXIT_OK, LockstepError
from lockstep.engine.plan import Chunk, Decode, ModelPlan
from lockstep.workers.inference import cudart
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.selftest import prompts_of, trial

LENGTHS = (1, 5, 17, 40)  # Of prompts whose logits are hashed.
TOKENS_NEW = 24
TRIAL_ROWS = 4
WARM = 10  # Steps of a batch that are not measured: captured, and warm.
READS = 5  # Of the memory; the quickest counts.
PIECES = 1024  # Of a copy, which has no room for more than 2 GiB in one.


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured.

    Attributes:
        model: Its folder.
        provider: Short name; it is required.
        graphs: Steps are captured.
        candidates: Cut by the graph; 0: none.
        trial: Whether two sessions are compared, a row alone with one among others, and the
            memory measured.
        batches: Rows of the steps that are timed.
        prompt: Tokens that are there before the first step.
        steps: Timed ones.
        threads: Of an operator.
    """

    model: str
    provider: str
    graphs: bool = False
    candidates: int = 0
    trial: bool = False
    batches: tuple[int, ...] = ()
    prompt: int = 128
    steps: int = 90
    threads: int = 1

    def to_json(self) -> str:
        """One argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Asked":
        """What `to_json` made."""
        values = json.loads(text)
        values["batches"] = tuple(values["batches"])
        return cls(**values)


def measure(asked: Asked) -> dict[str, Any]:
    """Everything that is asked; errors as `Decoder`."""
    folder = ModelFolder.open(Path(asked.model))
    providers = tuple(dict.fromkeys((asked.provider, "cpu")))

    def make(rows: int, tokens: int) -> Decoder:
        return Decoder(
            folder, rows, tokens, asked.threads, providers, asked.provider,
            graphs=asked.graphs, candidates=asked.candidates,
        )  # fmt: skip

    prompts = prompts_of(folder.facts.vocab, LENGTHS)
    size = min(folder.facts.context, max(LENGTHS) + TOKENS_NEW)
    made = make(TRIAL_ROWS, size)
    rows = generate(made, prompts, size - max(LENGTHS))
    found: dict[str, Any] = {
        "provider": made.report.to_json(),
        "device": made.slab.device,
        "logits": hashlib.sha256(b"".join(row.logits.tobytes() for row in rows)).hexdigest(),
        "short": _short(made, prompts[-1], rows[-1].tokens),
    }
    made.close()
    if asked.trial:
        found["limit"] = _bytes_per_s(found["device"], asked.threads)
        tried = trial(lambda: make(TRIAL_ROWS, size), prompts, TOKENS_NEW // 2, join_steps=1)
        found |= {"run": tried.run, "together": tried.together}
    if asked.batches:
        found |= _timed(asked, folder, make)
    folder.close()
    return found


def _short(made: Decoder, prompt: tuple[int, ...], tokens: Sequence[int]) -> bool | None:
    """Whether candidates alone lead to the same first token; None: there are none."""
    if not made.candidates:
        return None
    chunk = Chunk(0, 0, 0, prompt, True)
    ((_, row),) = made.rows(ModelPlan(0, chunks=(chunk,), lengths=()), short=(0,))
    return getattr(row, "likeliest", -1) == tokens[0]


def _timed(
    asked: Asked, folder: ModelFolder, make: Callable[[int, int], Decoder]
) -> dict[str, Any]:
    """Seconds of a step by batch, and the bytes that one has to read."""
    facts = folder.facts
    made = make(max(asked.batches), min(facts.context, asked.prompt + WARM + asked.steps))
    past = asked.prompt + WARM + asked.steps // 2
    weights = sum(len(data) for data in folder.weights()[2]) or folder.size_bytes()
    row = facts.layers * 2 * facts.kv_heads * facts.head_dim * made.slab.dtype.itemsize * past
    steps = {batch: _step_s(made, asked, batch) for batch in asked.batches}
    made.close()
    return {"steps_s": steps, "bytes": {batch: weights + batch * row for batch in asked.batches}}


def _step_s(made: Decoder, asked: Asked, batch: int) -> float:
    """The median step of ``batch`` rows, whose tokens the host waits for."""
    prompt = tuple(n % made.facts.vocab for n in range(3, 3 + asked.prompt))
    slots = range(batch)
    for slot in slots:
        made.run(ModelPlan(0, chunks=(Chunk(slot, slot, 0, prompt, True),), lengths=()))
    times = []
    for past in range(asked.prompt, min(asked.prompt + WARM + asked.steps, made.tokens_max)):
        lengths = (past,) * batch + (0,) * (made.rows_max - batch)
        decodes = tuple(Decode(slot, slot, past, 7) for slot in slots)
        begun = time.perf_counter()
        made.rows(
            ModelPlan(0, decodes=decodes, lengths=lengths), short=slots if made.candidates else ()
        )
        times.append(time.perf_counter() - begun)
    return median(times[min(WARM, len(times) // 2) :])


def _bytes_per_s(device: str, threads: int) -> float:
    """How fast the memory is read where keys and values lie."""
    if device == "cpu":
        with Probe(threads) as probe:
            return max(probe.bytes_per_s() for _ in range(READS))
    shape, kind = [BUFFER_BYTES], "uint8"
    one, other = (
        ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, device, 0) for _ in range(2)
    )
    width = BUFFER_BYTES // PIECES
    best = float("inf")
    for _ in range(READS):
        begun = time.perf_counter()
        cudart.copy(int(one.data_ptr()), int(other.data_ptr()), width, width, PIECES)
        cudart.wait()
        best = min(best, time.perf_counter() - begun)
    return 2 * BUFFER_BYTES / best  # Every byte is read and written.


def main() -> int:
    """Entry of the process."""
    try:
        print(json.dumps(measure(Asked.from_json(sys.argv[1]))))
    except LockstepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
