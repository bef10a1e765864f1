"""Group ``agents``: what a turn, a message and an agent cost, beside other runtimes.

docs/benchmarks.md says what each figure is and what is compared with what.
"""

from collections.abc import Callable
from statistics import median

import psutil

from lockstep.bench import machine, peers
from lockstep.bench.contestant import lockstep
from lockstep.bench.groups import Tell
from lockstep.bench.line import Line
from lockstep.bench.pairs import interleave, percentile, ratio
from lockstep.bench.peers import Peer
from lockstep.bench.report import Report
from lockstep.bench.wakes import wakes_ns

PEERS = {
    "autogen_turn": Peer("autogen", peers.AUTOGEN),
    "ray_actor_turn": Peer("ray_actor", peers.RAY),
    "ray_compiled_turn": Peer("ray_compiled", peers.RAY),
    "processpool_turn": Peer("processpool", peers.PLAIN),
}
TURNS = 300  # Of one round of a pair: short, so that both of a pair meet the same machine.
WARM_TURNS = 500
PAIRS, PAIRS_QUICK = 41, 13
OWN_TURNS, OWN_TURNS_QUICK = 20_000, 4_000
TAGS, TAGS_QUICK = 1_000, 120
FLOOD_ROUNDS, FLOOD_ROUNDS_QUICK = 25, 7
FLOOD_AGENTS, FLOOD_TURNS, FLOOD_MESSAGES = 4, 80, 1_000
AT_ONE_TAG = 100  # Agents that are woken at one tag.
ENDLESS = 10**12  # Of rounds and hops: a run is closed when enough was measured.
MANY = 200  # Agents that memory and start are measured with.

FLEET = """
[fleet]
name = "{name}"
[agents.agent]
module = "GUESTS/{guest}.wasm"
replicas = {agents}
config = {{ {config} }}
"""


def ring(agents: int, tokens: int, guest: str = "relay") -> str:
    """A fleet whose agents pass tokens of 64 bytes to the next one, without end."""
    config = f"tokens = {tokens}, bytes = 64, hops = {ENDLESS}"
    return FLEET.format(name="ring", guest=guest, agents=agents, config=config)


def flood() -> str:
    """A fleet whose agents exchange messages of 64 bytes in pairs, many per turn, without end."""
    config = f"messages = {FLOOD_MESSAGES}, bytes = 64, rounds = {ENDLESS}"
    return FLEET.format(name="flood", guest="flood", agents=FLOOD_AGENTS, config=config)


def setup(tell: Tell) -> None:
    """Make the peers' environments.

    Raises:
        UsageError: one or more cannot be made; the others are.
    """
    peers.make_all((peer.environment for peer in PEERS.values()), tell)


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: a run ended before its time.
    """
    report = Report("agents", machine.describe())
    report.results["wake_p50_us"] = (median(wakes_ns()) / 1e3, "us")
    with lockstep(ring(2, 1)) as ours:
        tell("turns, Lockstep alone")
        _turns(report, ours, OWN_TURNS_QUICK if quick else OWN_TURNS)
        for name, peer in PEERS.items():
            tell(f"turns, in pairs with {peer.script}")
            _compare(report, name, peer, ours, PAIRS_QUICK if quick else PAIRS)
    tell(f"messages between {FLOOD_AGENTS} agents")
    _messages(report, FLOOD_ROUNDS_QUICK if quick else FLOOD_ROUNDS)
    tell(f"{AT_ONE_TAG} agents at one tag")
    _tags(report, TAGS_QUICK if quick else TAGS)
    tell(f"{MANY} agents started")
    _many(report)
    return report


def _turns(report: Report, ours: Line, turns: int) -> None:
    ours.ask(turns=WARM_TURNS)
    answer = ours.ask(turns=turns)
    report.results["turn_p50_us"] = (median(answer["times_ns"]) / 1e3, "us")
    report.results["message_p99_ms"] = (percentile(answer["hops_ns"], 0.99) / 1e6, "ms")


def _compare(report: Report, name: str, peer: Peer, ours: Line, pairs: int) -> None:
    if missing := peer.missing(report.group):
        report.skipped.append((name, *missing))
        return
    with peer.start() as theirs:
        theirs.ask(turns=WARM_TURNS)
        measured = list(interleave(_round(ours), _round(theirs), pairs))
        report.notes[name] = ", ".join(f"{k} {v}" for k, v in theirs.hello["versions"].items())
    report.ratios[name] = ratio([other / own for own, other in measured])
    report.results[f"{name}_us"] = (median(other for _, other in measured) / 1e3, "us")


def _round(line: Line) -> Callable[[], float]:
    return lambda: median(line.ask(turns=TURNS)["times_ns"])


def _messages(report: Report, rounds: int) -> None:
    with lockstep(flood()) as ours:
        ours.ask(turns=FLOOD_TURNS)
        answers = [ours.ask(turns=FLOOD_TURNS) for _ in range(rounds)]
    rates = [answer["messages"] / answer["ns"] * 1e9 for answer in answers]
    report.results["messages_per_s"] = (median(rates), "1/s")


def _tags(report: Report, tags: int) -> None:
    with lockstep(ring(AT_ONE_TAG, AT_ONE_TAG)) as ours:
        ours.ask(turns=20 * AT_ONE_TAG)
        answer = ours.ask(turns=tags * AT_ONE_TAG)
    report.results["tag100_p50_ms"] = (median(answer["times_ns"]) / 1e6, "ms")
    report.results["tag100_p99_ms"] = (percentile(answer["times_ns"], 0.99) / 1e6, "ms")


def _many(report: Report) -> None:
    pss_mb, start_ms = many(ring(MANY, MANY))
    report.results["pss_mb"] = (pss_mb, "MB")
    report.results["start_ms"] = (start_ms, "ms")


def many(fleet: str) -> tuple[float, float]:
    """What an agent of a fleet of `MANY` costs: MB of proportional set size, ms of start."""
    with lockstep(fleet) as ours:
        ours.ask(turns=5 * MANY)  # Every agent has run some turns: it holds what it needs.
        children = psutil.Process(ours.pid).children()
        agents = sorted(children, key=lambda child: child.create_time())[-MANY:]  # Others before.
        sizes = [agent.memory_full_info().pss for agent in agents]
    return sum(sizes) / len(sizes) / 1e6, ours.hello["start_ns"] / 1e6 / MANY
