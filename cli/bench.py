"""``lockstep bench GROUP`` and ``lockstep bench setup``.

A verb for each group, all made in one place (`_verb`): what a group takes besides is what its
function gives.
"""

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.options import json_option
from lockstep.cli.verbs import Verbs
from lockstep.engine.errors import EXIT_OK

if TYPE_CHECKING:
    from lockstep.bench.report import Report

GROUPS = (
    "shm",
    "agents",
    "tax",
    "journal",
    "decode",
    "serve",
    "service",
    "guests",
    "gpu",
    "profile",
)  # As bench/groups has them; named here so that help loads nothing.
MODULES = {"all": "lockstep.cli.bench_all", "compare": "lockstep.cli.bench_compare"}
SHORTLY = "Within 45 s on two cores: wider intervals."
MINUTES = "Within 8 minutes on two cores: wider intervals."

Options = Mapping[str, Any]  # What a group's `run` takes besides.


@click.group("bench", cls=Verbs, modules=MODULES)
def command() -> None:
    """Measure on this machine, with other runtimes side by side where they are installed.

    \b
    Examples:
        lockstep bench setup
        lockstep bench agents
        lockstep bench tax --quick --json
        lockstep bench all --quick
        lockstep bench compare bench-1 bench-2
    """


@command.command("setup", short_help="Make models and the peers' environments.")
@click.argument("group", required=False, type=click.Choice(GROUPS), metavar="[GROUP]")
def setup(group: str | None) -> int:
    """Make the models and the peers' environments that a group wants, in the cache folder.

    \b
    Examples:
        lockstep bench setup
        lockstep bench setup agents

    A group is shm, agents, tax, journal, decode, serve, service, guests, gpu or profile; without
    one everything is made. What is there already is left alone. It needs a network (or a package
    index of pip's settings) for the peers, which go to $XDG_CACHE_HOME/lockstep/bench, and none of
    it into this Python.

    Exit codes: 0, or 2 when something could not be made.
    """
    for name in [group] if group else GROUPS:
        _group(name).setup(tell)
    return EXIT_OK


def _verb(
    short_help: str, quick: str = SHORTLY
) -> Callable[[Callable[..., Options]], click.Command]:
    """Make a verb of a group out of a function with its name, its help and its own options."""

    def made(options: Callable[..., Options]) -> click.Command:
        @wraps(options)
        def measure(quick: bool, as_json: bool, **given: Any) -> int:
            group = _group(options.__name__)
            return _show(group.run(quick, tell, **options(**given)), as_json)

        measured = click.option("--quick", is_flag=True, help=quick)(json_option(measure))
        return command.command(options.__name__, short_help=short_help)(measured)

    return made


@_verb("Messages from process to process, beside other ways.")
def shm() -> Options:
    """Measure rings, slots and doorbells, in turn with queues, pipes, sockets and ZeroMQ.

    \b
    Examples:
        lockstep bench setup shm
        lockstep bench shm
        lockstep bench shm --quick --json | jq .ratios

    A ratio above 1 means that Lockstep is faster. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a contestant died.
    """
    return {}


@_verb("A turn, a message, an agent: what they cost.")
def agents() -> Options:
    """Measure turns, messages, memory and start of agents, in pairs with other runtimes.

    \b
    Examples:
        lockstep bench agents
        lockstep bench agents --quick --json | jq .ratios

    A ratio above 1 means that Lockstep is faster. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a run could not be made.
    """
    return {}


@_verb("What strict order costs against arrival order.", MINUTES)
@click.option(
    "--curves",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also measure over fuel_per_step and lookahead, and draw it as SVG: takes longer.",
)
def tax(curves: Path | None) -> Options:
    """Measure throughput in strict order against arrival order, fleet by fleet, in pairs.

    \b
    Examples:
        lockstep bench tax
        lockstep bench tax --quick --json | jq .ratios
        lockstep bench tax --curves tax.svg

    A ratio of 1 means that strict order costs nothing. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a run could not be made.
    """
    return {"curves": curves}


