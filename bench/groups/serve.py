"""Group ``serve``: many agents' conversations on one model, beside other runtimes.

docs/benchmarks.md says what the trace is, who serves it how, and what each figure is.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from statistics import fmean, median
from typing import Any

from lockstep.bench import machine, models, peers
from lockstep.bench.contestant import whole
from lockstep.bench.conversations import Trace, trace
from lockstep.bench.groups import Tell
from lockstep.bench.line import Line
from lockstep.bench.pairs import paired, rotate
from lockstep.bench.peers import Peer
from lockstep.bench.report import Report
from lockstep.bench.serving import TPOT_MS_MAX, TTFT_MS_MAX, Served, figures
from lockstep.engine.errors import UsageError

PEERS = {
    "genai_engine": Peer("genai_engine", peers.GENAI),
    "hf": Peer("hf_rounds", peers.HF),
    "hf_generate": Peer("hf_generate", peers.HF),
}
# Without a batch: so many conversations give the same rate as all of them, and not with --quick.
ALONE, ALONE_AGENTS = ("hf_generate",), 4
MODEL, SIZES = models.large, models.LARGE
TIMES, TIMES_QUICK = 3, 1
TURNS_QUICK = 5  # The sixth of an agent, with the longest past, is a quarter of the time.
ANSWER_S_MAX = 3_600.0  # A whole trace, on a slow machine.
PREFILL_TOKENS = 128  # Of a step: about as long as a step of all rows.

FLEET = """
[fleet]
name = "serve"
[schedule]
items_in_flight_max = {agents}
[models.default]
path = "{model}"
providers = ["cpu"]
intra_op_threads = {threads}
rows_max = {agents}
tokens_max = {tokens_max}
prefill_tokens_per_step = {prefill}
[agents.agent]
module = "GUESTS/converse.wasm"
replicas = {agents}
input = "deal"
config = {{ shared = "{shared}" }}
"""


def setup(tell: Tell) -> None:
    """Build the model and make the peers' environments.

    Raises:
        UsageError: something cannot be made; the rest is.
    """
    tell(f"model: {MODEL(tell)}")
    peers.make_all((peer.environment for peer in PEERS.values()), tell)


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: the model cannot be built, or a contestant died.
    """
    if quick:
        return measure(trace(turns=TURNS_QUICK), TIMES_QUICK, tell, quick)
    return measure(trace(), TIMES, tell)


def measure(said: Trace, times: int, tell: Tell, quick: bool = False) -> Report:
    """Have a trace served by everybody who is there, so many times each, in turn."""
    report = Report("serve", machine.describe())
    threads = len(os.sched_getaffinity(0))
    report.notes["goodput"] = f"TTFT <= {TTFT_MS_MAX:g} ms and TPOT <= {TPOT_MS_MAX:g} ms"
    report.notes["threads"] = f"{threads} for everybody"
    with ExitStack() as stack:
        servers: dict[str, Callable[[], float]] = {"": _ours(report, said, threads, tell)}
        for name, peer in PEERS.items():
            if missing := peer.missing(report.group):
                report.skipped.append((name, *missing))
                continue
            if quick and name in ALONE:
                report.skipped.append((name, "--quick", "lockstep bench serve"))
                continue
            line = stack.enter_context(peer.start(ANSWER_S_MAX))
            _open(report, name, line, len(said.agents), threads, tell)
            part = replace(said, agents=said.agents[:ALONE_AGENTS]) if name in ALONE else said
            servers[name] = _theirs(report, name, line, part, tell)
        measured = list(rotate(list(servers.values()), times))
    for place, name in enumerate(servers):
        start = f"{name}_" if name else ""
        rates = [rate[place] for rate in measured]
        report.results[f"{start}output_throughput"] = (median(rates), "tokens/s")
        if name:
            report.ratios[name] = paired([rate[0] / rate[place] for rate in measured])
    return report


def fleet(said: Trace, model: str, threads: int) -> str:
    """Text of the fleet file: an agent for each conversation, a row of the model for each."""
    return FLEET.format(
        agents=len(said.agents),
        model=model,
        threads=threads,
        tokens_max=said.tokens_max,
        prefill=PREFILL_TOKENS,
        shared=said.shared,
    )


def _ours(report: Report, said: Trace, threads: int, tell: Tell) -> Callable[[], float]:
    text = fleet(said, str(MODEL(tell)), threads)

    def serve() -> float:
        tell("lockstep serves")
        done = whole(text, said.lines(), watch=True)
        rate = _book(report, "", done.seen["requests"], done.seconds, said)
        rows = done.seen["rows"]
        report.results["batch_per_step"] = (fmean(rows), "rows")
        report.results["stall"] = (done.summary["stalled_s"], "s")
        report.results["stall_share"] = (done.summary["stalled_s"] / done.seconds, "of the run")
        return rate

    return serve


def _theirs(report: Report, name: str, line: Line, said: Trace, tell: Tell) -> Callable[[], float]:
    def serve() -> float:
        tell(f"{line.name} serves")
        answer = line.ask(do="serve", trace=said.ids())
        if name in ALONE:  # What others would wait for it is not in its times.
            return float(said.tokens_out / answer["ns"] * 1e9)
        return _book(report, f"{name}_", answer["requests"], answer["ns"] / 1e9, said)

    return serve


def _book(report: Report, start: str, requests: list[Any], seconds: float, said: Trace) -> float:
    """Figures of one run, the last one's stay; tokens of answers per second."""
    served = [Served.of(found) for found in requests]
    tokens = sum(len(request.tokens_ns) for request in served)
    if tokens != said.tokens_out:
        raise UsageError(f"{start or 'lockstep'}: {tokens} tokens, the trace has {said.tokens_out}")
    report.results |= {f"{start}{key}": v for key, v in figures(served, seconds).items()}
    return tokens / seconds


def _open(report: Report, name: str, line: Line, agents: int, threads: int, tell: Tell) -> None:
    model = str(MODEL(tell))
    said = line.ask(do="open", model=model, shape=SIZES, threads=threads, agents=agents)
    versions = [f"{package} {number}" for package, number in line.hello["versions"].items()]
    report.notes[name] = ", ".join([*versions, *(f"{k} {v}" for k, v in said.items())])
