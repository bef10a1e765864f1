"""Environments of peers: there, not there, not to be made."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lockstep.bench import peers
from lockstep.bench.groups import agents
from lockstep.bench.peers import PLAIN, Environment, Peer
from lockstep.engine.errors import UsageError

# A folder that is no package: pip refuses it without asking any index.
BROKEN = Environment("broken", ("./none-of-the-kind",), 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lockstep" / "bench"


def test_the_cache_is_where_the_desktop_says_and_else_in_the_home(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert peers.cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert peers.cache_folder() == tmp_path / ".cache" / "lockstep" / "bench"


def test_an_environment_is_ready_when_it_was_made_for_these_requirements(cache: Path) -> None:
    environment = Environment("some", ("a==1",), 1)
    assert not environment.ready()
    environment.folder.mkdir(parents=True)
    assert not environment.ready()  # Half made.
    done = {"requirements": ["a==1"], "python": list(sys.version_info[:3])}
    (environment.folder / peers.DONE).write_text(json.dumps(done))
    assert environment.ready()
    assert not Environment("some", ("a==2",), 1).ready()
    told: list[str] = []
    environment.make(told.append)
    assert told == ["some: there"]


def wheel(folder: Path) -> Path:
    """A distribution of one empty module, which pip installs without any index."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def test_environments_are_made_once_and_one_that_fails_does_not_keep_back_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Environment("whole", (str(wheel(tmp_path)),), 1)
    peers_of = {"first": Peer("first", BROKEN), "second": Peer("second", whole)}
    monkeypatch.setattr(agents, "PEERS", peers_of)
    told: list[str] = []
    with pytest.raises(UsageError, match=r"environment broken \(./none-of-the-kind\) was not made"):
        agents.setup(told.append)
    assert "installing ./none-of-the-kind (about 1 MB)" in told[0]
    assert not BROKEN.ready()
    assert whole.ready() and told[-1] == "whole: done"
    subprocess.run([whole.python, "-c", "import tiny"], check=True)
    whole.make(told.append)
    assert told[-1] == "whole: there"


def test_the_process_pool_is_measured_turn_by_turn() -> None:
    with Peer("processpool", PLAIN).start() as line:
        assert list(line.hello["versions"]) == ["python"]
        for turns in (1, 3):
            times_ns = line.ask(turns=turns)["times_ns"]
            assert len(times_ns) == turns and min(times_ns) > 0


@pytest.mark.peers
@pytest.mark.parametrize(
    ("script", "environment"),
    [("autogen", peers.AUTOGEN), ("ray_actor", peers.RAY), ("ray_compiled", peers.RAY)],
)
def test_a_peer_is_measured_turn_by_turn(
    script: str, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # The cache of the person who ran `bench setup`.
    if not environment.ready():
        pytest.skip("lockstep bench setup agents")
    with Peer(script, environment).start() as line:
        assert len(line.ask(turns=5)["times_ns"]) == 5
