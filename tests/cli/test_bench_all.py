"""`lockstep bench all` and `lockstep bench compare`, as they are called."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchreports import FakeGroup, group, report
from click.testing import CliRunner, Result

from lockstep.bench import session
from lockstep.cli.main import cli
from lockstep.engine.errors import UsageError


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGroup:
    """In place of the real group, with no other one here."""
    fake = FakeGroup("shm", [2.0])
    module = ModuleType("lockstep.bench.groups.shm")
    module.run = fake.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    return fake


def called(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *words], standalone_mode=False)


def test_a_session_writes_its_report_three_times(shm: FakeGroup, tmp_path: Path) -> None:
    result = called("all", "--groups", "shm", "--out", "mine", "--json")
    assert (result.return_value, shm.calls) == (0, 3)
    value = json.loads(result.stdout.splitlines()[-1])
    assert value["folder"] == "mine" and value["groups"]["shm"]["ratios"]["peer"]["median"] == 2.0
    folder = tmp_path / "mine"
    assert json.loads((folder / "report.json").read_text())["groups"] == value["groups"]
    assert "2 x" in (folder / "report.txt").read_text() and "2 x" in result.stderr
    assert "<svg" in (folder / "report.html").read_text()


def test_without_a_name_a_session_gets_the_next_folder(shm: FakeGroup, tmp_path: Path) -> None:
    for number in (1, 2):
        assert called("all", "--quick", "--groups", "shm").return_value == 0
        assert (tmp_path / f"bench-{number}" / "report.html").exists()
    assert shm.calls == 2


def test_an_interrupted_session_writes_what_it_has_and_goes_on(
    shm: FakeGroup, tmp_path: Path
) -> None:
    calls = iter(range(9))

    def run(quick: bool, tell: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return FakeGroup("shm", [2.0]).run(quick, lambda _: None)

    sys.modules["lockstep.bench.groups.shm"].run = run  # type: ignore[attr-defined]
    result = called("all", "--groups", "shm", "--out", "mine")
    assert result.return_value == 130 and "go on with --out mine" in result.stderr
    assert json.loads((tmp_path / "mine/report.json").read_text())["groups"]["shm"]["runs"] == 2
    assert called("all", "--groups", "shm", "--out", "mine").return_value == 0
    assert json.loads((tmp_path / "mine/report.json").read_text())["groups"]["shm"]["runs"] == 3


def test_a_session_of_nothing_is_an_error_that_says_why(shm: FakeGroup) -> None:
    shm.medians = [None]
    result = called("all", "--groups", "shm")
    assert isinstance(result.exception, UsageError) and "pip install" in str(result.exception)


def test_a_group_that_failed_beside_another_is_told_by_the_exit_code(
    shm: FakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("lockstep.bench.groups.tax")
    module.run = FakeGroup("tax", [None]).run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    result = called("all", "--groups", "shm,tax")
    assert result.return_value == 3 and "tax: not measured" in result.stdout


@pytest.mark.parametrize(
    ("groups", "said"), [("shn", "did you mean 'shm'"), (",", "is empty"), ("shm,x", "'x'")]
)
def test_groups_that_are_none_are_refused(shm: FakeGroup, groups: str, said: str) -> None:
    result = called("all", "--groups", groups)
    assert isinstance(result.exception, UsageError) and said in str(result.exception)
    assert shm.calls == 0


def test_every_group_has_an_expected_time() -> None:
    from lockstep.bench.groups import GROUPS

    assert set(session.EXPECTED_S) == set(GROUPS)


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    paths = tmp_path / "before.json", tmp_path / "after.json"
    for path, middle in zip(paths, (2.0, 1.0), strict=True):
        found = group({"pipe": (middle * 0.9, middle, middle * 1.1)})
        path.write_text(json.dumps(report({"shm": found})))
    return str(paths[0]), str(paths[1])


def test_a_comparison_says_what_changed_and_fails_only_when_asked(
    two: tuple[str, str], tmp_path: Path
) -> None:
    before, after = two
    assert called("compare", before, after).return_value == 0
    assert called("compare", before, after, "--fail-on-regression").return_value == 3
    assert called("compare", after, before, "--fail-on-regression").return_value == 0
    result = called("compare", before, after, "--json", "--html", str(tmp_path / "c.html"))
    value = json.loads(result.stdout.splitlines()[-1])
    assert (value["worse"], value["better"], value["same_machine"]) == (1, 0, True)
    assert value["changes"][0]["verdict"] == "worse"
    assert "1 worse" in (tmp_path / "c.html").read_text()
    assert "shm pipe" in result.stderr


def test_a_comparison_with_what_is_no_report_is_refused(
    two: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text("no")
    result = called("compare", two[0], str(tmp_path / "bad.json"))
    assert isinstance(result.exception, UsageError) and "is no report" in str(result.exception)


def test_a_percentage_that_is_none_is_refused(shm: FakeGroup, tmp_path: Path) -> None:
    result = called("all", "--groups", "shm", "--stable", "nan")
    assert isinstance(result.exception, UsageError) and "--stable is nan" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["all", "compare"])
def test_help_begins_with_examples(verb: str) -> None:
    text = CliRunner().invoke(cli, ["bench", verb, "--help"]).output
    assert 0 < text.index("Examples:") < text.index("Options:")
