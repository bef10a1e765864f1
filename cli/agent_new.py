"""``lockstep agent new``: a folder with one agent that builds and runs."""

import shlex
from pathlib import Path

import click

from lockstep.cli import init, screen
from lockstep.cli.options import json_option

TEMPLATES = Path(__file__).parent / "agents"
LANGUAGES = ("c", "rust")


@click.command("new", short_help="Make a folder with one agent that builds and runs.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--language",
    type=click.Choice(LANGUAGES),
    default=LANGUAGES[0],
    show_default=True,
    help="What it is written in. Any language that makes WebAssembly will do (docs/abi.md).",
)
@json_option
def command(folder: Path, language: str, as_json: bool) -> int:
    """Make a folder with one agent: source, what it calls, how it is built, an input to try.

    \b
    Examples:
        lockstep agent new words
        lockstep agent run words --input words/items.jsonl
        lockstep agent new numbers --language rust

    Nothing is fetched, and no compiler is needed yet. The folder is made, or has to be empty.

    Exit codes: 0, or 2 when there is something in the folder, or it cannot be written.
    """
    name = init.name_of(folder, "agent")
    made = init.make(folder, name, TEMPLATES / language)
    here, given = shlex.quote(str(folder)), shlex.quote(str(folder / "items.jsonl"))
    steps = [
        f"lockstep agent run {here} --input {given}",
        f"read {folder / 'README.md'}, change the agent",
    ]
    rows = [("made", folder), *(("next" if n == 0 else "", text) for n, text in enumerate(steps))]
    screen.say(screen.pairs(rows), err=as_json)
    if as_json:
        screen.say_json({"folder": str(folder), "agent": name, "language": language,
                         "files": made, "next": steps})  # fmt: skip
    return 0
