"""A provider fails in the middle of a run, which goes on on the CPU: recorded, and repeatable.

The provider is `failing.FIRST`: real sessions whose bits are not those of the CPU's own. To run it
all on a true other one: `pip install onnxruntime-openvino` in a Python of its own, in place of
onnxruntime. `-m nightly` has the longer forms.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import failing
import fleets
import pytest
from failing import FIRST, under
from living import Living, kill

from lockstep.engine.errors import RunStopped, UsageError
from lockstep.engine.past import Past
from lockstep.workers.api import fork, replay, resume
from lockstep.workers.comparison import diff
from lockstep.workers.job import Job
from lockstep.workers.launch import launch
from lockstep.workers.recorded import recorded
from lockstep.workers.verification import verify

# Its tokens are others on the CPU, so that given ones are not those that would be drawn there.
STORIES = f"""
[fleet]
name = "stories"
seed = 11
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.default]
path = "DATA/genai-micro-int4"
providers = ["{FIRST}", "cpu"]
fallback = true
rows_max = 3
rows_kept = 1
tokens_max = 128
prefill_tokens_per_step = 12
[recovery]
restarts_max = 1
[agents.ann]
module = "GUESTS/teller.wasm"
replicas = 2
[agents.ben]
module = "GUESTS/teller.wasm"
config = {{ tokens = 14, story = 60 }}
input = "deal"
"""
AT = 30  # The step in which it fails, or the next one that is executed.
ITEMS, MANY = 6, 24


def run_of(folder: Path, text: str = STORIES, **how: Any) -> dict[str, Any]:
    """The summary of a run whose provider fails."""
    folder.mkdir(exist_ok=True)
    made, given = fleets.fleet(folder, text), fleets.items(folder, ITEMS)
    job = Job(str(made), str(folder), str(given), run_dir=str(folder / "run"))
    with under(**how):
        return launch(job)


def tokens_of(folder: str) -> list[tuple[int, int, int]]:
    """(step, ticket, token) of a whole run."""
    steps = Past(recorded(folder).history).steps()
    return [(step.step, *token) for step in steps for token in step.tokens]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run whose provider raised in step `AT`."""
    return run_of(tmp_path_factory.mktemp("failed"), step=AT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run whose provider never failed."""
    return run_of(tmp_path_factory.mktemp("whole"))


def test_the_run_goes_on_elsewhere_and_says_since_when_and_why(failed: dict[str, Any]) -> None:
    (change,) = failed["fallbacks"]
    step = change["step"]
    assert (failed["state"], failed["exit_code"], failed["restarts"]) == ("finished", 0, 0)
    assert failed["provider"] == f"{FIRST}, from step {step} on cpu" and step >= AT
    assert (change["model"], change["from"], change["to"]) == ("default", FIRST, "cpu")
    assert "terminate flag" in change["cause"]  # ONNX Runtime's own words.
    assert failed["outside"] == ["1 change of a provider"] and not failed["regenerative"]
    manifest = json.loads((Path(failed["run"]) / "manifest.json").read_text())
    assert manifest["fallbacks"] == failed["fallbacks"]
    assert manifest["environment"]["providers"][0]["got"] == [FIRST, "cpu"]


def test_tokens_before_are_the_providers_and_those_behind_are_of_the_cpu(
    failed: dict[str, Any], whole: dict[str, Any]
) -> None:
    step = failed["fallbacks"][0]["step"]
    left, right = tokens_of(failed["run"]), tokens_of(whole["run"])
    before = [token for token in left if token[0] < step]
    assert before and before == [token for token in right if token[0] < step]
    assert left != right
    (tmp := Path(failed["run"]).parent / "cpu").mkdir()
    text = STORIES.replace(f'"{FIRST}", ', "").replace("fallback = true\n", "")
    assert run_of(tmp, text)["digest_text"] not in (failed["digest_text"], whole["digest_text"])


def test_verify_changes_at_the_same_step_and_finds_every_bit_again(failed: dict[str, Any]) -> None:
    heard: list[str] = []
    with under():
        found = verify(failed["run"], listen=lambda what, value: heard.append(f"{what}: {value}"))
    assert found.equal and found.whole and found.equal_text, found.difference
    assert found.again["fallbacks"] == failed["fallbacks"]
    step = failed["fallbacks"][0]["step"]
    assert any(f"goes on on cpu from step {step} on" in line for line in heard)
    assert any("the same bits" in line for line in heard)


def test_replay_and_diff_know_it(failed: dict[str, Any], whole: dict[str, Any]) -> None:
    again = replay(failed["run"]).summary
    assert (again["digest"], again["provider"]) == (failed["digest"], failed["provider"])
    assert again["fallbacks"] == failed["fallbacks"]
    assert diff(failed["run"], failed["run"]).difference is None
    assert diff(failed["run"], whole["run"]).difference is not None


def test_a_verification_whose_provider_fails_stops_and_records_nothing(
    whole: dict[str, Any],
) -> None:
    with under(step=AT), pytest.raises(RunStopped, match="terminate flag"):
        verify(whole["run"])


@pytest.mark.parametrize("how", [failing.DIES, failing.LOST])
def test_one_that_dies_again_and_again_or_is_gone_is_left_as_well(tmp_path: Path, how: str) -> None:
    summary = run_of(tmp_path, step=AT, how=how, mark=str(tmp_path / "mark"))
    (change,) = summary["fallbacks"]
    assert (summary["state"], summary["restarts"]) == ("finished", 1)
    says = "killed by SIGKILL" if how == failing.DIES else "now there is cpu"
    assert says in change["cause"]
    with under():
        assert verify(summary["run"]).equal


def test_without_the_key_the_run_stops_and_goes_on_once_the_key_is_there(tmp_path: Path) -> None:
    text = STORIES.replace("fallback = true\n", "")
    summary = run_of(tmp_path, text, step=AT)
    assert (summary["state"], summary["exit_code"], summary["fallbacks"]) == ("stopped", 3, [])
    assert "terminate flag" in summary["reason"] and "restarts_max = 1" in summary["reason"]
    with under(how=failing.GONE), pytest.raises(UsageError, match="now there is cpu"):
        resume(summary["run"])
    made = Path(summary["run"]) / "fleet.toml"
    made.write_text(made.read_text().replace("rows_max = 3", "fallback = true\nrows_max = 3"))
    with under(how=failing.GONE):
        done = resume(summary["run"]).summary
    assert (done["state"], len(done["fallbacks"])) == ("finished", 1)
    with under():
        assert verify(done["run"]).equal


@pytest.mark.parametrize("order", ["strict", pytest.param("arrival", marks=pytest.mark.nightly)])
def test_what_dies_behind_the_change_comes_back_on_the_cpu(tmp_path: Path, order: str) -> None:
    text = STORIES.replace("[schedule]", f'[schedule]\norder = "{order}"')
    made, given = fleets.fleet(tmp_path, text), fleets.items(tmp_path, MANY)
    job = Job(str(made), str(tmp_path), str(given), run_dir=str(tmp_path / "run"))
    with Living(job, before=failing.prelude(AT)) as living:
        living.until(lambda: fleets.board_of(living.run).engine.step >= AT + 20)
        kill(fleets.board_of(living.run).engine.pid)
        living.note("brought back")
        living.until(lambda: fleets.board_of(living.run).engine.step >= AT + 40)
        kill(living.supervisor)
        living.wait()
    with under():
        summary = resume(tmp_path / "run").summary
    assert (summary["state"], len(summary["fallbacks"])) == ("finished", 1)
    with under():
        assert verify(tmp_path / "run").equal


def test_killed_while_it_makes_keys_and_values_the_next_one_makes_them_anew(
    tmp_path: Path,
) -> None:
    summary = run_of(tmp_path, step=AT, how=failing.TORN, mark=str(tmp_path / "mark"))
    assert (summary["state"], summary["restarts"], len(summary["fallbacks"])) == ("finished", 1, 1)
    assert (tmp_path / "mark").exists()
    with under():
        assert verify(summary["run"]).equal


@pytest.mark.parametrize(
    "distance", [1, *(pytest.param(far, marks=pytest.mark.nightly) for far in (-10, 15))]
)
def test_a_fork_has_the_change_if_it_came_before(
    tmp_path: Path, failed: dict[str, Any], distance: int
) -> None:
    at = failed["fallbacks"][0]["step"] + distance
    with under():
        summary = fork(failed["run"], at, {"seed": 5}, run_dir=tmp_path / "fork").summary
        assert verify(tmp_path / "fork").equal
    assert summary["state"] == "finished"
    assert summary["fallbacks"] == (failed["fallbacks"] if distance > 0 else [])


def test_a_fork_behind_the_change_can_be_forked_before_it(
    tmp_path: Path, failed: dict[str, Any]
) -> None:
    step = failed["fallbacks"][0]["step"]
    with under():
        fork(failed["run"], step + 1, {"seed": 5}, run_dir=tmp_path / "behind")
        found = fork(tmp_path / "behind", step - 10, {"seed": 6}, run_dir=tmp_path / "before")
    assert (found.summary["state"], found.summary["fallbacks"]) == ("finished", [])


def test_a_fork_changes_by_itself_right_behind_the_cut(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    with under(step=AT):
        summary = fork(whole["run"], AT - 1, {"seed": 5}, run_dir=tmp_path / "fork").summary
    assert (summary["state"], len(summary["fallbacks"])) == ("finished", 1)
    with under():
        found = verify(tmp_path / "fork")
    assert found.equal and found.again["fallbacks"] == summary["fallbacks"]


def test_one_of_two_models_changes(tmp_path: Path) -> None:
    text = fleets.TWO_MODELS.replace(
        'providers = ["cpu"]',
        f'providers = ["{FIRST}", "cpu"]\nfallback = true\ncandidates = 4',
        1,
    )
    summary = run_of(tmp_path, text, step=6)
    (change,) = summary["fallbacks"]
    assert change["model"] == "llama"
    assert summary["provider"] == f"{FIRST}, from step {change['step']} on cpu, cpu"
    with under():
        assert verify(summary["run"]).equal


def test_the_first_step_may_be_the_one_that_fails(tmp_path: Path) -> None:
    summary = run_of(tmp_path, step=0)
    assert summary["state"] == "finished"
    with under():
        found = verify(summary["run"])
    assert found.equal and found.expectation.leaves == "bits"
