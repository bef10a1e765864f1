"""Kinds of arguments: what a shell offers for them, and what was meant by one that is not there.

Whether an argument is what it should be is decided by who uses it. Here only what is sure to be
wrong is refused, where the thing that was meant can be named.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable
from math import isnan
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from lockstep.engine.errors import LockstepError, UsageError

FLEET_FILE = "fleet.toml"
RUNS = "runs"  # Where runs go that are given no folder.
MODELS = "models"
DAY_S = 86_400
NAMED_MAX = 4  # Runs in a message; the rest is counted.


class _PathKind(click.Path):
    """A path of one kind."""

    def __init__(self) -> None:
        super().__init__(readable=False)  # Who reads it says what cannot be read.

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path.

        Raises:
            UsageError: it is not of the kind, and the one that was meant can be named.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if text := self.instead(path):
            raise UsageError(f"{path}: {text}")
        return path

    def instead(self, path: Path) -> str:
        """What to say of a path that is not of the kind; empty: that is for others to say."""
        return ""


class RunFolder(_PathKind):
    """The folder of a run."""

    name = "run"

    def instead(self, path: Path) -> str:
        """The run that was meant."""
        return "" if is_run(path) else _instead_of_run(path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Runs; where there are none, folders."""
        return _offered(incomplete, RUNS, is_run)


class FleetFile(_PathKind):
    """A fleet file."""

    name = "fleet"

    def instead(self, path: Path) -> str:
        """The fleet file that was meant."""
        return _instead_of_fleet(path)


class FleetOrRun(_PathKind):
    """A fleet file to run, or the folder of a run that was."""

    name = "fleet or run"

    def instead(self, path: Path) -> str:
        """The one or the other that was meant."""
        if is_run(path):
            return ""
        return _instead_of_fleet(path) or (_instead_of_run(path) if path.is_dir() else "")


class ModelFolder(_PathKind):
    """The folder of a model."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Folders with a model in them; where there are none, folders."""
        return _offered(incomplete, MODELS, is_model)


class Seconds(click.FloatRange):
    """A time of up to a day."""

    def __init__(self) -> None:
        super().__init__(0, DAY_S)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds; "nan" is in every range, and is none."""
        found = float(super().convert(value, param, ctx))
        return self.fail(f"{value!r} is not a number", param, ctx) if isnan(found) else found


RUN, FLEET, FLEET_OR_RUN = RunFolder(), FleetFile(), FleetOrRun()
MODEL, SECONDS = ModelFolder(), Seconds()


def is_run(path: Path) -> bool:
    """Whether there is a run in a folder, whatever state it is in."""
    return (path / "journal").is_dir() and (path / FLEET_FILE).is_file()


def is_model(path: Path) -> bool:
    """Whether there is something in a folder that looks like a model."""
    return any(path.glob("*.onnx")) or (path / "genai_config.json").is_file()


def runs_in(folder: Path) -> list[Path]:
    """Runs that lie in a folder, in the order of their numbers."""
    return _entries(folder, is_run)


def json_object(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object as a person gives it.

    Args:
        text: What was given.
        where: It came from there, for messages.

    Raises:
        UsageError: it is no JSON object.
    """
    from lockstep.engine.strict_json import loads_object

    try:
        return loads_object(text)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def agents(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the agents of the run that was given before, for a shell."""
    from lockstep.engine.fleet_file import parse

    path = Path(ctx.params.get("run") or "", FLEET_FILE)
    try:
        found = parse(path.read_bytes(), str(path)).agents
    except (OSError, LockstepError):
        return []
    return [agent.name for agent in found if agent.name.startswith(incomplete)]


def changeable(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Keys that `lockstep fork --set` takes, for a shell."""
    from lockstep.engine.changes import MAY_CHANGE

    return [f"{key}=" for key in MAY_CHANGE if key.startswith(incomplete)]


def verb_for(text: str) -> str:
    """What was meant by a path where a verb should be; empty: it is none that is known."""
    path = Path(text)
    if is_run(path):
        return f"; did you mean lockstep resume {text}, or verify, replay, top?"
    if text.endswith(".toml"):
        return f"; did you mean lockstep run {text}?"
    if text.endswith(".wasm"):
        return f"; did you mean lockstep agent run {text}?"
    return ""


def _instead_of_run(path: Path) -> str:
    if path.is_file():
        return f"not a folder; lockstep run {path} makes a run" if path.suffix == ".toml" else ""
    there = runs_in(path) or runs_in(path / RUNS)
    if there:
        named = ", ".join(str(run) for run in there[-NAMED_MAX:])
        more = f"{len(there) - NAMED_MAX} more and " if len(there) > NAMED_MAX else ""
        return f"no run in this folder, but below it: {more}{named}"
    if path.exists():
        return ""
    near = _nearest(path, [*runs_in(path.parent), *runs_in(path.parent / RUNS)])
    return f"no such folder; did you mean {near}?" if near else ""


def _instead_of_fleet(path: Path) -> str:
    if is_run(path):
        return f"a run, not a fleet file; lockstep resume {path} finishes it, verify runs it again"
    if path.is_dir() and (path / FLEET_FILE).is_file():
        return f"a folder, not a fleet file; did you mean {path / FLEET_FILE}?"
    if path.suffix == ".wasm":
        return f"an agent, not a fleet file; did you mean lockstep agent run {path}?"
    if path.exists():
        return ""
    near = _nearest(path, _entries(path.parent, lambda entry: entry.suffix == ".toml"))
    return f"no such file; did you mean {near}?" if near else ""


def _nearest(path: Path, paths: Iterable[Path]) -> Path | None:
    # Without the suffix, or all fleet files would be near to one another.
    known = {each.name.removesuffix(".toml"): each for each in paths}
    close = difflib.get_close_matches(path.name.removesuffix(".toml"), known, n=1)
    return known[close[0]] if close else None


def _entries(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    def readable(entry: Path) -> bool:
        try:
            return wanted(entry)
        except OSError:  # Somebody else's.
            return False

    try:
        return sorted(filter(readable, folder.iterdir()), key=_by_number)
    except OSError:
        return []


def _by_number(path: Path) -> list[str | int]:
    """So that vote-10 comes behind vote-9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _offered(incomplete: str, usual: str, wanted: Callable[[Path], bool]) -> list[CompletionItem]:
    """Paths as they would be typed on: beside what is typed, or where they usually are."""
    folder, slash, _ = incomplete.rpartition("/")
    heads = [f"{folder}{slash}"] if slash else ["", f"{usual}/"]
    found = [f"{head}{entry.name}" for head in heads for entry in _entries(Path(head), wanted)]
    items = [CompletionItem(text) for text in found if text.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="dir")]
