"""``lockstep model inspect`` and ``lockstep model check``; ``pull`` has a file of its own."""

from pathlib import Path
from typing import Any

import click

from lockstep.cli import child, screen
from lockstep.cli.kinds import MODEL
from lockstep.cli.verbs import Verbs
from lockstep.engine.errors import EXIT_DIVERGED, EXIT_OK, EXIT_UNFINISHED


@click.group(
    "model",
    cls=Verbs,
    modules={"pull": "lockstep.cli.pull"},
)
def command() -> None:
    """Models are folders: an ONNX file, its tokenizer and its configuration.

    \b
    Examples:
        lockstep model pull onnx-community/Qwen2.5-0.5B-Instruct --file onnx/model_q4.onnx
        lockstep model inspect models/small
        lockstep model check models/small
    """


FILE = click.option(
    "--file",
    metavar="NAME",
    default="",
    help="Which ONNX file of the folder, where there are several.",
)


@command.command("inspect", short_help="Say what a model folder is, without running it.")
@click.argument("folder", metavar="DIR", type=MODEL)
@FILE
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def inspect(folder: Path, file: str, as_json: bool) -> int:
    """Say what a model folder is, without running it.

    \b
    Examples:
        lockstep model inspect models/small
        lockstep model inspect models/small --file onnx/model_q4.onnx
        lockstep model inspect models/small --json | jq .sha256

    Exit codes: 0, or 2 when the folder cannot be used.
    """
    found = child.call(
        f"inspecting {folder}", "lockstep.cli.model:inspect_folder", str(folder), file
    )
    rows = _rows if "layers" in found else _tensor_rows
    screen.say(screen.pairs(rows(found)), err=as_json)
    if as_json:
        screen.say_json(found)
    return EXIT_OK


@command.command("check", short_help="Generate with a model and prove which equality holds.")
@click.argument("folder", metavar="DIR", type=MODEL)
@click.option(
    "--require-class",
    type=click.Choice(["run", "batch-invariant"]),
    default="run",
    show_default=True,
    help="The weakest class that is good enough.",
)
@FILE
@click.option("--json", "as_json", is_flag=True,
              help="The last line of standard output is one JSON object.")  # fmt: skip
def check(folder: Path, require_class: str, file: str, as_json: bool) -> int:
    """Load a model, generate with it, and prove how far its bits can be relied upon.

    \b
    Examples:
        lockstep model check models/small
        lockstep model check models/small --require-class batch-invariant

    The last line is the proven class: "run" (the same plans give the same bits), or
    "batch-invariant" (and a row alone gives the bits that it gives in a batch). Tokens are
    compared with the folder's expected.json where it has one. A folder for kind = "tensors" is
    run on made inputs: "run", "none", or "untried" where it does not take them.

    Exit codes: 0 good, 2 the folder cannot be used, 3 other tokens than expected or a weaker
    class than required, 4 two runs of the model differ.
    """
    found = child.call(
        f"checking {folder}", "lockstep.cli.model:check_folder", str(folder), require_class, file
    )
    for line in found["lines"]:
        screen.say(screen.one_line(line), err=as_json)
    if as_json:
        screen.say_json(found["facts"])
    if found["facts"]["ok"]:
        return EXIT_OK
    return EXIT_DIVERGED if found["facts"]["class"] == "none" else EXIT_UNFINISHED


def inspect_folder(path: str, file: str) -> dict[str, Any]:
    """In the child: `workers.inference.check.inspect`."""
    from lockstep.workers.inference import check as checks

    return checks.inspect(path, file)


def check_folder(path: str, require_class: str, file: str) -> dict[str, Any]:
    """In the child: `workers.inference.check.check`."""
    from lockstep.workers.inference import check as checks

    report = checks.check(path, require_class, file=file)
    return {"lines": list(report.lines), "facts": report.facts}


def _rows(found: dict[str, Any]) -> list[tuple[str, object]]:
    expected = found["expected_cases"]
    ends = f"ends {found['eos']}" + (f" ({found['eos_from']})" if found["eos_from"] else "")
    windows = [f"{tokens} tokens in {n} layers" for tokens, n in found["windows"].items()]
    return [
        ("folder", found["path"]),
        ("layout", found["layout"]),
        ("file", found["file"]),
        ("kind", found["kind"]),
        ("layers", found["layers"]),
        ("heads", f"{found['kv_heads']} of keys and values, {found['head_dim']} wide"),
        ("vocabulary", f"{found['vocab']}, begins {found['bos']}, {ends}"),
        ("context", f"{found['context']} tokens"),
        *_list("because", [found["context_why"]] if found["context_why"] else []),
        ("keys, values", f"{found['dtype']}, {found['kv_bytes_per_token']} bytes per token"),
        ("weights", "int4 blocks" if found["int4"] else "as in the graph"),
        ("path", found["path_of_execution"]),
        *_list("because", [found["path_why"]] if found["path_why"] else []),
        ("cost", found["cost"]),
        ("logits", found["logits"]),
        *_list("windows", windows),
        ("opsets", _opsets(found)),
        ("chat template", _template(found)),
        *_list("tokens", [f"{name} {text!r}" for name, text in found["special_tokens"].items()]),
        ("generation_config", _generation(found["generation_config"])),
        *_list("not taken", found["notes"]),
        ("expected.json", f"{expected} cases" if expected else "none"),
        *_list("inputs", found["inputs"]),
        *_list("outputs", found["outputs"]),
        ("operators", ", ".join(found["operators"])),
        *_hashes(found),
    ]


def _tensor_rows(found: dict[str, Any]) -> list[tuple[str, object]]:
    """Of a folder for `kind = "tensors"`."""
    return [
        ("folder", found["path"]),
        ("file", found["file"]),
        ("kind", found["kind"]),
        ("no decoder", found["no_decoder"]),
        ("embeddings", found["embeds"] or f"no: {found['embeds_not']}"),
        ("opsets", _opsets(found)),
        *_list("inputs", found["inputs"]),
        *_list("outputs", found["outputs"]),
        ("operators", ", ".join(found["operators"])),
        *_hashes(found),
    ]


def _opsets(found: dict[str, Any]) -> str:
    return ", ".join(f"{name or 'onnx'} {n}" for name, n in found["opsets"].items())


def _hashes(found: dict[str, Any]) -> list[tuple[str, object]]:
    return _list("sha256", [f"{digest}  {name}" for name, digest in found["sha256"].items()])


def _template(found: dict[str, Any]) -> str:
    why = found["chat_template_error"]
    if why:
        return f"cannot be used, messages are refused and prompts are served: {why}"
    return "yes" if found["chat_template"] else "no"


def _generation(found: dict[str, Any]) -> str:
    """Its values are never taken silently: say so beside them."""
    if found["error"]:
        return f"not taken: {found['error']}"
    values = ", ".join(f"{name} {value!s:.40}" for name, value in found["values"].items())
    return f'not taken, unless a request says "defaults": "model": {values or "greedy"}'


def _list(label: str, lines: list[str]) -> list[tuple[str, object]]:
    return [(label if n == 0 else "", line) for n, line in enumerate(lines)]
