"""``lockstep run``."""

from pathlib import Path

import click

from lockstep.cli import ending
from lockstep.cli.kinds import FLEET
from lockstep.cli.options import input_option, json_option

SEED_MAX = 2**63 - 1


@click.command(
    "run",
    context_settings={"allow_extra_args": True},  # Refused below, with what was meant.
)
@click.pass_context
@click.argument("fleet", type=FLEET)
@input_option
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
    help="In place of the fleet's. strict: logical time decides, so that runs repeat; arrival: "
    "everything as it comes, recorded.",
)
@json_option
def command(
    context: click.Context,
    fleet: Path,
    input_: Path | None,
    output: Path | None,
    seed: int | None,
    run_dir: Path | None,
    durability: str,
    order: str | None,
    as_json: bool,
) -> int:
    """Run a fleet to its end and keep everything in one folder.

    \b
    Examples:
        lockstep run fleet.toml --input items.jsonl
        lockstep run fleet.toml --input items.jsonl --output answers.jsonl --seed 7
        lockstep run fleet.toml --input items.jsonl --json | jq -r .digest

    The same fleet, input, seed and model give the same digest; `lockstep verify` runs it again
    and compares. What comes from outside (answers of tools, events of sources, cancels) is
    recorded and repeated from the record. Ctrl-C stops at the next step with the journal whole, a
    second one at once, and `lockstep resume` goes on with it; `lockstep cancel` cancels an item or
    the run from another terminal.

    Exit codes: 0 done, 2 refused (nothing was made), 3 finished with failed items or agents, or
    stopped, 130 interrupted.
    """
    nothing_extra(context, input_)
    from lockstep.workers import api

    return ending.execute(
        lambda listening: api.run(
            fleet,
            input_,
            output=output,
            seed=seed,
            run_dir=run_dir,
            durability=durability,
            order=order or "",
            listen=listening,
        ),
        as_json=as_json,
        output=str(output) if output else "",
    )


def nothing_extra(context: click.Context, input_: Path | None) -> None:
    """Refuse arguments that nobody asked for, with what was meant."""
    extra = context.args
    if not extra:
        return
    meant = f"; did you mean --input {extra[0]}?" if len(extra) == 1 and input_ is None else ""
    plural = "s" if len(extra) > 1 else ""
    raise click.UsageError(f"unexpected extra argument{plural}: {' '.join(extra)}{meant}", context)
