"""Group ``shm``: messages through rings and slots, beside other ways from process to process.

docs/benchmarks.md says what each figure is and what is compared with what.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from lockstep.bench import machine, peers, pingpong
from lockstep.bench.groups import Tell
from lockstep.bench.line import Line
from lockstep.bench.pairs import percentile, ratio, rotate
from lockstep.bench.peers import Peer
from lockstep.bench.report import Report
from lockstep.engine.errors import UsageError
from lockstep.workers.launch import ENVIRONMENT

# Ways of each environment, with the names that their ratios have.
PLAIN = {"queue": "queue", "pipe": "pipe", "seqpacket": "seqpacket"}
ZMQ = {"zmq": "pyzmq", "zmq_nocopy": "pyzmq_nocopy"}
PEERS = {
    "transports": (Peer("transports", peers.PLAIN), PLAIN),
    "pyzmq": (Peer("transports", peers.PYZMQ), ZMQ),
}
SIZES = {64: "64", 1024: "1k", 65_536: "64k", 1_048_576: "1m"}
# Ways that are not for all sizes: a packet has to fit into the socket's buffer; to save copies pays
# for large messages only.
SIZES_OF = {"seqpacket": (64, 1024, 65_536), "pyzmq_nocopy": (65_536, 1_048_576)}
# Of one round: some milliseconds of the quickest, long beside the start and end of a round.
MESSAGES = {64: 6_000, 1024: 5_000, 65_536: 500, 1_048_576: 40}
OURS, SLOTS = 4, 40  # Times as many for who is so much quicker.
TURNS, WARM_TURNS = 500, 100
ROTATIONS, ROTATIONS_QUICK = 41, 13

Way = tuple[Line, str]


def setup(tell: Tell) -> None:
    """Make the peers' environments, and compile the C program.

    Raises:
        UsageError: one or more cannot be made; the others are.
    """
    made = pingpong.program()
    tell(f"pingpong: {made if made else f'no C compiler ({pingpong.GET})'}")
    peers.make_all((peer.environment for peer, _ in PEERS.values()), tell)


def rings() -> Line:
    """Our own side, in a process of its own like the peers.

    Raises:
        UsageError: it died while it started.
    """
    command = [sys.executable, "-P", "-m", "lockstep.bench.rings"]
    return Line("rings", command, {**os.environ, **ENVIRONMENT})


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: a contestant died.
    """
    report = Report("shm", machine.describe())
    rotations = ROTATIONS_QUICK if quick else ROTATIONS
    with ExitStack() as stack:
        ours = stack.enter_context(rings())
        others: dict[str, Way] = {}
        for name, (peer, ways) in PEERS.items():
            if missing := peer.missing(report.group):
                for label in ways.values():
                    names = [f"{label}_{SIZES[size]}" for size in SIZES if _fits(label, size)]
                    names += [f"roundtrip_{label}"] * _fits(label, min(SIZES))
                    report.skipped += [(skipped, *missing) for skipped in names]
                continue
            line = stack.enter_context(peer.start())
            others |= {label: (line, way) for way, label in ways.items()}
            report.notes[name] = ", ".join(f"{k} {v}" for k, v in line.hello["versions"].items())
        for size in SIZES:
            tell(f"messages of {size} bytes")
            _one_way(report, ours, others, size, rotations)
        tell("round trips")
        with _one_core([ours, *(line for line, _ in others.values())]):
            _round_trips(report, ours, others, rotations)
    return report


@contextmanager
def _one_core(lines: Iterable[Line]) -> Iterator[None]:
    """Contestants run on one core, both their ends, and so does what is started here.

    Which of two cores the kernel wakes somebody on decides more than all else does, and differs
    from one process to the next.
    """
    before = sorted(os.sched_getaffinity(0))
    for line in lines:
        pin(line.pid, before[:1])
    pin(os.getpid(), before[:1])
    try:
        yield
    finally:
        pin(os.getpid(), before)


def pin(pid: int, cores: list[int]) -> None:
    """Let a process, all that it has started and all their threads run on these cores alone."""
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        for thread in each.threads():
            os.sched_setaffinity(thread.id, cores)


def _one_way(
    report: Report, ours: Line, others: Mapping[str, Way], size: int, rotations: int
) -> None:
    label, count = SIZES[size], MESSAGES[size]
    rounds = {
        "ring": _stream(ours, "ring", size, OURS * count),
        "ring_each": _stream(ours, "each", size, count),
    }
    if size == min(SIZES):
        rounds["slots"] = _stream(ours, "slots", size, SLOTS * count)
    for name, (line, way) in others.items():
        if _fits(name, size):
            rounds[name] = _stream(line, way, size, count)
    for measure in rounds.values():
        measure()  # Warm.
    rows = [dict(zip(rounds, row, strict=True)) for row in rotate(list(rounds.values()), rotations)]
    for name in rounds:
        rate = 1e9 / median(row[name] for row in rows)
        report.results[f"{name}_{label}_per_s"] = (rate, "1/s")
        if name in others:
            report.ratios[f"{name}_{label}"] = ratio([row[name] / row["ring"] for row in rows])
    if "slots" in rounds and "queue" in rounds:
        values = [row["queue"] / row["slots"] for row in rows]
        report.ratios[f"slots_queue_{label}"] = ratio(values)


def _fits(name: str, size: int) -> bool:
    return size in SIZES_OF.get(name, SIZES)


def _stream(line: Line, way: str, size: int, count: int) -> Callable[[], float]:
    """Measures one round: nanoseconds of a message."""
    return lambda: line.ask(way=way, size=size, messages=count)["ns"] / count


def _round_trips(report: Report, ours: Line, others: Mapping[str, Way], rotations: int) -> None:
    size = min(SIZES)
    ways = {"roundtrip": (ours, "ring"), "wake": (ours, "wake")}
    ways |= {f"roundtrip_{name}": way for name, way in others.items() if _fits(name, size)}
    turns = {name: _turns(line, way, size) for name, (line, way) in ways.items()}
    if program := _program(report):
        turns["wake_c"] = partial(_c_turns, program)
    times: dict[str, list[int]] = {name: [] for name in turns}

    def measure(name: str) -> float:
        found = turns[name]()
        times[name] += found
        return median(found)

    rows = [
        dict(zip(turns, row, strict=True))
        for row in rotate([partial(measure, name) for name in turns], rotations)
    ]
    pairs = {name: (name, "roundtrip") for name in ways if name.startswith("roundtrip_")}
    if program:
        pairs |= {"roundtrip_c": ("wake_c", "wake"), "roundtrip_message_c": ("wake_c", "roundtrip")}
    for name, (theirs, own) in pairs.items():
        report.ratios[name] = ratio([row[theirs] / row[own] for row in rows])
    for name, found in times.items():
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            report.results[f"{name}_{label}_us"] = (percentile(found, share) / 1e3, "us")


def _program(report: Report) -> Path | None:
    """The C program; without it the rest is measured all the same."""
    try:
        made, why = pingpong.program(), "there is no C compiler"
    except UsageError as error:
        made, why = None, str(error)
    if made is None:
        report.skipped.append(("roundtrip_c", why, pingpong.GET))
    return made


def _turns(line: Line, way: str, size: int) -> Callable[[], list[int]]:
    def measure() -> list[int]:
        found: list[int] = line.ask(way=way, size=size, turns=WARM_TURNS + TURNS)["times_ns"]
        return found[WARM_TURNS:]

    return measure


def _c_turns(program: Path) -> list[int]:
    return pingpong.turns(program, WARM_TURNS + TURNS)[WARM_TURNS:]
