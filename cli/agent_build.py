"""``lockstep agent build``: an agent's module of its source."""

from pathlib import Path
from typing import Any

import click

from lockstep.cli import agent, screen, toolchain
from lockstep.cli.options import json_option
from lockstep.engine.errors import UsageError


@click.command("build", short_help="Build an agent's module, and check it.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The module.  [default: beside its source]",
)
@click.option("--libc", is_flag=True, help="C with a main of its own: link WASI's libc.")
@json_option
def command(path: Path, output: Path | None, libc: bool, as_json: bool) -> int:
    """Build an agent's module of its source and check it; the same source gives the same bytes.

    \b
    Examples:
        lockstep agent build words
        lockstep agent build solver.c --output built/solver.wasm
        lockstep agent build hello.c --libc

    PATH is a C source, a folder with one (agent.c, or the only one), or with a Cargo.toml. C is
    built by zig (pip install ziglang) or clang with its lld, Rust by cargo for
    wasm32-unknown-unknown. What the compiler says is on standard error, as it is.

    Exit codes: 0, or 2 when there is no compiler, it refused, or the module is refused; then a
    module that was there before stays.
    """
    target, found = build(toolchain.source_of(path, libc), output)
    screen.say(screen.pairs(agent.rows(target, found)), err=as_json)
    if as_json:
        screen.say_json({"path": str(target), "ok": True, **found})
    return 0


def build(source: toolchain.Source, output: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Build and check a module, and put it in its place when it is good.

    Returns:
        Its path, and what `agent.describe` says of it.

    Raises:
        UsageError: it was not built or is refused; what was in its place is there still.
    """
    from lockstep.workers.scratch import Scratch

    target = output or source.module
    with Scratch() as scratch:
        built = source.build(scratch.path)
        found = agent.describe(built, target)
        _put(built.read_bytes(), target)
    return target, found


def _put(data: bytes, target: Path) -> None:
    """Write a file whole or not at all."""
    fresh = target.with_name(f".{target.name}.new")
    try:
        fresh.write_bytes(data)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
