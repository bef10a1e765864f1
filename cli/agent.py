"""``lockstep agent check``; ``new``, ``build`` and ``run`` have files of their own."""

import json
import os
from pathlib import Path
from typing import Any

import click

from lockstep.cli import screen
from lockstep.cli.verbs import Verbs


@click.group(
    "agent",
    cls=Verbs,
    modules={verb: f"lockstep.cli.agent_{verb}" for verb in ("new", "build", "run")},
    related={
        "new": ("agent run", "agent build", "init"),
        "build": ("agent check", "agent run"),
        "run": ("agent build", "run", "replay"),
    },
)
def command() -> None:
    """Agents are WebAssembly modules.

    \b
    Examples:
        lockstep agent new words
        lockstep agent run words --input words/items.jsonl
        lockstep agent build words
        lockstep agent check words/agent.wasm
    """


@command.command("check", short_help="Say what a module is, or why it is refused.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def check(path: Path, as_json: bool) -> int:
    """Compile a module in a limited process and say what it is, or why it is refused.

    \b
    Examples:
        lockstep agent check solver.wasm
        lockstep agent check solver.wasm --json | jq .imports

    Exit codes: 0 accepted, 2 refused.
    """
    found = describe(path)
    screen.say(screen.pairs(rows(path, found)), err=as_json)
    if as_json:
        screen.say_json({"path": str(path), "ok": True, **found})
    return 0


def describe(path: Path, shown: Path | None = None) -> dict[str, Any]:
    """What a module offers, found out where a compile bomb harms nobody.

    Args:
        path: The module.
        shown: What messages call it, if not by its path.

    Raises:
        UsageError: it cannot be read, is refused, or was ended by a limit.
    """
    from lockstep.workers.launch import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # Before numpy is loaded: threads would forbid the fork.
    from lockstep.workers import spawn
    from lockstep.workers.agent.modules import MODULE_BYTES_MAX
    from lockstep.workers.crew import COMPILE_BYTES_MAX, COMPILE_S_MAX
    from lockstep.workers.prepare import read_file

    wasm = read_file(path, "module", MODULE_BYTES_MAX)
    where = str(shown or path)

    def body() -> bytes:
        from lockstep.workers.agent import modules

        return json.dumps(modules.describe(wasm, path=where)).encode()

    answer = spawn.call(f"{where}: compiling it", body, COMPILE_S_MAX, COMPILE_BYTES_MAX)
    found: dict[str, Any] = json.loads(answer)
    return found


def rows(path: Path, found: dict[str, Any]) -> list[tuple[str, object]]:
    """Labels and values of what `describe` found."""
    memory = found["memory"]
    bound = f"{memory['pages_max']} at most" if memory["pages_max"] is not None else "no bound"
    start = memory["pages_min"]
    imports = found["imports"] or ["none"]
    return [
        ("module", path),
        ("form", f"{found['form']}, begins at {found['entry']}"),
        ("memory", f"{start} pages ({start * 64} KiB) at the start, {bound} of its own"),
        ("size", f"{found['bytes']} bytes"),
        ("sha256", found["sha256"]),
        *(("imports" if n == 0 else "", line) for n, line in enumerate(imports)),
        ("exports", ", ".join(found["exports"])),
        ("result", "accepted"),
    ]
