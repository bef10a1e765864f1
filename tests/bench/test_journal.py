"""`bench journal`: every part of it, small."""

from pathlib import Path

import pytest

from lockstep.bench import contestant, models
from lockstep.bench.groups import journal
from lockstep.bench.report import Report
from lockstep.engine.fleet_file import parse
from lockstep.engine.journal import format as journal_format
from lockstep.workers.journal_reading import read_journal


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small model in place of the large one."""
    pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(journal, "AGENTS", 4)
    monkeypatch.setattr(journal, "TOKENS", 4)
    monkeypatch.setattr(journal, "ROUNDS", 1)
    return models.small(lambda _: None)


def test_the_fleet_has_a_row_for_every_agent() -> None:
    fleet = parse(journal.fleet(Path("model"), 3, deal=True).encode(), "fleet.toml")
    assert len(fleet.agents) == 16 == fleet.models[0].rows_max
    assert fleet.models[0].tokens_max >= journal.PROMPT_BYTES + journal.TOKENS
    assert fleet.recovery.window_s == journal.WINDOW_S


def test_a_level_is_priced_against_a_run_that_keeps_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ROUND_TURNS_QUICK", 8)
    report = Report("journal", {})
    journal._price(report, "async", model, quick=True)
    assert 0.1 < report.ratios["async"].median < 10


@pytest.mark.parametrize("bare", [False, True])
def test_only_a_bare_run_keeps_no_history(model: Path, bare: bool) -> None:
    text = journal.fleet(model, 2, deal=True)
    with contestant._folder() as folder:
        with contestant._started(folder, text, "{}\n" * 8, "memory", ["bare"] * bare) as line:
            line.ask(turns=0)
        found = read_journal(folder / "run")
    assert (not list(found.bodies(journal_format.HISTORY))) == bare


def test_a_run_is_played_again_and_records_are_counted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report("journal", {})
    journal._replay(report, model, 2)
    monkeypatch.setattr(journal, "RECORDS", 200)
    journal._records(report)
    assert all(value > 0 for value, _ in report.results.values())
    assert {"replay_speedup", "bytes_per_token", "append_per_s"} <= report.results.keys()


def test_whoever_is_killed_comes_back(model: Path) -> None:
    report = Report("journal", {})
    journal._agent_back(report, "pass", 5, (12,))
    journal._inference_back(report, model)
    assert set(report.results) == {"agent_back_snapshots_12", "inference_back"}
