"""Group ``decode``: one step of a model at equal batch, beside other runtimes and the memory.

docs/benchmarks.md says what each figure is and what is compared with what.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lockstep.bench import machine, models, peers
from lockstep.bench.bandwidth import BUFFER_BYTES, Probe, step_bytes
from lockstep.bench.decoding import prompt
from lockstep.bench.groups import Tell
from lockstep.bench.line import Line
from lockstep.bench.pairs import Round, ratio, rotate
from lockstep.bench.peers import Peer
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError
from lockstep.workers.launch import ENVIRONMENT

BATCHES, BATCHES_QUICK = (1, 4, 8, 16), (1, 16)
PAIRS, PAIRS_QUICK = 25, 6
STEPS, STEPS_QUICK = 8, 2  # Measured ones of a round: short, so that all meet the same machine.
PROMPT, PROMPT_QUICK = 64, 16  # Tokens that are there before the first step.
PROBE_BYTES = BUFFER_BYTES
LIMIT_BATCH = 1  # At which reading the weights is all that counts.
SHARE_BATCH = 16


@dataclass(frozen=True, slots=True)
class Contest:
    """One model, and who runs it.

    Attributes:
        kind: ``int4`` or ``fp32``.
        sizes: Of the model.
        folder: Builds it if it is not there.
        peers: Prefix of a ratio's name to who it is about.
        not_quick: Of these, who takes too long to open.
    """

    kind: str
    sizes: dict[str, Any]
    folder: Callable[[Tell], Path]
    peers: dict[str, Peer]
    not_quick: tuple[str, ...] = ()


GENAI = Peer("genai", peers.GENAI)
HF = Peer("hf", peers.HF)
LLAMACPP = Peer("llamacpp", peers.LLAMACPP)
INT4_PEERS = {"genai": GENAI, "llamacpp": LLAMACPP}
CONTESTS = (
    Contest("int4", models.LARGE, models.large, INT4_PEERS, not_quick=("llamacpp",)),
    Contest("fp32", models.LARGE_FP32, models.large_fp32, {"genai": GENAI, "hf": HF}),
)


def setup(tell: Tell) -> None:
    """Build the models and make the peers' environments.

    Raises:
        UsageError: something cannot be made; the rest is.
    """
    for contest in CONTESTS:
        tell(f"model: {contest.folder(tell)}")
    peers.make_all((p.environment for c in CONTESTS for p in c.peers.values()), tell)


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: a model cannot be built, or a contestant died.
    """
    report = Report("decode", machine.describe())
    threads = len(os.sched_getaffinity(0))
    report.notes["threads"] = f"{threads} for everybody"
    batches = BATCHES_QUICK if quick else BATCHES
    for contest in CONTESTS:
        with (
            _opened(report, contest, threads, quick, tell) as lines,
            Probe(threads, PROBE_BYTES) as probe,
        ):
            for batch in batches:
                tell(f"{contest.kind}, batch {batch}: {', '.join(lines)}")
                _batch(report, contest, lines, probe, batch, quick)
    if quick:
        _left_out(report)
    return report


@contextmanager
def _opened(
    report: Report, contest: Contest, threads: int, quick: bool, tell: Tell
) -> Iterator[dict[str, Line]]:
    """Everybody who is there, with the model loaded; Lockstep first."""
    model = contest.folder(tell)
    with ExitStack() as stack:
        ours = stack.enter_context(lockstep())
        size = (PROMPT_QUICK if quick else PROMPT) + tokens(quick) + 1
        report.notes["lockstep"] = f"onnxruntime {ours.hello['versions']['onnxruntime']}"
        ours.ask(do="open", model=str(model), threads=threads, rows_max=max(BATCHES),
                 tokens_max=size)  # fmt: skip
        lines = {"lockstep": ours}
        for name, peer in contest.peers.items():
            if quick and name in contest.not_quick:
                continue
            if missing := peer.missing(report.group):
                for batch in BATCHES:
                    report.skipped.append((f"{name}_{contest.kind}_b{batch}", *missing))
                continue
            lines[name] = stack.enter_context(peer.start())
            lines[name].ask(do="open", model=str(model), shape=contest.sizes, threads=threads,
                            rows_max=max(BATCHES), tokens_max=size)  # fmt: skip
            versions = lines[name].hello["versions"].items()
            report.notes[name] = ", ".join(f"{package} {number}" for package, number in versions)
        yield lines


