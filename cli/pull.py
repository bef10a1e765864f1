"""``lockstep model pull``."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockstep.cli import screen
from lockstep.cli.options import json_option
from lockstep.cli.progress import bar, clock, columns
from lockstep.engine.errors import EXIT_OK

if TYPE_CHECKING:
    from lockstep.workers.hub.pull import Pulled

REDRAW_S = 0.1
RATE_S = 10.0  # The rate is that of so long a time, about.

Point = tuple[float, int, str]  # When so many bytes were there, and what was being done.


@click.command("pull", short_help="Fetch a model from a hub, resumable, with its sha256.")
@click.argument("name", metavar="OWNER/NAME[@REVISION]")
@click.option("--file", metavar="PATH",
              help="Which model, where there are several: an ONNX file, or a folder.")  # fmt: skip
@click.option("--to", metavar="DIR", type=click.Path(path_type=Path),
              help="The folder to make.  [default: NAME]")  # fmt: skip
@json_option
def command(name: str, file: str | None, to: Path | None, as_json: bool) -> int:
    """Fetch a model from huggingface.co (or HF_ENDPOINT) into a folder.

    \b
    Examples:
        lockstep model pull onnx-community/Qwen2.5-0.5B-Instruct --file onnx/model_q4.onnx
        lockstep model pull OWNER/NAME@v1.0 --to models/small --json

    Only what a model needs comes: configuration, tokenizer, chat templates, one ONNX file with
    its weights; never pickles or code. Interrupted in any way, the same command goes on where it
    was. Every file is compared with the hub's digest; lockstep-pull.json has the commit and every
    sha256. An existing folder is never overwritten.

    HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are read by huggingface_hub.

    Exit codes: 0 all is there, 2 refused and nothing changed, 3 ended early, 130 interrupted.
    """
    from lockstep.workers.hub.pull import pull

    telling = Telling()
    try:
        pulled = pull(name, file=file, to=to, listen=telling)
    finally:
        telling.clear()
    screen.say(screen.pairs(_rows(pulled)), err=as_json)
    if as_json:
        screen.say_json(_object(pulled))
    return EXIT_OK


class Telling:
    """What is said while a pull is under way, on standard error: a plan, files, and a line."""

    def __init__(self) -> None:
        self._active = screen.terminal(sys.stderr)
        self._drawn = False
        self._next_s = 0.0
        self._points: list[Point] = []

    def __call__(self, what: str, value: Any) -> None:
        """As `workers.hub.pull` calls it."""
        if what == "progress":
            if self._active:
                self._progress(value)
            return
        self.clear()
        if what == "plan":
            _say_plan(**value)
        elif what == "file":
            screen.tell("proven", value.file)

    def _progress(self, value: dict[str, Any]) -> None:
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + REDRAW_S
        recent = [p for p in self._points if now - p[0] < RATE_S and p[2] == value["what"]]
        self._points = [*recent, (now, value["done"], value["what"])]
        text = line(value, _rate(self._points), columns(sys.stderr) - 1)
        sys.stderr.write("\r" + screen.paint(text, "dim", sys.stderr) + "\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def line(value: dict[str, Any], rate: float, width: int) -> str:
    """The progress line, ``width`` characters at most.

    Args:
        value: ``what`` is done ("fetch" or "compare"), with which ``file``, ``done`` bytes of
            ``all``.
        rate: Bytes per second.
        width: Columns.
    """
    from lockstep.workers.hub.listing import sized

    done, whole = value["done"], max(value["all"], 1)
    parts = [
        f"{sized(done)} of {sized(value['all'])}",
        f"{sized(int(rate))}/s" if rate else "",
        f"{clock((whole - done) / rate)} left" if rate else "",
        f"{'comparing ' if value['what'] == 'compare' else ''}{screen.escape(value['file'])}",
    ]
    text = bar(done / whole, 16)
    for part in filter(None, parts):
        if len(text) + 2 + len(part) <= width:
            text = f"{text}  {part}"
    return text[: max(width, 0)]


def _rate(points: list[Point]) -> float:
    (first_s, first, _), (last_s, last, _) = points[0], points[-1]
    return max(last - first, 0) / (last_s - first_s) if last_s > first_s else 0.0


def _say_plan(plan: Any, bytes: int, there: int, free: int) -> None:
    from lockstep.workers.hub.listing import sized

    screen.tell("pulling", plan)
    rows = [(taken.file, sized(taken.bytes)) for taken in plan.files]
    screen.say(screen.table(("file", "size"), rows), err=True)
    kept = f", {sized(there)} are there already" if there else ""
    screen.tell("size", f"{sized(bytes)} in {len(rows)} files{kept}; {sized(free)} are free")


def _rows(pulled: "Pulled") -> list[tuple[str, object]]:
    from lockstep.workers.hub.listing import sized

    receipt = pulled.receipt
    files = [f"{taken.sha256}  {taken.file}" for taken in receipt.files]
    return [
        ("folder", pulled.model),
        ("model", receipt),
        ("commit", receipt.commit),
        ("size", sized(sum(taken.bytes for taken in receipt.files))),
        ("fetched", sized(pulled.fetched) if pulled.fetched else "nothing: all of it was there"),
        *(("sha256" if n == 0 else "", text) for n, text in enumerate(files)),
        ("next", f"lockstep model check {pulled.model}"),
    ]


def _object(pulled: "Pulled") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(pulled.receipt),
        "folder": str(pulled.folder),
        "model": str(pulled.model),
        "bytes": sum(taken.bytes for taken in pulled.receipt.files),
        "fetched": pulled.fetched,
    }
