"""Sweeps that are refused: nothing is started, and what is there stays."""

import json
import os
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers import sweep

FLEET = """
[fleet]
name = "small"
[agents.echo]
module = "GUESTS/echo.wasm"
input = "broadcast"
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of a sweep of one run."""
    monkeypatch.chdir(tmp_path)
    fleet, given = fleets.fleet(tmp_path, FLEET), fleets.items(tmp_path, 1)
    return {"fleet": fleet, "input": given, "seeds": "1", "durability": "memory"}


def test_another_sweep_in_the_folder_is_refused_with_what_differs(made: dict[str, Any]) -> None:
    made["out"] = Path("out")
    assert sweep(**made).exit_code == 0
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    other = Path("other.jsonl")
    other.write_text('{"n": 1}\n')
    for told, change in {
        r"--seeds \(was \[1\], is \[1, 2\]\)": {"seeds": "1,2"},
        r"--set \(was \[\], is \[\['fleet.steps_max=9'\]\]\)": {"sets": ["steps_max=9"]},
        r"input \(was \w+\.\.\.\w+, is ": {"input": other},
        r"--order \(was , is arrival\)": {"order": "arrival"},
    }.items():
        with pytest.raises(UsageError, match=f"another sweep, nothing was touched.*{told}"):
            sweep(**{**made, **change})
    with open(made["fleet"], "a") as file:
        file.write("# Changed.\n")
    with pytest.raises(UsageError, match=r"what differs: fleet file \(was "):
        sweep(**made)
    assert before == {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}


def test_a_folder_of_something_else_is_refused(made: dict[str, Any]) -> None:
    folder = Path("full")
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(UsageError, match="holds something else; nothing was touched"):
        sweep(**made, out=folder)
    with pytest.raises(UsageError, match="cannot hold the sweep: Not a directory"):
        sweep(**made, out=folder / "mine" / "below")


def test_a_sweep_that_somebody_works_on_is_refused(made: dict[str, Any]) -> None:
    told = []

    def listen(what: str, number: int, value: Any) -> None:
        if what == "row":
            with pytest.raises(UsageError, match=f"process {os.getpid()} works on this sweep"):
                sweep(**made, out="out")
            told.append(number)

    assert sweep(**made, out="out", listen=listen).exit_code == 0
    assert told == [1]


def test_rows_that_were_damaged_are_refused_with_their_place(made: dict[str, Any]) -> None:
    sweep(**made, out="out")
    kept = Path("out/finished.jsonl")
    kept.write_text(f"{json.dumps({'run': 1})}\n[]\n")
    with pytest.raises(UsageError, match=r"finished\.jsonl: line 2 is no row of a sweep"):
        sweep(**made, out="out")


@pytest.mark.parametrize(
    ("told", "change"),
    [
        ("nothing to sweep", {"seeds": ""}),
        ("unknown key 'lokahead'", {"sets": ["schedule.lokahead=1,2"]}),
        ("lookahead is 'fast', expected a whole", {"sets": ["schedule.lookahead=1,fast"]}),
        ("no-such.wasm: cannot read the module", {"sets": ["agents.echo.module=no-such.wasm"]}),
        ("expected a seed or FIRST..LAST", {"seeds": "all"}),
        ("durability is 'none'", {"durability": "none"}),
        ("jobs is -1", {"jobs": -1}),
        ("nowhere.jsonl: cannot read the input", {"input": Path("nowhere.jsonl")}),
        ("is a table", {"sets": ["agents.echo=1"]}),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_made(
    made: dict[str, Any], told: str, change: dict[str, Any]
) -> None:
    before = sorted(Path.cwd().iterdir())
    with pytest.raises(UsageError, match=told):
        sweep(**{**made, **change})
    assert sorted(Path.cwd().iterdir()) == before


def test_a_missing_model_folder_is_refused(made: dict[str, Any]) -> None:
    with open(made["fleet"], "a") as file:
        file.write('[models.m]\npath = "no-model"\n')
    with pytest.raises(UsageError, match="no-model: no such model folder"):
        sweep(**made)


def test_default_folders_are_numbered(made: dict[str, Any]) -> None:
    made["sets"] = ["schedule.lookahead=1,0"]
    first, second = sweep(**made), sweep(**made)
    assert [found.folder.name for found in (first, second)] == ["small-1", "small-2"]
    assert [row["digest"] for row in first.rows] == [row["digest"] for row in second.rows]
    # The values are in the file of each run: it is whole without its sweep.
    text = (first.folder / "runs/00002/fleet.toml").read_text()
    assert "lookahead = 0" in text
