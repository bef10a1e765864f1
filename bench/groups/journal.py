"""Group ``journal``: what keeping a run costs, and how fast what was kept brings it back.

docs/benchmarks.md says what each figure is. The fleet is one that people run for a minute and
more: 16 agents on a model of 135 M parameters with four-bit weights.
"""

import os
import signal
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from lockstep.bench import machine, models
from lockstep.bench.contestant import lockstep, write_fleet
from lockstep.bench.groups import Tell, building
from lockstep.bench.line import Line
from lockstep.bench.pairs import PAIRS_MIN, interleave, ratio
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError
from lockstep.engine.journal import JournalWriter, Scan
from lockstep.engine.journal import format as journal_format
from lockstep.workers import api
from lockstep.workers.folder import JOURNALS
from lockstep.workers.journal_file import LEVELS, JournalFile
from lockstep.workers.journal_reading import segments
from lockstep.workers.ledger import SEGMENT_BYTES_MAX
from lockstep.workers.storage import Disk
from lockstep.workers.sync import InlineSyncer

AGENTS = 16
TOKENS = 32  # Of an answer.
PROMPT_BYTES = 32
THINK_FUEL = 2_000_000
REQUESTS = 63  # Of an item: what the guest takes.
ROUND_TURNS, ROUND_TURNS_QUICK = 96, 32
PAIRS, PAIRS_QUICK = 12, PAIRS_MIN
LIVE_REQUESTS, LIVE_REQUESTS_QUICK = 63, 8  # Of each agent, in the run that is played again.
RECORDS = 20_000
RECORD_BYTES = 256
BACK_TURNS, BACK_TURNS_QUICK = (10, 1_000, 100_000), (10, 1_000)
ROUNDS = 5
WINDOW_S = 1  # Restarts within it wait longer and longer.

FLEET = """
[fleet]
name = "journal"
[recovery]
restarts_max = 1000
window_s = {window_s}
[schedule]
items_in_flight_max = {agents}
[models.default]
path = "{model}"
providers = ["cpu"]
rows_max = {agents}
tokens_max = 96
[agents.agent]
module = "GUESTS/think.wasm"
replicas = {agents}
input = "{input}"
[agents.agent.config]
fuel = {fuel}
tail = 0
requests = {requests}
tokens = {tokens}
prompt_bytes = {prompt}
"""
PAIR = """
[fleet]
name = "back"
[recovery]
snapshot_turns = {snapshot_turns}
restarts_max = 1000
window_s = {window_s}
[agents.agent]
module = "GUESTS/{guest}.wasm"
replicas = 2
config = {{ tokens = 1, bytes = 64, hops = 1_000_000_000 }}
"""

setup = building(models.large)


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: the model cannot be built, or a run ended before its time.
    """
    report = Report("journal", machine.describe())
    model = models.large(tell)
    for level in LEVELS:
        tell(f"the price of {level}, in pairs with a run that keeps nothing")
        _price(report, level, model, quick)
    tell("a run that is played again")
    _replay(report, model, LIVE_REQUESTS_QUICK if quick else LIVE_REQUESTS)
    tell("records alone")
    _records(report)
    for guest, snapshots in (("relay", 0), ("pass", 0), ("pass", 1_000)):
        tell(f"an agent brought back: {guest}, snapshots every {snapshots or 'no'} turns")
        _agent_back(report, guest, snapshots, BACK_TURNS_QUICK if quick else BACK_TURNS)
    tell("inference brought back")
    _inference_back(report, model)
    return report


def fleet(model: Path, requests: int, deal: bool) -> str:
    """Text of the fleet file."""
    return FLEET.format(
        agents=AGENTS,
        window_s=WINDOW_S,
        model=model,
        input="deal" if deal else "broadcast",
        fuel=THINK_FUEL,
        requests=requests,
        tokens=TOKENS,
        prompt=PROMPT_BYTES,
    )


def _price(report: Report, level: str, model: Path, quick: bool) -> None:
    text = fleet(model, REQUESTS, deal=True)
    lines = "{}\n" * 100_000
    turns = ROUND_TURNS_QUICK if quick else ROUND_TURNS
    pairs = PAIRS_QUICK if quick else PAIRS
    with lockstep(text, lines, level) as kept, lockstep(text, lines, level, bare=True) as bare:
        for line in (kept, bare):
            line.ask(turns=4 * AGENTS)
        measured = list(interleave(lambda: _round(kept, turns), lambda: _round(bare, turns), pairs))
    report.ratios[level] = ratio([without / held for held, without in measured])


def _round(line: Line, turns: int) -> float:
    answer = line.ask(turns=turns)
    return float(answer["ns"]) / float(answer["turns"])


def _replay(report: Report, model: Path, requests: int) -> None:
    """A whole run, and the same played again from its record, first tag to last."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as name:
        folder = Path(name)
        path, items = write_fleet(folder, fleet(model, requests, deal=False), "{}\n")
        run = api.run(path, items, run_dir=folder / "run")
        again = api.replay(run.folder)
        size = sum(file.stat().st_size for file in (run.folder / JOURNALS).glob("*.journal"))
    live, played = run.summary, again.summary
    report.results["live_s"] = (live["run_s"], "s")
    report.results["replay_s"] = (played["run_s"], "s")
    report.results["replay_speedup"] = (live["run_s"] / played["run_s"], "x")
    report.results["bytes_per_token"] = (size / live["tokens_out"], "bytes")
    report.results["bytes_per_turn"] = (size / live["turns"], "bytes")


