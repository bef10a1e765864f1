"""``lockstep doctor``."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TextIO

import click

from lockstep.cli import checks, child, screen, surroundings
from lockstep.cli.checks import FAIL, OFF, OK, WARN, Check
from lockstep.engine.errors import EXIT_OK, EXIT_USAGE, LockstepError
from lockstep.engine.fleet import AGENTS_MAX

LOOKS: tuple[Callable[[], Check | Iterable[Check]], ...] = (
    checks.installation,
    checks.system,
    checks.python,
    checks.packages,
    surroundings.runtimes,
    checks.machine,
    surroundings.cpu_quota,
    checks.cpu,
    surroundings.huge_pages,
    checks.descriptors,
    surroundings.address_space,
    checks.folders,
    surroundings.cache,
    surroundings.clock,
    surroundings.service_manager,
)
PROBES = {
    "kernel": "what the kernel offers",
    "shared_memory": "shared memory",
    "agents": "room for agents",
    "guests": "wasmtime",
    "inference": "onnxruntime",
}
PROBE_S_MAX = 120.0
SYMBOLS = {
    OK: ("✓", "ok", "green"),
    OFF: ("-", "off", "dim"),
    WARN: ("!", "warn", "yellow"),
    FAIL: ("✗", "FAIL", "red"),
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
@click.option("--agents", type=click.IntRange(1, AGENTS_MAX), metavar="N",
              help="Fail unless there is room for so many agents.")  # fmt: skip
@click.option("--record-bytes-max", type=click.IntRange(1024, 1 << 26), metavar="BYTES",
              default=65_536, show_default=True,
              help="As the fleet's: it decides the size of the rings.")  # fmt: skip
@click.option("--memory", type=click.IntRange(0, 1 << 22), metavar="MIB", default=0,
              help="What each guest allocates, beyond a small one's few pages.")  # fmt: skip
def command(as_json: bool, agents: int | None, record_bytes_max: int, memory: int) -> int:
    """Check what a run needs on this machine, with a cure for what is missing.

    \b
    Examples:
        lockstep doctor
        lockstep doctor --agents 1000 --memory 8
        lockstep doctor --json | jq '.checks[] | select(.state != "ok")'

    A warning means that a run on the CPU is possible and something else is not; "off" is optional.

    Exit codes: 0 when a run on the CPU is possible, else 2.
    """
    found = []
    for check in examine((agents or 0, record_bytes_max, memory)):
        found.append(check)
        screen.say(line(check, sys.stderr if as_json else sys.stdout), err=as_json)
    bad = [check for check in found if check.state == FAIL]
    count = Counter(check.state for check in found)
    verdict = "a run on the CPU is possible" if not bad else "no run is possible yet"
    off = f", {count[OFF]} off" if count[OFF] else ""
    screen.say(f"{verdict}: {count[OK]} ok, {count[WARN]} warn, {count[FAIL]} fail{off}",
               err=as_json)  # fmt: skip
    if as_json:
        screen.say_json({"ok": not bad, "checks": [asdict(check) for check in found]})
    return EXIT_USAGE if bad else EXIT_OK


def examine(size: tuple[int, int, int]) -> Iterator[Check]:
    """All checks, in order; one that cannot be made is a failure of its own.

    Args:
        size: Of the agents that there should be room for, as `probes.agents` takes it.
    """
    for look in LOOKS:
        try:
            found = look()
        except (OSError, ImportError, ValueError) as error:
            yield Check(look.__name__, FAIL, f"{type(error).__name__}: {error}", "")
            continue
        yield from [found] if isinstance(found, Check) else found
    for name, what in PROBES.items():
        arguments = size if name == "agents" else ()
        yield from probe(what, f"lockstep.cli.probes:{name}", *arguments)


def probe(what: str, function: str, *arguments: int) -> list[Check]:
    """Checks that a child makes; its end is a check, too."""
    cure = "reinstall: pip install --force-reinstall lockstep-runtime"
    try:
        answer = child.call(f"trying {what}", function, *arguments, timeout_s=PROBE_S_MAX)
    except (LockstepError, child.ChildFailed) as error:
        return [Check(what, FAIL, str(error), cure)]
    return [Check(**values) for values in answer]


def line(check: Check, stream: TextIO) -> str:
    """One check for people: symbol, name, what was found; the cure on a line of its own."""
    symbol, word, colour = SYMBOLS[check.state]
    # A symbol that the stream cannot encode would come out as an escape.
    encodes = symbol.isascii() or (stream.encoding or "").lower().startswith("utf")
    mark = symbol if encodes else "*"
    head = screen.paint(f"{mark} {word:4}", colour, stream)
    text = f"{head}  {check.name:17}  {screen.one_line(check.found)}"
    return f"{text}\n{'':27}cure: {screen.one_line(check.cure)}" if check.cure else text
