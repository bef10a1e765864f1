"""Golden journals: what an older Lockstep wrote is replayed for ever, under its own rules.

tests/data/journals has a whole run folder per format and flags version and kind of fleet; its
make.py makes those of a new version.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fleets
import pytest

from lockstep.engine.errors import Diverged
from lockstep.engine.journal import JournalWriter
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS
from lockstep.workers import replay, resume, verify
from lockstep.workers.journal_reading import read_journal
from lockstep.workers.recorded import recorded

CORPUS = fleets.DATA / "journals"
FOLDERS = sorted(path for path in CORPUS.iterdir() if path.is_dir() and path.name != "__pycache__")
GOOD = [path for path in FOLDERS if not path.name.endswith("-diverged")]
DIVERGED = [path for path in FOLDERS if path.name.endswith("-diverged")]
MODELS = {"default": str(fleets.MODEL)}


def name_of(path: Path) -> str:
    return path.name


@pytest.fixture
def copy(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A golden run folder where something may be written."""
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def digest(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_bytes())["digest"])


def test_this_version_has_golden_journals_and_they_are_small() -> None:
    names = [path.name for path in FOLDERS]
    for kind in ("agents", "diverged", "model", "requests"):
        assert f"format{JOURNAL_FORMAT}-flags{LOGIC_FLAGS}-{kind}" in names
    for folder in FOLDERS:
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 200_000
        text = b"".join(path.read_bytes() for path in folder.rglob("*.json"))
        assert str(CORPUS).encode() not in text


@pytest.mark.parametrize("copy", GOOD, ids=name_of, indirect=True)
def test_a_golden_journal_replays_on_any_machine(copy: Path) -> None:
    done = replay(copy)
    assert done.summary["state"] == "finished"
    assert done.digest == digest(copy)


@pytest.mark.parametrize("copy", GOOD, ids=name_of, indirect=True)
def test_a_golden_run_comes_out_again(copy: Path) -> None:
    environment = json.loads((copy / "manifest.json").read_bytes())["environment"]
    again = verify(copy, models=MODELS if environment["models"] else None)
    if environment["models"] and again.notes and not again.equal:
        pytest.skip(f"made on another machine, bits may differ: {'; '.join(again.notes)}")
    assert again.equal and again.whole
    assert again.recorded == digest(copy)


@pytest.mark.parametrize("copy", GOOD, ids=name_of, indirect=True)
def test_a_golden_run_that_was_cut_off_goes_on_under_its_own_rules(copy: Path) -> None:
    journal = read_journal(copy)
    assert journal.header is not None
    for segment in (copy / "journal").iterdir():
        segment.unlink()
    with open(copy / "journal/00000000.journal", "wb") as file:
        writer = JournalWriter(file, journal.header.run_id, journal.header.flags)
        for frame in journal.frames[: len(journal.frames) // 2]:
            writer.append(frame.kind, frame.body)
    wanted = digest(copy)
    (copy / "summary.json").unlink()
    heard: list[str] = []
    models = MODELS if recorded(copy).environment["models"] else None
    try:
        found = resume(
            copy, models=models, stdin=None, listen=lambda _, what: heard.append(str(what))
        ).digest
    except Diverged as error:
        found = str(error)
    if models and found != wanted and any("since the run began" in line for line in heard):
        pytest.skip("made on another machine, bits may differ")
    assert found == wanted
    again = read_journal(copy)
    assert again.header is not None and again.header.flags == journal.header.flags


@pytest.mark.parametrize("copy", DIVERGED, ids=name_of, indirect=True)
def test_the_golden_divergence_is_named_at_its_tag(copy: Path) -> None:
    again = verify(copy)
    assert not again.equal and again.exit_code == 4
    assert again.difference is not None
    assert again.difference.tag == "0.5"
    assert "2443" in again.difference.left and "2442" in again.difference.right  # Fuel.
    with pytest.raises(Diverged, match=r"turn 4 at tag 0\.4 was repeated and differs"):
        replay(copy)
