"""The progress line and what is printed around it."""

import io
from typing import Any

import pytest

from lockstep.cli import screen
from lockstep.cli.progress import Progress, Rate, render
from lockstep.cli.quiet import ChildrenQuiet

REPORT: dict[str, Any] = {
    "items_done": 12,
    "items": 40,
    "tokens": 900,
    "steps": 77,
    "turns": 130,
    "requests_open": 5,
    "waits_for": "solver.3",
    "elapsed_s": 65.2,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (79, "[#####------------] 12/40  246 tok/s  1:05  waits for solver.3  5 open  step 77"),
        (39, "[####----------] 12/40  246 tok/s  1:05"),
        (20, "[###---------] 12/40"),
        (5, "12/40"),
        (3, "12/"),
        (0, ""),
    ],
)
def test_what_does_not_fit_is_left_out(width: int, expected: str) -> None:
    assert render(REPORT, 246.4, width) == expected


@pytest.mark.parametrize("width", range(130))
def test_no_width_is_ever_exceeded(width: int) -> None:
    assert len(render(REPORT, 246.4, width)) <= width


def test_forty_columns_show_bar_items_rate_and_time() -> None:
    line = render(REPORT, 246.4, 39)
    assert line.startswith("[##") and "12/40" in line and "246 tok/s" in line and "1:05" in line


def test_a_wide_line_names_the_agent_that_is_waited_for_and_the_requests() -> None:
    line = render(REPORT, 0, 120)
    assert "waits for solver.3" in line and "5 open" in line


def test_a_run_without_items_counts_turns() -> None:
    assert render(REPORT | {"items": 0, "items_done": 0}, 0, 60).startswith("turn 130")


def test_control_characters_of_a_name_are_escaped() -> None:
    assert "\x1b" not in render(REPORT | {"waits_for": "\x1b[2J"}, 0, 120)


def test_the_rate_comes_from_differences_and_never_divides_by_zero() -> None:
    rate = Rate()
    assert rate.update(0.0, 0) == 0.0
    assert rate.update(2.0, 100) == 50.0
    assert rate.update(2.0, 500) == 50.0
    assert rate.update(3.0, 100) == pytest.approx(35.0)


def test_a_terminal_sees_a_line_that_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    progress = Progress(stream)
    progress.update(REPORT)
    progress.clear()
    progress.clear()
    assert stream.getvalue().startswith("\r[") and stream.getvalue().endswith("\r\x1b[K")
    assert stream.getvalue().count("\r") == 2 and "\x1b[2m" not in stream.getvalue()


@pytest.mark.parametrize("term", ["dumb", ""])
def test_no_terminal_no_line(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    piped, dumb = io.StringIO(), Terminal()
    Progress(piped).update(REPORT)
    Progress(dumb).update(REPORT)
    assert piped.getvalue() + dumb.getvalue() == ""


def test_escaping_keeps_text_and_shows_the_rest() -> None:
    assert screen.escape("ok ü 日") == "ok ü 日"
    assert screen.escape("\x1b[31m\n\x9b\u202e\udcff") == "\\x1b[31m\\x0a\\x9b\\u202e\\udcff"
    assert screen.one_line("  a\n\n  b\x07 ") == "a b\\x07"


def test_a_table_aligns_numbers_to_the_right() -> None:
    assert screen.table(("agent", "pid"), [("a", 1234), ("long.name", None)]) == (
        "agent       pid\na          1234\nlong.name     -"
    )


def test_what_children_write_goes_to_a_file_and_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import os

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ChildrenQuiet():
        os.write(2, b"first\nTraceback \x1b[2J\n")
    err = capfd.readouterr().err
    (kept,) = tmp_path.glob("lockstep/reports/lockstep-stderr-*.txt")
    assert kept.read_bytes() == b"first\nTraceback \x1b[2J\n"
    assert err.count("\n") == 1 and "Traceback \\x1b[2J" in err and str(kept) in err
