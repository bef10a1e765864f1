"""Group ``service``: what a service costs beside a plain run that gets the same items.

docs/benchmarks.md says what each figure is. Both live at once and take their rounds in turn, as
everywhere here. The plain run has a socket as its source, and what it says is read from its output
file: as near to its loop as anybody outside can be.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from lockstep.bench import machine, models
from lockstep.bench.callers import Caller, crowd
from lockstep.bench.contestant import write_fleet
from lockstep.bench.groups import Tell, building
from lockstep.bench.pairs import PAIRS_MIN, interleave, ratio
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError
from lockstep.workers.folder import CONTROL, OUTPUT
from lockstep.workers.launch import ENVIRONMENT
from lockstep.workers.outside.lines import ShortPath
from lockstep.workers.service.client import Connection, submit

AGENTS = 16
TOKENS = 32  # Of an answer.
PROMPT_BYTES = 32
THINK_FUEL = 2_000_000
ROUND_ITEMS, ROUND_ITEMS_QUICK = 96, 32
PAIRS, PAIRS_QUICK = 12, PAIRS_MIN
LONE_ITEMS, LONE_ITEMS_QUICK = 1_000, 200
START_S_MAX = 120.0
LOOK_S = 0.0001  # Between two looks at the output file.
SOURCE = "lines.sock"
ROOM = ("--waiting-max", "4096", "--client-max", "4096")
HTTP = ("--http", "127.0.0.1:0")
EXTRA = ("starlette", "uvicorn", "prometheus_client")  # `http`.
CLIENTS = 64
CALLS, CALLS_QUICK = 4, 1  # Of each client.
T = TypeVar("T")

FLEET = """
[fleet]
name = "service"
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
input = "deal"
[agents.agent.config]
fuel = {fuel}
tail = 0
requests = 1
tokens = {tokens}
prompt_bytes = {prompt}
"""
LONE = """
[fleet]
name = "lone"
[agents.agent]
module = "GUESTS/think.wasm"
input = "broadcast"
config = { fuel = 1000, tail = 0, requests = 0, tokens = 1, prompt_bytes = 0 }
"""
LINES = f'\n[sources.lines]\nkind = "socket"\npath = "{SOURCE}"\n'

setup = building(models.large)


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: the model cannot be built, or a contestant ended before its time.
    """
    report = Report("service", machine.describe())
    model = models.large(tell)
    tell("throughput, in pairs with a plain run")
    _throughput(report, fleet(model), quick)
    tell("items of no work, one at a time")
    lone = LONE_ITEMS_QUICK if quick else LONE_ITEMS
    _latency(report, lone)
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        get = "pip install 'lockstep-runtime[http]'"
        report.skipped.append(("http", f"{missing[0]} is not installed", get))
        return report
    tell("the same over HTTP")
    _http_latency(report, lone)
    tell(f"{CLIENTS} HTTP clients of the model at once")
    _http_crowd(report, fleet(model), CALLS_QUICK if quick else CALLS)
    return report


def fleet(model: Path) -> str:
    """Text of the fleet file."""
    return FLEET.format(
        agents=AGENTS, model=model, fuel=THINK_FUEL, tokens=TOKENS, prompt=PROMPT_BYTES
    )


def _throughput(report: Report, text: str, quick: bool) -> None:
    items = ROUND_ITEMS_QUICK if quick else ROUND_ITEMS
    pairs = PAIRS_QUICK if quick else PAIRS
    with served(text) as ours, plain(text) as theirs:
        for contestant in (ours, theirs):
            contestant.answer(2 * AGENTS)
        found = list(interleave(lambda: ours.answer(items), lambda: theirs.answer(items), pairs))
    report.ratios["throughput"] = ratio([without / served_s for served_s, without in found])
    report.results["items_per_s"] = (items / median(ours_s for ours_s, _ in found), "1/s")
    report.results["plain_items_per_s"] = (items / median(other for _, other in found), "1/s")


