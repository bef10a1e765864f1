"""`lockstep bench`: the fixed shape of its report, and what is not there is skipped."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lockstep.bench.groups import GROUPS, agents
from lockstep.bench.peers import PLAIN, RAY, Peer
from lockstep.cli import bench
from lockstep.cli.main import cli
from lockstep.engine.errors import UsageError

ABSOLUTES = ("turn_p50_us", "messages_per_s", "pss_mb", "start_ms", "tag100_p99_ms",
             "message_p99_ms")  # fmt: skip
SMALL = {
    "WARM_TURNS": 5,
    "TURNS": 5,
    "PAIRS_QUICK": 6,
    "OWN_TURNS_QUICK": 20,
    "TAGS_QUICK": 3,
    "FLOOD_ROUNDS_QUICK": 2,
    "FLOOD_TURNS": 8,
    "AT_ONE_TAG": 4,
    "MANY": 3,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_groups_of_the_command_line_are_those_there_are() -> None:
    assert bench.GROUPS == GROUPS
    assert set(GROUPS) < set(bench.command.commands)  # type: ignore[attr-defined]


def test_agents_are_measured_and_absent_peers_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(agents, name, value)
    peers = {"processpool_turn": Peer("processpool", PLAIN), "ray_actor_turn": Peer("ray", RAY)}
    monkeypatch.setattr(agents, "PEERS", peers)
    result = CliRunner().invoke(cli, ["bench", "agents", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout.splitlines()[-1])
    assert set(value) >= {"group", "machine", "results", "ratios", "skipped"}
    assert value["group"] == "agents"
    assert all(value["results"][name]["value"] > 0 for name in ABSOLUTES)
    (only,) = value["ratios"].items()
    assert only[0] == "processpool_turn" and 0 < only[1]["low"] <= only[1]["high"]
    (skipped,) = value["skipped"]
    assert skipped["name"] == "ray_actor_turn"
    assert skipped["get"] == "lockstep bench setup agents"
    assert "turns, in pairs with processpool" in result.stderr


def test_the_names_of_the_peers_are_fixed() -> None:
    assert list(agents.PEERS) == [
        "autogen_turn", "ray_actor_turn", "ray_compiled_turn", "processpool_turn"
    ]  # fmt: skip


def test_an_unknown_group_is_refused_with_the_nearest() -> None:
    with pytest.raises(Exception, match=r"unknown verb 'agnets'.*agents"):
        CliRunner().invoke(cli, ["bench", "agnets"], catch_exceptions=False, standalone_mode=False)


def test_setup_takes_the_groups_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name in GROUPS:
        monkeypatch.setattr(
            f"lockstep.bench.groups.{name}.setup", lambda tell, n=name: made.append(n)
        )
    assert CliRunner().invoke(cli, ["bench", "setup", "tax"]).exit_code == 0
    assert made == ["tax"]
    CliRunner().invoke(cli, ["bench", "setup"])
    assert made == ["tax", *GROUPS]


def test_a_setup_that_fails_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tell: object) -> None:
        raise UsageError("no network")

    monkeypatch.setattr(agents, "setup", refuse)
    result = CliRunner().invoke(cli, ["bench", "setup", "agents"], standalone_mode=False)
    assert isinstance(result.exception, UsageError)


@pytest.mark.parametrize("verb", ["setup", *GROUPS])
def test_help_of_every_verb_begins_with_examples(verb: str) -> None:
    text = CliRunner().invoke(cli, ["bench", verb, "--help"]).output
    assert 0 < text.index("Examples:") < text.index("Options:")
    assert f"lockstep bench {verb}" in text
