"""``lockstep init``: a fleet folder that works."""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from lockstep.cli import screen
from lockstep.cli.options import json_option
from lockstep.engine.errors import UsageError

STARTER = Path(__file__).parent / "starter"
NAME = "NAME"  # In texts of the starter: what the fleet (or agent) is called.
NAMED = ("fleet.toml", "README.md", "Cargo.toml")
NAME_CHARS_MAX = 48


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@json_option
def command(folder: Path, as_json: bool) -> int:
    """Make a fleet folder that works: fleet file, agents with their C source, a model, an input.

    \b
    Examples:
        lockstep init first
        lockstep run first/fleet.toml --input first/input.jsonl

    Nothing is fetched. The folder is made, or has to be empty.

    Exit codes: 0, or 2 when there is something in the folder, or it cannot be written.
    """
    name = name_of(folder)
    made = make(folder, name)
    fleet, given = (shlex.quote(str(folder / file)) for file in ("fleet.toml", "input.jsonl"))
    steps = [
        f"lockstep run {fleet} --input {given}",
        f"lockstep verify runs/{name}-1",
        f"read {folder / 'README.md'}, change the fleet file and the agents",
        "lockstep agent new DIR",
    ]
    rows = [("made", folder), *(("next" if n == 0 else "", text) for n, text in enumerate(steps))]
    screen.say(screen.pairs(rows), err=as_json)
    if as_json:
        screen.say_json({"folder": str(folder), "fleet": name, "files": made, "next": steps})
    return 0


def make(folder: Path, name: str, starter: Path | None = None) -> list[str]:
    """Fill a folder with the starter.

    Args:
        folder: Is made, or empty.
        name: Of the fleet.
        starter: What is copied; None: a fleet's.

    Returns:
        The files, by their paths in it.

    Raises:
        UsageError: there is something in it, or it cannot be written; nothing is left in it.
    """
    starter = starter or STARTER
    there = folder.is_dir()
    if folder.exists() and not there:
        raise UsageError(f"{folder}: not a folder; nothing was touched")
    if there and any(folder.iterdir()):
        raise UsageError(f"{folder}: the folder is not empty; nothing was touched")
    files = [path.relative_to(starter) for path in _files(starter)]
    try:
        for file in files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            data = (starter / file).read_bytes()
            target.write_bytes(data.replace(NAME.encode(), name.encode()) if str(file) in NAMED
                               else data)  # fmt: skip
    except OSError as error:
        _remove(folder, there)
        raise UsageError(f"{folder}: cannot be filled: {error.strerror}; it is as it was") from None
    return [str(file) for file in files]


def name_of(path: Path, otherwise: str = "fleet") -> str:
    """A name for a fleet or an agent, after its path."""
    text = re.sub(r"[^A-Za-z0-9_-]+", "-", path.resolve().name).strip("-")
    return text[:NAME_CHARS_MAX] or otherwise


def _files(folder: Path) -> Iterator[Path]:
    """Of a folder and those in it, by name; links are files like others here."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _remove(folder: Path, there: bool) -> None:
    """Undo `make`: what is in the folder is ours."""
    with suppress(OSError):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there:
            folder.rmdir()
