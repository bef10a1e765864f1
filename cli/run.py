"""``lockstep run``."""

import sys
from pathlib import Path
from typing import Any

import click

from lockstep.cli import screen
from lockstep.cli.listen import Listening

SEED_MAX = 2**63 - 1


@click.command(
    "run",
    short_help="Run a fleet to its end.",
    context_settings={"allow_extra_args": True},  # Refused below, with what was meant.
)
@click.pass_context
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
    help="In place of the fleet's. strict: logical time decides, so that runs repeat; arrival: "
    "everything as it comes, recorded.",
)
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
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
    second one at once; `lockstep cancel` cancels an item or the run from another terminal.

    Exit codes: 0 done, 2 refused (nothing was made), 3 finished with failed items or agents, or
    stopped, 130 interrupted.
    """
    _nothing_extra(context, input_)
    from lockstep.workers import api
    from lockstep.workers.launch import Interrupted

    with Listening() as listening:
        try:
            found = api.run(
                fleet,
                input_,
                output=output,
                seed=seed,
                run_dir=run_dir,
                durability=durability,
                order=order or "",
                listen=listening,
            ).summary
        except Interrupted as error:
            stopped: dict[str, Any] | None = getattr(error, "summary", None)
            if stopped is None:
                raise
            found = stopped
    _show(found, str(output) if output else "", listening.notes, as_json)
    return int(found["exit_code"])


def _nothing_extra(context: click.Context, input_: Path | None) -> None:
    extra = context.args
    if not extra:
        return
    meant = f"; did you mean --input {extra[0]}?" if len(extra) == 1 and input_ is None else ""
    plural = "s" if len(extra) > 1 else ""
    raise click.UsageError(f"unexpected extra argument{plural}: {' '.join(extra)}{meant}", context)


def _show(found: dict[str, Any], output: str, notes: list[str], as_json: bool) -> None:
    from lockstep.cli import summary

    stream = sys.stderr if as_json else sys.stdout
    rows = summary.rows(found, output)
    screen.say(screen.pairs(rows, loud=summary.LOUD, stream=stream), err=as_json)
    if as_json:
        screen.say_json({**found, "notes": notes})
