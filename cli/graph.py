"""``lockstep graph``."""

from collections.abc import Callable
from pathlib import Path

import click

from lockstep.cli import screen
from lockstep.cli.kinds import FLEET
from lockstep.engine.errors import EXIT_OK, UsageError
from lockstep.engine.graph import Graph, graph_of
from lockstep.engine.graph_svg import svg
from lockstep.engine.graph_text import mermaid, text

FORMATS: dict[str, Callable[[Graph], str]] = {"text": text, "mermaid": mermaid, "svg": svg}
SUFFIXES = {"": "text", ".txt": "text", ".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg"}


@click.command("graph")
@click.argument("fleet", type=FLEET)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="How to draw it.  [default: as --output ends, else text]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it; .txt, .mmd, .mermaid or .svg.  [default: standard output]",
)
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def command(fleet: Path, form: str | None, output: Path | None, as_json: bool) -> int:
    """Check a fleet file and show its topology: who gives what to whom.

    \b
    Examples:
        lockstep graph fleet.toml
        lockstep graph fleet.toml --output fleet.svg
        lockstep graph fleet.toml --format mermaid
        lockstep graph fleet.toml --json | jq '.edges[] | select(.kind == "back")'

    Nothing is started, and no module or model is read. In the text, ~~> is a way that an item
    takes only if the agent says so.

    Exit codes: 0, or 2 when the fleet is refused.
    """
    form = form or _form_of(output)
    graph = read(fleet)
    drawn = FORMATS[form](graph)
    if output is not None:
        _write(output, drawn)
    else:
        screen.say("\n".join(screen.escape(line) for line in drawn.splitlines()), err=as_json)
    if as_json:
        screen.say_json(graph.as_json())
    return EXIT_OK


def read(path: Path) -> Graph:
    """The topology of a fleet file.

    Raises:
        UsageError: it cannot be read or is refused.
    """
    from lockstep.engine.fleet_file import parse
    from lockstep.workers.prepare import FLEET_BYTES_MAX, read_file

    return graph_of(parse(read_file(path, "fleet file", FLEET_BYTES_MAX), str(path)))


def _form_of(output: Path | None) -> str:
    ending = "" if output is None else output.suffix.lower()
    if ending not in SUFFIXES:
        known = ", ".join(known for known in SUFFIXES if known)
        raise UsageError(f"{output}: no such form; known endings: {known} (or say --format)")
    return SUFFIXES[ending]


def _write(path: Path, drawn: str) -> None:
    try:
        path.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot write the graph there: {error.strerror}") from None
