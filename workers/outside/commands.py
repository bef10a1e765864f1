"""Commands of tools, found and checked before anything starts.

Imports nothing heavy: it is part of what every program that calls us loads.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet, Tool
from lockstep.engine.record import HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Command:
    """A tool, ready to be started.

    Attributes:
        name: Of the tool.
        path: The program, absolute.
        arguments: With the program's name as the fleet file writes it.
        folder: Working folder.
        env: The whole environment.
        timeout_s: Wall time.
        output_bytes_max: Of standard output.
        answer_bytes_max: Of an answer, also of one that says what failed.
        parallel_max: Calls at once.
    """

    name: str
    path: str
    arguments: tuple[str, ...]
    folder: str
    env: dict[str, str]
    timeout_s: float
    output_bytes_max: int
    answer_bytes_max: int
    parallel_max: int


def find_commands(fleet: Fleet, folder: Path, where: str) -> tuple[Command, ...]:
    """Every tool's command, ready to be started.

    Args:
        fleet: Its tools.
        folder: Of the fleet file: working folder of every command.
        where: The fleet file, for messages.

    Raises:
        UsageError: a program is not there or cannot be executed, or its answers could not be
            delivered; the tool is named.
    """
    answer_bytes_max = fleet.record_bytes_max - HEADER_BYTES
    return tuple(
        _command(tool, folder, f"{where}: [tools.{tool.name}]", answer_bytes_max)
        for tool in fleet.tools
    )


def _command(tool: Tool, folder: Path, where: str, answer_bytes_max: int) -> Command:
    if tool.output_bytes_max > answer_bytes_max:
        raise UsageError(
            f"{where}: output_bytes_max is {tool.output_bytes_max}, expected at most "
            f"{answer_bytes_max}: an answer is a record ([fleet] record_bytes_max)"
        )
    return Command(
        name=tool.name,
        path=_program(tool.command[0], folder, where),
        arguments=tool.command,
        folder=str(folder),
        env=dict(tool.env),
        timeout_s=tool.timeout_ms / 1000,
        output_bytes_max=tool.output_bytes_max,
        answer_bytes_max=answer_bytes_max,
        parallel_max=tool.parallel_max,
    )


def _program(name: str, folder: Path, where: str) -> str:
    """The program's file: with ``/`` relative to the folder, else from this process' PATH."""
    if "/" not in name:
        found = shutil.which(name)
        if found is None:
            raise UsageError(f"{where}: command {name!r} is not in any folder of PATH")
        return str(Path(found).absolute())
    path = folder / name
    if not path.exists():
        raise UsageError(f"{where}: command {name!r}: no such file ({path})")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError(f"{where}: command {name!r}: cannot be executed ({path})")
    return str(path)