@_verb("What keeping a run costs, and bringing it back.", MINUTES)
def journal() -> Options:
    """Measure durability levels against no journal, replay against live, and recovery times.

    \b
    Examples:
        lockstep bench journal
        lockstep bench journal --quick --json | jq .ratios

    A ratio of 1 means that a level costs nothing. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a run could not be made.
    """
    return {}


@_verb("A step of a model at equal batch, and the memory's limit.",
       "Within 45 s on two cores: fewer batches, wider intervals.")  # fmt: skip
def decode() -> Options:
    """Measure decode steps at equal batch, in pairs with other runtimes and with reading memory.

    \b
    Examples:
        lockstep bench setup decode
        lockstep bench decode
        lockstep bench decode --quick --json | jq .ratios

    A ratio above 1 means that Lockstep is faster; bandwidth_... is the share of what the memory
    allows. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a model or a run could not be made.
    """
    return {}


@_verb("Many agents' conversations on one model.",
       "Within 8 minutes on two cores: each serves once.")  # fmt: skip
def serve() -> Options:
    """Measure a trace of conversations of 32 agents, served by Lockstep and by other runtimes.

    \b
    Examples:
        lockstep bench setup serve
        lockstep bench serve
        lockstep bench serve --quick --json | jq .results

    A ratio above 1 means that Lockstep has more tokens per second. docs/benchmarks.md says what
    is compared.

    Exit codes: 0, or 2 when a model or a run could not be made.
    """
    return {}


@_verb("What a service costs beside a plain run.", MINUTES)
def service() -> Options:
    """Measure a service in pairs with a plain run that gets the same items from a socket.

    \b
    Examples:
        lockstep bench service
        lockstep bench service --quick --json | jq .ratios

    A ratio of 1 means that the service costs nothing. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a run could not be made.
    """
    return {}


@_verb("A guest's crossings, fuel, NaN, start and memory.")
def guests() -> Options:
    """Measure what a guest costs: crossings, fuel, canonical NaN, start and memory.

    \b
    Examples:
        lockstep bench guests
        lockstep bench guests --quick --json | jq .results

    Nothing here has a peer: prices, no ratios. docs/benchmarks.md says what each figure is.

    Exit codes: 0, or 2 when a run could not be made.
    """
    return {}


@_verb("Equality and throughput on a GPU (docs/gpu.md).", "Two batches and few steps.")
@click.argument("models", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--provider", default="cuda", show_default=True, metavar="NAME",
              help="The one that is measured; cpu: all of it but the device.")  # fmt: skip
def gpu(models: tuple[Path, ...], provider: str) -> Options:
    """Show what docs/gpu.md asks of a machine with a GPU, in one go.

    That is equality across sessions, batches and processes, with and without CUDA graphs and
    candidates, and throughput at batch 1 to 64 against what the memory allows.

    \b
    Examples:
        lockstep bench gpu
        lockstep bench gpu MODEL --json | jq .results
        lockstep bench gpu --provider cpu --quick MODEL

    MODELS are folders; without any, the benchmarks' own two of 135 M parameters.

    Exit codes: 0, or 2 when a model or a run could not be made.
    """
    return {"provider": provider, "folders": models}


@_verb("What recording where the time goes costs.")
def profile() -> Options:
    """Measure turns of agents and of a model with `lockstep profile`'s recording and without.

    \b
    Examples:
        lockstep bench profile
        lockstep bench profile --quick --json | jq .ratios

    A ratio of 1 means that recording costs nothing. docs/benchmarks.md says what is compared.

    Exit codes: 0, or 2 when a run could not be made.
    """
    return {}


def tell(text: str) -> None:
    """What goes on, for whoever waits."""
    screen.tell("bench", text)


def _group(name: str) -> Any:
    return import_module(f"lockstep.bench.groups.{name}")


def _show(report: "Report", as_json: bool) -> int:
    machine = report.machine
    title = f"{report.group} on {machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    title += f", {machine['form']}"
    print(screen.escape(title), file=sys.stderr if as_json else sys.stdout)
    screen.say(screen.table(("name", "figure", ""), report.rows()), err=as_json)
    if as_json:
        screen.say_json(report.to_json())
    return EXIT_OK
