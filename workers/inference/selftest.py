"""The self-test of a model: how far its bits can be relied upon here, shown by doing it.

Two classes are proven, never assumed: "run" means that two sessions give the same bits for the same
plans; "batch-invariant" that, besides, a row's bits are the same alone and in a batch that others
join and leave. A run needs the first alone: what is in a batch is a function of the run.

`lockstep model check` tries the prompts of a folder at length. Before a run a few tokens are tried,
in the run's own sizes; what came of it is kept (proofs.py), so that it is paid once for a model on
a machine. What it costs then: two sessions more than the one that is needed, one after the other,
and in them three times as many short answers as there are rows (8 at most). Of a model of
`LARGE_BYTES` or more, whose every token takes long, two rows of three tokens are tried: 30 tokens
are computed. CPU time on two cores: 0.07 s for a model of a megabyte, 3 s for 190 MB of four-bit
weights, 2.4 s for 514 MB of float32, most of it loading.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lockstep.engine import keyed
from lockstep.engine.errors import LockstepError, ModelRejected
from lockstep.engine.fleet import Model
from lockstep.workers.inference.capturing import decoder_for
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.greedy import Row, generate
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.ort import ort
from lockstep.workers.inference.proofs import Proof, Proofs, subject
from lockstep.workers.inference.provider import ProviderReport
from lockstep.workers.inference.tensor_folder import TensorFolder

NONE, RUN, INVARIANT = CLASSES = ("none", "run", "batch-invariant")  # From weak to strong.
PROMPT_LENGTHS = (1, 5, 17, 40)
LENGTHS = (1, 5, 17, 40, 2, 9, 3, 4)  # As many rows at most.
TOKENS_NEW = 10  # So that all those rows decode together for a while.
LARGE_BYTES = 1 << 28
LARGE_LENGTHS, LARGE_TOKENS_NEW = (1, 5), 3

Prompt = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """What was generated.

    Attributes:
        alone: Each prompt by itself, in one slot.
        batch: All of them, joining and leaving, in the same session.
        again: Likewise, in another session.
        report: Which providers it ran on.
    """

    alone: list[Row]
    batch: list[Row]
    again: list[Row]
    report: ProviderReport

    @property
    def run(self) -> bool:
        """Run against run."""
        return _same(self.batch, self.again)

    @property
    def together(self) -> bool:
        """Alone against batch."""
        return _same(self.alone, self.batch)

    @property
    def proven(self) -> str:
        """One of `CLASSES`."""
        if not self.run:
            return NONE
        return INVARIANT if self.together else RUN


def trial(
    make: Callable[[], Decoder], prompts: Sequence[Prompt], count: int, *, join_steps: int
) -> Trial:
    """Generate ``count`` tokens for each prompt alone, together, and together once more.

    Args:
        make: A new decoder, with a session of its own. They are closed; one is open at a time.
        prompts: Token ids.
        count: Tokens to generate for each.
        join_steps: As `generate`.
    """
    first = make()
    try:
        alone = [generate(first, [prompt], count, slot=0)[0] for prompt in prompts]
        batch = generate(first, prompts, count, join_steps=join_steps)
    finally:
        first.close()
    second = make()
    try:
        again = generate(second, prompts, count, join_steps=join_steps)
    finally:
        second.close()
    return Trial(alone, batch, again, first.report)


def proof_of(
    folder: ModelFolder,
    model: Model,
    proofs: Proofs,
    limit_s: float,
    kernels: Path | None = None,
) -> Proof:
    """The class of a model in the sizes of a fleet: as it was proven before, or proven now.

    Args:
        folder: Open.
        model: Its sizes and providers.
        proofs: What was proven before.
        limit_s: Seconds that the self-test may take; 0: any number.
        kernels: As ``cache`` of `Decoder`.

    Raises:
        ModelRejected: it cannot run, or takes longer.
        UsageError, ProviderMissing: as `Decoder`.
    """
    key = subject(folder.identity(), model)
    found = proofs.find(key)
    if found is None or found.proven not in CLASSES:
        found = _prove(folder, model, limit_s, kernels)
        proofs.keep(key, found)
    return found


def _prove(folder: ModelFolder, model: Model, limit_s: float, kernels: Path | None) -> Proof:
    lengths: tuple[int, ...] = LENGTHS
    count = TOKENS_NEW
    if folder.size_bytes() >= LARGE_BYTES:
        lengths, count = LARGE_LENGTHS, LARGE_TOKENS_NEW
    count = min(count, model.tokens_max // 2)
    longest = model.tokens_max - count
    sizes = [min(length, longest) for length in lengths[: model.rows_max]]
    with limited(folder, limit_s) as options:

        def make() -> Decoder:
            return decoder_for(folder, model, kernels, options=options)

        tried = trial(make, prompts_of(folder.facts.vocab, sizes), count, join_steps=1)
    return Proof(tried.proven, tried.report.got)


@contextmanager
def limited(folder: ModelFolder | TensorFolder, limit_s: float) -> Iterator[object]:
    """Options of runs that are terminated after so many seconds, and the error for it.

    ONNX Runtime looks at ``terminate`` between two nodes, those inside a loop included.
    """
    options = ort.RunOptions()
    timer = threading.Timer(limit_s, setattr, (options, "terminate", True))
    timer.daemon = True
    late = f"its self-test did not end within {limit_s:g} s ([recovery] step_s)"
    if limit_s:
        timer.start()
    try:
        yield options
    except LockstepError:
        if not options.terminate:
            raise
        raise ModelRejected(f"{folder.path}: {late}") from None
    except Exception as error:  # Its exceptions have no common base below Exception.
        why = f"onnxruntime cannot run it: {str(error).strip()[:2000]}"
        if options.terminate:
            why = late
        raise ModelRejected(f"{folder.path}: {why}") from None
    finally:
        timer.cancel()


def unrepeatable(path: Path, proven: str, report: ProviderReport) -> list[str]:
    """For people, of a model of class "none"; else nothing."""
    if proven != NONE:
        return []
    return [
        f"{path}: two runs gave different bits for the same inputs: THIS RUN CANNOT BE REPEATED on "
        f"{report.running} (class none)"
    ]


def prompts_of(vocab: int, lengths: Sequence[int]) -> tuple[Prompt, ...]:
    """Prompts of these lengths: the same ids on every machine."""
    stream = keyed.key(0, "model check", "prompt")
    return tuple(
        tuple(keyed.draw(stream, length, index) % vocab for index in range(length))
        for length in lengths
    )


def _same(left: Sequence[Row], right: Sequence[Row]) -> bool:
    return all(a.same(b) for a, b in zip(left, right, strict=True))
