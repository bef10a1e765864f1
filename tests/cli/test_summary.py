"""The end of a run for people, from made summaries."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lockstep.cli import ending, screen, summary
from lockstep.cli import run as verb
from lockstep.workers import api
from lockstep.workers.launch import Interrupted


def _summary(run: Path, **more: Any) -> dict[str, Any]:
    figures = ("steps", "turns", "messages", "requests", "tokens_in", "tokens_out", "items_in",
               "items_out", "items_failed")  # fmt: skip
    return {
        **dict.fromkeys(figures, 0),
        "run": str(run),
        "wall_s": 1.0,
        "provider": "cpu",
        "digest": "d",
        "digest_text": "t",
        "agents_failed": [],
        "state": "finished",
        "exit_code": 0,
        **more,
    }


def _values(run: Path, label: str, **more: Any) -> list[str]:
    """The values of a label, with the lines that go on with it."""
    values, now = [], ""
    for name, value in summary.rows(_summary(run, **more)):
        now = name or now
        values += [str(value)] if now == label else []
    return values


def _failures(run: Path, reasons: list[str]) -> None:
    lines = [{"id": n, "error": reason} for n, reason in enumerate(reasons, 1)]
    text = "".join(json.dumps(line) + "\n" for line in [{"id": 0, "result": "error"}, *lines])
    (run / "output.jsonl").write_text(text + '{"id": 99, "agent": "a", "error": "its own"}\n')


def test_items_with_one_reason_are_one_line(tmp_path: Path) -> None:
    _failures(tmp_path, ["trapped"] * 11 + ["late"] + ["trapped"] + ["fuel"] * 2)
    assert _values(tmp_path, "failed", items_failed=15) == [
        "12 items: trapped (1, 2, 3, 4, 5, ...)",
        "item 12: late",
        "2 items: fuel (14, 15)",
    ]


def test_many_reasons_are_counted(tmp_path: Path) -> None:
    _failures(tmp_path, [f"reason {n}" for n in range(15)])
    lines = _values(tmp_path, "failed", items_failed=15)
    assert len(lines) == summary.FAILED_SHOWN + 1 and lines[-1] == "and 5 more items"


def test_failed_items_without_an_output_file_are_counted(tmp_path: Path) -> None:
    assert _values(tmp_path, "failed", items_failed=4) == ["4 items"]


def test_logs_are_named_only_when_there_are_some(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    verify, replay = f"lockstep verify {tmp_path}", f"lockstep replay {tmp_path} --agent a --trace"
    assert _values(tmp_path, "next", agents_failed=["a"]) == [replay, verify]
    (tmp_path / "logs" / "a.log").write_text("x")
    logs = f"what the agents logged is in {tmp_path / 'logs'}"
    assert _values(tmp_path, "next", agents_failed=["a"]) == [replay, logs, verify]


@pytest.mark.parametrize(
    ("exit_code", "resumable", "lines"),
    [
        (130, True, ["the journal is whole up to here; this goes on with it:",
                     "lockstep resume {run}", "lockstep verify {run}"]),
        (3, True, ["the journal is whole up to here; this goes on with it:",
                   "lockstep resume {run}", "lockstep verify {run}"]),
        (3, False, ["this is the run's own end: it would come again, and resume cannot mend it",
                    "lockstep verify {run}"]),
        (4, False, ["lockstep verify {run}"]),
        (70, False, ["a bug in Lockstep: please report it; the journal is whole, this tries again:",
                     "lockstep resume {run}", "lockstep verify {run}"]),
    ],
)  # fmt: skip
def test_a_stopped_run_says_how_to_go_on_where_that_can_help(
    tmp_path: Path, exit_code: int, resumable: bool, lines: list[str]
) -> None:
    found = _values(tmp_path, "next", state="stopped", exit_code=exit_code, resumable=resumable)
    assert found == [line.format(run=tmp_path) for line in lines]


def test_processes_that_were_brought_back_are_counted(tmp_path: Path) -> None:
    assert _values(tmp_path, "restarts", restarts=0) == []
    assert _values(tmp_path, "restarts", restarts=1) == ["1 process was brought back"]
    assert _values(tmp_path, "restarts", restarts=3) == ["3 processes were brought back"]


def test_failed_requests_are_loud_and_follow_the_work(tmp_path: Path) -> None:
    more = {"requests": 20, "requests_failed": 20, "request_failure": "prompt: 13 tokens\nand"}
    found = summary.rows(_summary(tmp_path, **more))
    labels = [label for label, _ in found]
    assert labels[labels.index("work") + 1] == "requests"
    assert dict(found)["requests"] == "20 of 20 failed, the first: prompt: 13 tokens and"
    assert _values(tmp_path, "requests", requests=2, requests_failed=1) == ["1 of 2 failed"]
    assert _values(tmp_path, "requests", requests_failed=0) == []


def test_loud_lines_are_yellow_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "coloured", lambda stream: True)
    stream: Any = SimpleNamespace()
    text = screen.pairs([("a", 1), ("requests", 2)], loud=summary.LOUD, stream=stream)
    assert text == "a         1\n\x1b[33mrequests  2\x1b[0m"


def test_the_seed_and_the_output_are_those_of_the_summary(tmp_path: Path) -> None:
    assert _values(tmp_path, "seed", seed=7) == ["7"] and _values(tmp_path, "seed") == []
    assert _values(tmp_path, "output", output="there.jsonl") == ["there.jsonl"]
    assert _values(tmp_path, "output") == [str(tmp_path / "output.jsonl")]


def _invoked(monkeypatch: pytest.MonkeyPatch, end: Any) -> Any:
    monkeypatch.setattr(api, "run", end)
    return CliRunner().invoke(verb.command, ["f.toml", "--json"], standalone_mode=False)


def test_an_interrupted_run_shows_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _summary(tmp_path, state="stopped", reason="interrupted", exit_code=130)

    def raises(*_: Any, **__: Any) -> Any:
        raise Interrupted("interrupted", found)

    for end in (raises, lambda *_, **__: SimpleNamespace(summary=found, exit_code=130)):
        result = _invoked(monkeypatch, end)
        assert result.return_value == 130
        assert json.loads(result.stdout.splitlines()[-1]) == {**found, "notes": []}
        assert "stopped: interrupted" in result.stderr


def test_an_interrupted_run_without_a_summary_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise Interrupted("stopped at once")

    result = _invoked(monkeypatch, raises)
    assert isinstance(result.exception, Interrupted) and result.stdout == ""


# -- what came from outside, and who was waited for ----------------------------------------------

STALL = {"agent": "slow", "steps": 12, "seconds": 3.25, "quanta": 4.2}
QUICK = {"agent": "quick", "steps": 3, "seconds": 0.5, "quanta": 0.01}
NOBODY = {"agent": "", "steps": 3, "seconds": 9.0}


def test_a_run_that_only_its_record_repeats_says_why(tmp_path: Path) -> None:
    outside = {"regenerative": False, "outside": ["2 answers of tools", "arrival order"]}
    (line,) = _values(tmp_path, "repeats", **outside)
    assert line == "from its record only (not regenerative): 2 answers of tools, arrival order"
    assert _values(tmp_path, "repeats", regenerative=True, outside=[]) == []


def test_refused_lines_are_counted_and_loud(tmp_path: Path) -> None:
    (line,) = _values(tmp_path, "refused", lines_refused=3)
    assert line == "3 lines of standard input were no items"
    assert "refused" in summary.LOUD and _values(tmp_path, "refused", lines_refused=0) == []


def test_stalls_that_matter_are_told_with_what_would_help(tmp_path: Path) -> None:
    more = {"run_s": 10.0, "stalled_s": 3.75, "stalls": [STALL, QUICK]}
    waited, advice = _values(tmp_path, "waited", **more)
    assert waited == ("the model for agents, 3.8 s of 10.0 s: slow 3.2 s in 12 steps, "
                      "quick 0.5 s in 3 steps")  # fmt: skip
    assert "slow burns 4.2 x fuel_per_step" in advice and "delay" in advice
    _, advice = _values(tmp_path, "waited", **more | {"stalls": [QUICK]})
    assert "quick burns 0.01 x fuel_per_step" in advice and "lookahead" in advice


@pytest.mark.parametrize(
    ("stalled_s", "stalls"), [(0.5, [STALL]), (9.0, [NOBODY]), (0.0, []), (3.0, None)]
)
def test_stalls_that_do_not_matter_are_not_told(
    tmp_path: Path, stalled_s: float, stalls: list[dict[str, Any]] | None
) -> None:
    more = {"run_s": 10.0, "stalled_s": stalled_s, "stalls": stalls}
    assert _values(tmp_path, "waited", **more) == []


# -- a run that nobody booked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("began", "known", "text", "told"),
    [
        (True, False, "stopped at once; the journal is whole", "{text}; go on with: {resume}"),
        (False, False, "interrupted; there was no run yet", "{text}"),
        (False, True, "interrupted; there was no run yet", "interrupted; go on with: {resume}"),
    ],
)
def test_the_error_of_a_run_that_nobody_booked_says_how_to_go_on(
    tmp_path: Path, began: bool, known: bool, text: str, told: str
) -> None:
    def call(listening: Any) -> Any:
        if began:
            listening("run", str(tmp_path))
        raise Interrupted(text)

    with pytest.raises(Interrupted) as error:
        ending.execute(call, as_json=True, folder=str(tmp_path) if known else "")
    assert str(error.value) == told.format(text=text, resume=f"lockstep resume {tmp_path}")


def test_ctrl_c_when_the_run_had_stopped_already_says_how_to_go_on(tmp_path: Path) -> None:
    def call(listening: Any) -> Any:
        listening("run", str(tmp_path))
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as error:
        ending.execute(call, as_json=True)
    assert str(error.value) == f"interrupted; go on with: lockstep resume {tmp_path}"
