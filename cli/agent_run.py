"""``lockstep agent run``: one agent alone, as a fleet of its own."""

import sys
from pathlib import Path
from typing import Any

import click

from lockstep.cli import agent_build, child, ending, init, screen, summary, toolchain
from lockstep.cli.kinds import MODEL, json_object
from lockstep.cli.options import json_option
from lockstep.cli.run import SEED_MAX
from lockstep.engine import toml_text
from lockstep.engine.effects import NO_MODEL
from lockstep.engine.errors import UsageError

TOKENS_MAX = 256  # Of a prompt and its answer, as in a fleet file that does not say.
RECORD_BYTES = 65_504  # Of an item, as in a fleet file that does not say.
INPUT_BYTES_MAX = 2**31
PIECE_BYTES = 1 << 20
LOG_LINES_SHOWN = 100


@click.command("run", short_help="Run one agent alone, as a fleet of its own.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--input", "input_", type=click.Path(path_type=Path), metavar="FILE",
              help="JSON Lines, one item each.  [default: standard input]")  # fmt: skip
@click.option("--model", type=MODEL, metavar="DIR", help="The model that it may ask.")
@click.option("--config", default="{}", metavar="JSON", help="An object that it gets at its start.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), metavar="N", help="Of every draw.")
@click.option("--run-dir", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep the run there.  [default: nothing is kept]")  # fmt: skip
@json_option
def command(
    path: Path,
    input_: Path | None,
    model: Path | None,
    config: str,
    seed: int | None,
    run_dir: Path | None,
    as_json: bool,
) -> int:
    """Run one agent alone and print what it emits: processes, limits and record are a fleet's.

    \b
    Examples:
        lockstep agent run words --input words/items.jsonl
        echo '{"text": "one two"}' | lockstep agent run words.wasm
        lockstep agent run solver.wasm --model models/small --config '{"temperature": 0.7}'
        lockstep agent run words.wasm --input items.jsonl --run-dir runs/words

    PATH is a module, or what `lockstep agent build` takes: that is built first. Every item goes to
    the agent; its output lines are printed, and what it logged is on standard error. With --run-dir
    the run is kept for `lockstep verify`, `replay --trace` and `fork`; its fleet.toml is one to go
    on from where more is to be said than there are options here.

    Exit codes: 0 done, 2 refused, 3 finished with failed items, or the agent failed or stopped,
    130 interrupted.
    """
    settings = json_object(config, "--config")
    from lockstep.workers import api
    from lockstep.workers.scratch import RUN, Scratch

    with Scratch() as scratch:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        module = _built(path) if toolchain.is_source(path) else path
        name = init.name_of(path if path.is_dir() else path.with_suffix(""), "agent")
        fleet, given = scratch.path / "fleet.toml", input_
        fleet.write_bytes(fleet_of(name, module, settings, model))
        if given is None:
            given = _from_stdin(scratch.path / "input.jsonl")
        folder = run_dir or scratch.path / RUN
        return ending.execute(
            lambda listening: api.run(
                fleet, given, seed=seed, run_dir=folder, stdin=None, listen=listening
            ),
            as_json=as_json,
            kept=run_dir is not None,
            show=_kept if run_dir else _gone,
        )


def fleet_of(name: str, module: Path, config: dict[str, Any], model: Path | None) -> bytes:
    """The fleet file of one agent.

    Args:
        name: Of the agent, and the fleet.
        module: Its module.
        config: What it gets at its start.
        model: Folder of the model that it may ask; None: there is none.

    Raises:
        UsageError: the model cannot be used, or a path or value has no form in a fleet file.
    """
    models = {"default": _model(model)} if model else {}
    table = {
        "fleet": {"name": name},
        "models": models,
        "agents": {name: {"module": str(module.resolve()), "input": "broadcast", "config": config}},
    }
    try:
        return toml_text.document(table).encode()
    except TypeError:
        raise UsageError("--config: null has no form in a fleet file; leave the key out") from None
    except UnicodeEncodeError:
        raise UsageError(f"{module!a}: the paths in a fleet file have to be UTF-8") from None


def _model(folder: Path) -> dict[str, Any]:
    """On the CPU, as what it is, and a decoder with no more tokens than it takes."""
    what = f"inspecting {folder}"
    found = child.call(what, "lockstep.cli.model:inspect_folder", str(folder), "")
    table = {"path": str(folder.resolve()), "providers": ["cpu"]}
    if "context" not in found:
        return table | {"kind": found["kind"]}
    return table | {"tokens_max": min(TOKENS_MAX, int(found["context"]))}


def _built(path: Path) -> Path:
    module, _ = agent_build.build(toolchain.source_of(path))
    screen.tell("built", module)
    return module


def _from_stdin(path: Path) -> Path:
    """Items of standard input, in a file; they are checked where their name can be told."""
    from lockstep.engine.items import parse_input

    if screen.terminal(sys.stdin):
        screen.tell("note", "items come from standard input, one JSON object a line, until Ctrl-D")
    with open(path, "wb") as file:
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            file.write(piece)
            if file.tell() > INPUT_BYTES_MAX:
                raise UsageError(f"standard input: more than {INPUT_BYTES_MAX} bytes")
    parse_input(path.read_bytes(), "standard input", RECORD_BYTES)
    return path


def _kept(found: dict[str, Any], _output: str, notes: list[str], as_json: bool) -> None:
    """What came of a run that stays."""
    _show(found, summary.go_on(found, Path(found["run"])))
    if as_json:
        screen.say_json({**found, "notes": notes})


def _gone(found: dict[str, Any], _output: str, notes: list[str], as_json: bool) -> None:
    """What came of one of which nothing stays."""
    keep: list[tuple[str, object]] = [
        ("next", "--run-dir DIR keeps the run, for lockstep replay DIR --trace")
    ]
    _show(found, keep if found["exit_code"] else [])
    if as_json:
        screen.say_json({**found, "run": None, "output": None, "notes": notes})


def _show(found: dict[str, Any], more: list[tuple[str, object]]) -> None:
    """Output lines on standard output; figures, failures and logs on standard error."""
    from lockstep.workers import Run

    run = Path(found["run"])
    for line in Run(run, found).output:
        screen.say_json(line)
    rows = [
        ("state", summary.state(found)),
        ("items", "{items_in} in, {items_out} out, {items_failed} failed".format(**found)),
        ("work", "{turns} turns, {requests} requests, {steps} steps".format(**found)),
        ("digest", found["digest"]),
        *summary.failed(found, run),
        *_logged(run),
        *more,
    ]
    screen.say(screen.pairs(rows), err=True)
    if any(NO_MODEL in failure for failure in found["failures"]):
        screen.tell(
            "error", "the agent asks a model, and has none: --model DIR gives it one", "red"
        )


def _logged(run: Path) -> list[tuple[str, object]]:
    """The first lines that the agent logged."""
    lines = [
        line
        for path in sorted((run / "logs").glob("*.log"))
        for line in path.read_text("utf-8", "replace").splitlines()
    ]
    more = len(lines) - LOG_LINES_SHOWN
    shown = [*lines[:LOG_LINES_SHOWN], *([f"and {more} more lines"] if more > 0 else [])]
    return [("log" if n == 0 else "", line) for n, line in enumerate(shown)]
