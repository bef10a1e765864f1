"""``lockstep run``."""

from pathlib import Path

import click

from lockstep.cli import screen
from lockstep.cli.listen import Listening
from lockstep.engine.errors import UsageError

SEED_MAX = 2**63 - 1


@click.command("run", short_help="Run a fleet to its end.")
@click.argument("fleet", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "input_",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON Lines, one item each.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A copy of the run's output file.",
)
@click.option(
    "--seed", type=click.IntRange(0, SEED_MAX), metavar="N", help="In place of the fleet's."
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the run.  [default: runs/<fleet>-<n>]",
)
@click.option(
    "--durability",
    type=click.Choice(["memory", "async", "sync"]),
    default="async",
    show_default=True,
    help="What a crash may cost: memory loses with the process, async with the machine, "
    "sync nothing.",
)
@click.option(
    "--order",
    type=click.Choice(["strict", "arrival"]),
    default="strict",
    show_default=True,
    help="strict: logical time decides, so that runs repeat.",
)
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def command(
    fleet: Path,
    input_: Path | None,
    output: Path | None,
    seed: int | None,
    run_dir: Path | None,
    durability: str,
    order: str,
    as_json: bool,
) -> int:
    """Run a fleet to its end and keep everything in one folder.

    \b
    Examples:
        lockstep run fleet.toml --input items.jsonl
        lockstep run fleet.toml --input items.jsonl --output answers.jsonl --seed 7
        lockstep run fleet.toml --input items.jsonl --json | jq -r .digest

    The same fleet, input, seed and model give the same digest; `lockstep verify` runs it again
    and compares. Ctrl-C stops at the next step with the journal whole, a second one at once.

    Exit codes: 0 done, 2 refused (nothing was made), 3 finished with failed items or agents, or
    stopped, 130 interrupted.
    """
    if order == "arrival":
        raise UsageError("--order arrival does not exist yet; runs are strict: leave --order out")
    from lockstep.cli import summary
    from lockstep.workers import api

    with Listening() as listening:
        run = api.run(
            fleet,
            input_,
            output=output,
            seed=seed,
            run_dir=run_dir,
            durability=durability,
            listen=listening,
        )
    rows = summary.rows(run.summary, str(output) if output else "")
    screen.say(screen.pairs(rows), err=as_json)
    if as_json:
        screen.say_json({**run.summary, "notes": listening.notes})
    return run.exit_code
