"""A sweep while it is under way."""

import io
from typing import Any

import pytest

from lockstep.cli.sweeping import Sweeping

BEGUN = {"folder": "sweeps/x-1", "runs": 4, "finished": 1, "jobs": 2, "why": "2 cores / 1 = 2"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _row(number: int, **more: Any) -> dict[str, Any]:
    row = {"run": number, "seed": number, "exit_code": 0, "state": "finished", "reason": ""}
    return {**row, "digest": "ab" * 32, "items_failed": 0, "wall_s": 1.25, **more}


def test_on_no_terminal_each_run_that_ended_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Sweeping() as sweeping:
        sweeping("sweep", 0, BEGUN)
        sweeping("start", 2, "seed=1 a=2")
        sweeping("progress", 2, {"items": 3, "items_done": 1, "elapsed_s": 0.5, "tokens": 40})
        sweeping("note", 2, "no input was given")
        sweeping("note", 3, "no input was given")
        sweeping("row", 2, _row(2))
        sweeping("row", 3, _row(3, exit_code=3, state="stopped", reason="turns_max\x1b[0m"))
    lines = [line.removeprefix("lockstep: ") for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "sweep folder: sweeps/x-1",
        "sweep: 1 of 4 runs are done already",
        "sweep: 2 at a time (2 cores / 1 = 2)",
        "warning: run 2: no input was given",
        "2/4: run 2 seed=1 a=2: finished, digest abababababab, 1.2 s",
        "3/4: run 3 seed=3: stopped: turns_max\\x1b[0m, digest abababababab, 1.2 s",
    ]


def test_on_a_terminal_a_table_is_redrawn_and_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Sweeping(stream) as sweeping:
        sweeping("sweep", 0, BEGUN)
        sweeping("start", 2, "seed=1")
        sweeping("start", 3, "seed=2")
        sweeping("progress", 3, {"items": 3, "items_done": 1, "elapsed_s": 0.5, "tokens": 40})
        head, *lines = sweeping.render(80, 24)
        assert head.startswith("[######------------------] 1/4 runs  0:0")
        assert lines == [
            "     2  starts  seed=1",
            "     3    1/3 items      80 tok/s  0:00  seed=2",
        ]
        assert sweeping.render(80, 3)[1:] == [lines[0], "... 1 more run"]
        sweeping("row", 3, _row(3))
        assert "about " in sweeping.render(80, 24)[0] and len(sweeping.render(80, 24)) == 2
    shown = stream.getvalue()
    assert shown.endswith("\x1b[2A\r\x1b[J")
    assert all(len(line) < 80 for line in shown.replace("\x1b[K", "").split("\n"))
