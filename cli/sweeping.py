"""What a sweep tells while it is under way, on standard error: a table that is redrawn on a
terminal, a line for each run elsewhere.
"""

import os
import sys
import time
from types import TracebackType
from typing import Any, TextIO

from lockstep.cli import screen
from lockstep.cli.progress import BAR_MAX, Rate, bar, clock, columns

REDRAW_S = 0.1
RUNS_SHOWN_MAX = 16  # Lines of running runs.


class Sweeping:
    """A listener for `workers.sweep`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._given = stream

    def __enter__(self) -> "Sweeping":
        self._stream = self._given if self._given is not None else sys.stderr
        self._active = screen.terminal(self._stream)
        self._began_s = time.monotonic()
        self._drawn_s, self._lines = 0.0, 0
        self._runs = self._done = self._before = self._failed = 0
        self._live: dict[int, tuple[str, dict[str, Any], Rate]] = {}
        self._noted: dict[str, None] = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def __call__(self, what: str, number: int, value: Any) -> None:
        """Never raises: the sweep must not hang on how it is shown."""
        match what:
            case "sweep":
                self._runs = value["runs"]
                self._done = self._before = value["finished"]
                screen.tell("sweep folder", value["folder"])
                if self._before:
                    screen.tell("sweep", f"{self._before} of {self._runs} runs are done already")
                screen.tell("sweep", f"{value['jobs']} at a time ({value['why']})")
            case "start":
                self._live[number] = (str(value), {}, Rate())
            case "progress" if number in self._live:
                text, _, rate = self._live[number]
                rate.update(value.get("elapsed_s", 0.0), value.get("tokens", 0))
                self._live[number] = (text, value, rate)
            case "note":
                self._note(f"run {number}: " if number else "", str(value))
            case "row":
                self._row(number, value)
        self._draw(at_once=what in ("row", "start"))

    def _note(self, whose: str, text: str) -> None:
        """What a run notes every run may note: it is told once."""
        if text in self._noted:
            return
        self._noted[text] = None
        self._clear()
        screen.tell("warning", f"{whose}{text}", "yellow")

    def _row(self, number: int, row: dict[str, Any]) -> None:
        text, _, _ = self._live.pop(number, (f"seed={row['seed']}", {}, Rate()))
        self._done += 1
        self._failed += row["exit_code"] != 0
        if self._active and row["exit_code"] == 0:
            return
        self._clear()
        digest = f", digest {row['digest'][:12]}" if row["digest"] else ""
        why = f": {row['reason']}" if row["reason"] else ""
        bad = f", {row['items_failed']} items failed" if row["items_failed"] else ""
        took = f", {row['wall_s']:.1f} s" if row["wall_s"] is not None else ""
        screen.tell(
            f"{self._done}/{self._runs}",
            f"run {number} {text}: {row['state']}{why}{bad}{digest}{took}",
            "yellow" if row["exit_code"] else "",
        )

    def _draw(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if not self._active or not self._runs or not (at_once or now - self._drawn_s > REDRAW_S):
            return
        self._drawn_s = now
        width, height = columns(self._stream), _height(self._stream)
        # The last column stays free: some terminals wrap as soon as it is written.
        lines = [line[: width - 1] for line in self.render(width, height)]
        self._write(self._home() + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._lines = len(lines)

    def render(self, width: int, height: int) -> list[str]:
        """The lines, not yet cut: how far the sweep is, and a line for each run that runs."""
        elapsed_s = time.monotonic() - self._began_s
        made = self._done - self._before
        left_s = elapsed_s / made * (self._runs - self._done) if made else 0.0
        share = bar(self._done / self._runs, min(BAR_MAX, max(width - 40, 8)))
        head = f"{share} {self._done}/{self._runs} runs  {clock(elapsed_s)}"
        head += f"  about {clock(left_s)} left" if made and self._done < self._runs else ""
        head += f"  {self._failed} failed" if self._failed else ""
        room = max(min(RUNS_SHOWN_MAX, height - 2), 1)
        lines = [_line(number, *self._live[number]) for number in sorted(self._live)]
        more = [f"... {len(lines) - room} more run"] if len(lines) > room else []
        return [head, *lines[:room], *more]

    def _home(self) -> str:
        return f"\x1b[{self._lines}A" if self._lines else ""

    def _clear(self) -> None:
        """Take the table away, for a message or at the end."""
        if self._lines:
            self._write(f"{self._home()}\r\x1b[J")
            self._lines = 0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _line(number: int, text: str, value: dict[str, Any], rate: Rate) -> str:
    if not value:
        return f"{number:6}  starts  {screen.escape(text)}"
    done = f"{value.get('items_done', 0)}/{value.get('items', 0)} items"
    elapsed_s = float(value.get("elapsed_s", 0.0))
    figures = f"{done:>11}  {rate.value:6.0f} tok/s  {clock(elapsed_s)}"
    return f"{number:6}  {figures}  {screen.escape(text)}"


def _height(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).lines or 24
    except (OSError, ValueError):
        return 24