def _latency(report: Report, items: int) -> None:
    with served(LONE) as ours, plain(LONE) as theirs:
        for contestant in (ours, theirs):
            contestant.answer(20)
        found = list(interleave(lambda: ours.answer(1), lambda: theirs.answer(1), items))
    here_s, there_s = (sorted(times) for times in zip(*found, strict=True))
    report.results["p50_ms"] = (median(here_s) * 1e3, "ms")
    report.results["p99_ms"] = (here_s[items * 99 // 100] * 1e3, "ms")
    report.results["plain_p50_ms"] = (median(there_s) * 1e3, "ms")
    report.results["added_p50_ms"] = ((median(here_s) - median(there_s)) * 1e3, "ms")


def _http_latency(report: Report, items: int) -> None:
    """Items of no work, in turn over HTTP and over the control socket of one service."""
    with served(LONE, *HTTP) as service:
        caller = Caller(service.address, "fleet:lone")
        for _ in range(20):
            service.answer(1), caller.answer("{}")
        found = list(interleave(lambda: caller.answer("{}"), lambda: service.answer(1), items))
        caller.close()
    here_s, there_s = (sorted(times) for times in zip(*found, strict=True))
    at = items * 99 // 100
    report.results["http_p50_ms"] = (median(here_s) * 1e3, "ms")
    report.results["http_p99_ms"] = (here_s[at] * 1e3, "ms")
    report.results["http_added_p50_ms"] = ((median(here_s) - median(there_s)) * 1e3, "ms")
    report.results["http_added_p99_ms"] = ((here_s[at] - there_s[at]) * 1e3, "ms")


def _http_crowd(report: Report, text: str, calls: int) -> None:
    content = "x" * PROMPT_BYTES
    with served(text, *HTTP) as service:
        crowd(service.address, "default", AGENTS, 1, content, max_tokens=TOKENS)
        began_s = time.perf_counter()
        took_s = crowd(service.address, "default", CLIENTS, calls, content, max_tokens=TOKENS)
        each_s = (time.perf_counter() - began_s) / len(took_s)
    report.results["http_clients_p50_ms"] = (median(took_s) * 1e3, "ms")
    report.results["http_clients_p99_ms"] = (took_s[len(took_s) * 99 // 100] * 1e3, "ms")
    report.results["http_clients_calls_per_s"] = (1 / each_s, "1/s")


class Served:
    """A service, asked over its control socket.

    Attributes:
        address: Of its front end; empty: it has none.
    """

    def __init__(self, connection: Connection, address: str) -> None:
        self._connection, self.address, self._asked = connection, address, 0

    def answer(self, items: int) -> float:
        """Seconds for so many items, handed in at once.

        Raises:
            UsageError: one was not answered.
        """
        first = self._asked
        self._asked += items
        wanted = ({"id": n} for n in range(first, self._asked))
        began_s = time.perf_counter()
        for answer in submit(self._connection, wanted, "bench", wait=True, window=items):
            if "answer" not in answer or "error" in answer["answer"][0]:
                raise UsageError(f"the service did not answer: {json.dumps(answer)[:200]}")
        return time.perf_counter() - began_s


class Plain:
    """A run with a socket as its source."""

    def __init__(self, run: Path, lines: socket.socket) -> None:
        self._output, self._lines, self._asked = run / OUTPUT, lines, 0
        self._lines.settimeout(START_S_MAX)

    def answer(self, items: int) -> float:
        """Seconds for so many items, handed in at once.

        Raises:
            UsageError: the run went away.
        """
        first = self._asked
        self._asked += items
        data = b"".join(b'{"id":%d}\n' % n for n in range(first, self._asked))
        with open(self._output, "rb") as file:
            file.seek(0, os.SEEK_END)
            began_s = time.perf_counter()
            self._lines.sendall(data)
            seen = 0
            while (seen := seen + file.read().count(b"\n")) < items:
                time.sleep(LOOK_S)
            taken_s = time.perf_counter() - began_s
        heard = 0
        while heard < items:  # That they were accepted: it must not be held up by its answers.
            heard += self._lines.recv(1 << 16).count(b"\n")
        return taken_s


@contextmanager
def served(text: str, *more: str) -> Iterator[Served]:
    """A service of a fleet, once it is ready; ``more``: of its command line."""
    with _process("serve", text, "--state", *ROOM, *more) as (state, process):
        connection = _tried(process, lambda: Connection(state))
        with connection:
            front = _tried(process, lambda: _ready(connection))["http"]
            yield Served(connection, front["address"] if front else "")


@contextmanager
def plain(text: str) -> Iterator[Plain]:
    """A plain run of a fleet, once it listens."""
    with _process("run", text + LINES, "--run-dir") as (run, process):
        lines = _tried(process, lambda: _connected(run))
        with lines:
            yield Plain(run, lines)


def _ready(connection: Connection) -> dict[str, Any]:
    connection.tell({"do": "status"})
    status = connection.hear()
    if status["state"] != "ready":
        raise UsageError(f"the service is {status['state']}")
    return status


def _connected(run: Path) -> socket.socket:
    if not (run / CONTROL).exists():
        raise UsageError(f"{run}: it does not listen")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ShortPath(run, SOURCE) as path:
        made.connect(path)
    return made


@contextmanager
def _process(
    verb: str, text: str, option: str, *more: str
) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """``lockstep VERB FLEET OPTION FOLDER``, until it is wanted no more."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as name:
        folder = Path(name) / verb
        path, _ = write_fleet(Path(name), text, "")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lockstep.cli.main", verb, path, option, folder, *more],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield folder, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _tried(process: "subprocess.Popen[bytes]", attempt: Callable[[], T]) -> T:
    """What an attempt gives, once it does.

    Raises:
        UsageError: it never did.
    """
    until_s = time.monotonic() + START_S_MAX
    while True:
        try:
            return attempt()
        except (OSError, UsageError) as error:
            if process.poll() is not None or time.monotonic() > until_s:
                raise UsageError(f"a contestant did not start: {error}") from None
            time.sleep(0.05)