def _records(report: Report) -> None:
    """Frames appended to a file that is never synced, and read back with every check."""
    appended, checked = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as name:
            rates = _append_and_check(Path(name))
        appended.append(rates[0])
        checked.append(rates[1])
    report.results["append_per_s"] = (median(appended), "records/s")
    report.results["check_per_s"] = (median(checked), "records/s")


def _append_and_check(folder: Path) -> tuple[float, float]:
    """(appended, checked) per second."""
    storage, body = Disk(folder), os.urandom(RECORD_BYTES)
    file = JournalFile(storage, InlineSyncer(storage), "memory", SEGMENT_BYTES_MAX)
    begun = time.perf_counter()
    writer = JournalWriter(file, bytes(16))
    for _ in range(RECORDS):
        writer.append(journal_format.HISTORY, body)
    file.flush()
    written = time.perf_counter()
    file.close()
    opened = time.perf_counter()
    count = sum(1 for _ in Scan(segments(storage)).frames())
    read = time.perf_counter()
    if count != RECORDS:
        raise UsageError(f"{count} records were read back of {RECORDS}")
    return RECORDS / (written - begun), RECORDS / (read - opened)


def _agent_back(report: Report, guest: str, snapshot_turns: int, depths: tuple[int, ...]) -> None:
    """From SIGKILL of an agent to its next new turns, after so many turns of its life."""
    text = PAIR.format(guest=guest, snapshot_turns=snapshot_turns, window_s=WINDOW_S)
    kind = "snapshots" if snapshot_turns else guest
    with lockstep(text) as line:
        done = 0
        for depth in depths:
            line.ask(turns=2 * (depth - done))
            done = depth
            times = [_killed(line, _agent_of(line), 4) for _ in range(ROUNDS)]
            report.results[f"agent_back_{kind}_{depth}"] = (median(times), "ms")


def _inference_back(report: Report, model: Path) -> None:
    """From SIGKILL of the inference process until every agent has had another answer, less what
    that takes undisturbed."""
    with lockstep(fleet(model, REQUESTS, deal=True), "{}\n" * 1000) as line:
        line.ask(turns=4 * AGENTS)
        calm = [line.ask(turns=AGENTS)["ns"] / 1e6 for _ in range(ROUNDS)]
        times = [_killed(line, _inference_of(line), AGENTS) for _ in range(ROUNDS)]
    report.results["inference_back"] = (median(times) - median(calm), "ms")


def _killed(line: Line, pid: int, turns: int) -> float:
    """Milliseconds from the death of a process until so many turns have ended."""
    # A second death within the window would have to wait before it is made good.
    time.sleep(WINDOW_S + 0.2)
    os.kill(pid, signal.SIGKILL)
    return float(line.ask(turns=turns)["ns"]) / 1e6


def _agent_of(line: Line) -> int:
    """An agent's process: they are the last that were forked, each with a ring of its own."""
    return int(max(_children(line), key=lambda child: child.create_time()).pid)


def _inference_of(line: Line) -> int:
    """The inference process: the one with threads."""
    return int(max(_children(line), key=lambda child: child.num_threads()).pid)


def _children(line: Line) -> list[psutil.Process]:
    return list(psutil.Process(line.pid).children())
