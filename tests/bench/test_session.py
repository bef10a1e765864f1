"""`bench all`: groups until they are stable, what was measured stays, and nothing is mixed."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchreports import FakeGroup

from lockstep.bench import machine, session
from lockstep.bench.combined import combined, spread_percent
from lockstep.bench.session import Asked, Session
from lockstep.engine.errors import UsageError


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeGroup]:
    """Groups by name, in place of the real ones, which take an hour."""
    made = {"shm": FakeGroup("shm", [2.0]), "agents": FakeGroup("agents", [1.0, 1.4, 1.1])}
    for name, fake in made.items():
        module = ModuleType(f"lockstep.bench.groups.{name}")
        module.run = fake.run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture
def told() -> list[str]:
    return []


def begun(folder: Path, told: list[str], **asked: object) -> Session:
    return Session(folder, Asked(**asked), told.append)  # type: ignore[arg-type]


def test_a_group_is_measured_again_until_its_runs_agree(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    groups["agents"].medians = [1.0, 1.4, 1.1, 1.1, 1.12]
    one = begun(tmp_path / "a", told)
    one.measure(["shm", "agents"])
    assert {name: fake.calls for name, fake in groups.items()} == {"shm": 3, "agents": 5}
    found = one.report()["groups"]
    assert [(found[g]["runs"], found[g]["stable"]) for g in ("shm", "agents")] == [
        (3, True),
        (5, True),
    ]
    assert "agents: the last 3 of 5 runs lie within 1.818 %" in told


def test_a_group_that_never_agrees_ends_after_so_many_runs_and_says_so(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    groups["agents"].medians = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    one = begun(tmp_path / "a", told, runs_max=4)
    one.measure(["agents"])
    assert groups["agents"].calls == 4
    assert one.report()["groups"]["agents"]["stable"] is False


def test_quick_measures_once_and_calls_nothing_stable(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    one = begun(tmp_path / "a", told, quick=True, runs_max=1)
    one.measure(["shm"])
    assert groups["shm"].calls == 1 and "shm: quick True" in told
    assert one.report()["groups"]["shm"]["stable"] is None


def test_figures_without_ratios_are_not_made_again(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    groups["shm"].medians = [-2.0]
    begun(tmp_path / "a", told).measure(["shm"])
    assert groups["shm"].calls == 1


def test_what_is_left_is_said_before_each_run(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    begun(tmp_path / "a", told, runs_max=2).measure(["shm", "agents"])
    assert told[0] == "shm: run 1 of at most 2, about 3 min; all that is left: at most 14 min"
    assert told[2] == "shm: run 2 of at most 2, about 0 s; all that is left: at most 8 min"


def test_a_broken_off_session_goes_on_with_what_it_had(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    one = begun(tmp_path / "a", told)
    groups["agents"].interrupted = True
    with pytest.raises(KeyboardInterrupt):
        one.measure(["shm", "agents"])
    assert list(one.report()["groups"]) == ["shm"]
    groups["agents"].interrupted = False
    again = begun(tmp_path / "a", told)
    again.measure(["shm", "agents"])
    assert groups["shm"].calls == 3  # None was made again.
    assert list(again.report()["groups"]) == ["shm", "agents"]


def test_a_group_that_cannot_be_measured_is_named_and_the_rest_goes_on(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str]
) -> None:
    groups["shm"].medians = [None]
    one = begun(tmp_path / "a", told)
    one.measure(["shm", "agents"])
    assert one.failed == {"shm": "the model cannot be built: pip install something"}
    assert list(one.report()["groups"]) == ["agents"]


def test_a_group_that_breaks_is_named_with_its_place_and_the_rest_goes_on(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_quick: bool, _tell: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/1/schedstat")

    monkeypatch.setattr(sys.modules["lockstep.bench.groups.shm"], "run", breaks)
    one = begun(tmp_path / "a", told)
    one.measure(["shm", "agents"])
    assert "FileNotFoundError" in one.failed["shm"] and "/proc/1/schedstat" in one.failed["shm"]
    assert "test_session.py:" in one.failed["shm"] and list(one.report()["groups"]) == ["agents"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lockstep": "0.0.1"}, "begun with lockstep 0.0.1"),
        ({"quick": True}, "begun with quick True, and is asked for with False"),
        ({"machine": {"cpu": "another"}}, "begun with machine cpu another"),
    ],
)
def test_runs_of_two_machines_or_versions_are_not_mixed(
    tmp_path: Path, told: list[str], change: dict[str, object], said: str
) -> None:
    begun(tmp_path, told)
    path = tmp_path / session.SESSION
    origin = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {**origin, **change, "machine": {**origin["machine"], **change.get("machine", {})}}
        )
    )  # type: ignore[dict-item]
    before = path.read_bytes()
    with pytest.raises(UsageError, match=said):
        begun(tmp_path, told)
    assert path.read_bytes() == before


def test_another_load_of_the_machine_is_the_same_machine(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, told)
    monkeypatch.setattr("os.getloadavg", lambda: (77.0, 0.0, 0.0))
    begun(tmp_path, told)


@pytest.mark.parametrize("text", ["{", "[]", '{"ratios": {}}'])
def test_a_damaged_run_is_named_and_nothing_is_touched(
    tmp_path: Path, groups: dict[str, FakeGroup], told: list[str], text: str
) -> None:
    one = begun(tmp_path, told)
    path = tmp_path / session.RUNS / "shm-1.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"shm-1\.json.*nothing was touched"):
        one.measure(["shm"])
    assert path.read_text() == text and groups["shm"].calls == 0


def test_a_folder_of_something_else_is_refused(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds no session\.json"):
        begun(tmp_path, told)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_new_sessions_are_numbered(tmp_path: Path) -> None:
    assert session.next_folder(tmp_path) == tmp_path / "bench-1"
    (tmp_path / "bench-1").mkdir()
    assert session.next_folder(tmp_path) == tmp_path / "bench-2"


def test_a_machine_without_a_gpu_is_not_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "devices", list)
    wanted, absent = session.here(["shm", "gpu"])
    assert wanted == ["shm"] and "lockstep bench gpu" in absent["gpu"]
    monkeypatch.setattr(session, "devices", lambda: ["Model: some"])
    assert session.here(["shm", "gpu"]) == (["shm", "gpu"], {})


# -- what runs say together -----------------------------------------------------------------------


def runs(*medians: float) -> list[dict[str, object]]:
    fake = FakeGroup("shm", list(medians))
    return [fake.run(False, lambda _: None).to_json() | {"wall_s": 1.0} for _ in medians]


def test_a_ratio_of_several_runs_reaches_from_the_lowest_to_the_highest_interval() -> None:
    found = combined(runs(2.0, 1.0, 3.0))
    assert found["ratios"]["peer"] == {
        "median": 2.0, "low": 0.98, "high": 3.06, "runs": [2.0, 1.0, 3.0]
    }  # fmt: skip
    assert found["results"]["rate"] == {"value": 2000, "unit": "1/s", "low": 1000, "high": 3000}


def test_the_spread_is_that_of_the_last_runs_alone() -> None:
    assert spread_percent(runs(9.0, 1.0, 1.0, 1.1)) == 10.0
    assert spread_percent(runs(1.0, 1.0)) is None
    assert spread_percent(runs(-1.0, -1.0, -1.0)) is None


def test_the_commit_of_a_checkout_is_known() -> None:
    assert (
        machine.commit().rstrip("+").isalnum()
        or not (Path(machine.__file__).parents[1] / ".git").exists()
    )
