"""``lockstep bench compare``."""

import sys
from pathlib import Path

import click

from lockstep.cli import screen
from lockstep.cli.bench import tell
from lockstep.cli.options import json_option
from lockstep.engine.errors import EXIT_OK, EXIT_UNFINISHED, UsageError


@click.command("compare", short_help="What changed between two reports, beyond noise.")
@click.argument("before", type=click.Path(path_type=Path, exists=True))
@click.argument("after", type=click.Path(path_type=Path, exists=True))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also write it as a page.")  # fmt: skip
@click.option("--fail-on-regression", is_flag=True, help="Exit code 3 when a ratio got worse.")
@json_option
def command(
    before: Path, after: Path, html: Path | None, fail_on_regression: bool, as_json: bool
) -> int:
    """Compare two reports of `bench all`, or what `bench GROUP --json` printed into files.

    \b
    Examples:
        lockstep bench compare bench-1 bench-2
        lockstep bench compare bench-1 bench-2 --html compared.html
        lockstep bench compare main.json mine.json --fail-on-regression

    A ratio has changed when its two intervals do not touch. Across machines ratios alone are
    compared, and it is said loudly that there are two.

    Exit codes: 0, 2 for a file that is no report, 3 with --fail-on-regression.
    """
    from lockstep.bench import comparing, told

    found = comparing.compare(
        comparing.load(before), comparing.load(after), (str(before), str(after))
    )
    for line in told.comparison_text(found).splitlines():
        loud = line.startswith(told.OTHER_MACHINE_HEAD)
        stream = sys.stderr if as_json else sys.stdout
        said = screen.escape(line)
        screen.say(screen.paint(said, "yellow", stream) if loud else said, err=as_json)
    if html is not None:
        _write(html, told.comparison_page(found))
    if as_json:
        screen.say_json(found.to_json())
    worse = found.counts()[comparing.WORSE]
    return EXIT_UNFINISHED if fail_on_regression and worse else EXIT_OK


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    tell(f"wrote {path}")