def lockstep() -> Line:
    """Lockstep's inference process (bench/decoding.py)."""
    command = [sys.executable, "-P", "-m", "lockstep.bench.decoding"]
    return Line("lockstep", command, {**os.environ, **ENVIRONMENT})


def tokens(quick: bool) -> int:
    """Of each answer: every step of every round, the first of each unmeasured."""
    return (PAIRS_QUICK if quick else PAIRS) * ((STEPS_QUICK if quick else STEPS) + 1)


def _batch(
    report: Report, contest: Contest, lines: dict[str, Line], probe: Probe, batch: int, quick: bool
) -> None:
    past = PROMPT_QUICK if quick else PROMPT
    steps = STEPS_QUICK if quick else STEPS
    ids = [models.token_ids(prompt(row, past)) for row in range(batch)]
    for line in lines.values():
        line.ask(do="begin", rows=batch, prompt=past, ids=ids, tokens=tokens(quick))
    shares: list[float] = []
    rounds: list[Round] = [_ours(lines["lockstep"], steps, shares)]
    rounds += [_theirs(line, steps) for name, line in lines.items() if name != "lockstep"]
    if batch == LIMIT_BATCH:
        rounds.append(probe.bytes_per_s)
    measured = list(rotate(rounds, PAIRS_QUICK if quick else PAIRS))
    end = f"{contest.kind}_b{batch}"
    for place, name in enumerate(lines):
        ns = [figures[place] for figures in measured]
        report.results[f"{name}_{end}"] = (batch / median(ns) * 1e9, "tokens/s")
        if place:
            report.ratios[f"{name}_{end}"] = ratio([f[place] / f[0] for f in measured])
    if batch == LIMIT_BATCH:
        _limit(report, contest, end, past, steps, measured)
    if batch == SHARE_BATCH:
        name = "python_share" if contest.kind == "int4" else f"python_share_{contest.kind}"
        report.results[f"{name}_b{batch}"] = (median(shares), "of a step")


def _limit(
    report: Report,
    contest: Contest,
    end: str,
    past: int,
    steps: int,
    measured: Sequence[tuple[float, ...]],
) -> None:
    """The share of the memory's rate that our step reaches; the probe is the last contestant."""
    shares = []
    for number, figures in enumerate(measured):
        needed = step_bytes(contest.sizes, past + number * (steps + 1) + steps // 2)
        shares.append(needed / (figures[0] / 1e9) / figures[-1])
    report.ratios[f"bandwidth_{end}"] = ratio(shares)
    rate = median(figures[-1] for figures in measured)
    report.results[f"memory_{contest.kind}"] = (rate / 1e9, "GB/s")


def _ours(line: Line, steps: int, shares: list[float]) -> Round:
    """A round's median step, ns; what of the steps was not in ONNX Runtime goes to ``shares``."""

    def measure() -> float:
        answer = line.ask(do="steps", steps=steps + 1)
        times, engine = answer["times_ns"][1:], answer["engine_ns"][1:]
        if len(times) != steps:
            raise UsageError(f"{line.name}: {len(times)} steps, expected {steps}")
        shares.append(1 - sum(engine) / sum(times))
        return float(median(times))

    return measure


def _theirs(line: Line, steps: int) -> Round:
    # The first step of a round finds the caches of who was measured before.
    return lambda: float(median(line.ask(do="steps", steps=steps + 1)["times_ns"][1:]))


def _left_out(report: Report) -> None:
    there = {name for name, _, _ in report.skipped}
    for contest in CONTESTS:
        for name in contest.peers:
            for batch in BATCHES:
                end = f"{name}_{contest.kind}_b{batch}"
                if end not in report.ratios and end not in there:
                    report.skipped.append((end, "--quick", "lockstep bench decode"))
