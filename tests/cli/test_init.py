"""`lockstep init`: a folder that works at once."""

import configparser
import shutil
from pathlib import Path
from typing import Any

import pytest

from lockstep.cli import init
from lockstep.engine.fleet_file import parse

ROOT = Path(__file__).resolve().parents[2]


def test_what_it_makes_runs_and_verifies_and_says_what_is_next(place: Any) -> None:
    made = place.lockstep("init", "my first", "--json")
    assert made.code == 0, made.err
    assert made.json["fleet"] == "my-first"
    assert made.json["next"][0] == (
        "lockstep run 'my first/fleet.toml' --input 'my first/input.jsonl'"
    )
    folder = place.path / "my first"
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert there == set(made.json["files"]) >= {"fleet.toml", "README.md", "model/model.onnx"}
    assert not any(p.is_symlink() for p in folder.rglob("*"))
    assert "NAME" not in (folder / "fleet.toml").read_text() + (folder / "README.md").read_text()
    fleet, given = "my first/fleet.toml", "my first/input.jsonl"
    run = place.lockstep("run", fleet, "--input", given, "--json")
    assert run.code == 0, run.err
    assert (run.json["items_out"], run.json["items_failed"]) == (10, 0)
    assert run.json["run"].endswith("runs/my-first-1")


def test_a_folder_that_holds_something_is_refused_and_stays(place: Any) -> None:
    (place.path / "full").mkdir()
    (place.path / "full/mine").write_text("x")
    refused = place.lockstep("init", "full")
    assert refused.code == 2 and "the folder is not empty; nothing was touched" in refused.err
    assert [p.name for p in (place.path / "full").iterdir()] == ["mine"]
    refused = place.lockstep("init", "items.jsonl")
    assert refused.code == 2 and "not a folder" in refused.err
    (place.path / "empty").mkdir()
    assert place.lockstep("init", "empty").code == 0
    refused = place.lockstep("init", "empty")
    assert refused.code == 2 and "not empty" in refused.err


def test_what_cannot_be_filled_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = shutil.copytree(init.STARTER, tmp_path / "starter")
    (starter / "solver.wasm").unlink()
    (starter / "solver.wasm").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(init, "STARTER", starter)
    for there in (False, True):
        folder = tmp_path / "made"
        if there:
            folder.mkdir()
        with pytest.raises(init.UsageError, match="cannot be filled: No such file"):
            init.make(folder, "x")
        assert folder.exists() == there and not (there and list(folder.iterdir()))


@pytest.mark.parametrize(
    ("folder", "name"), [("first", "first"), ("a b/ä c", "c"), ("ä", "fleet"), ("x" * 90, "x" * 48)]
)
def test_the_fleet_is_called_after_its_folder(folder: str, name: str) -> None:
    assert init.name_of(Path(folder)) == name
    text = (init.STARTER / "fleet.toml").read_text().replace("NAME", name)
    assert parse(text.encode(), "fleet.toml").name == name


def test_every_file_of_the_starter_is_in_the_wheel() -> None:
    config = configparser.ConfigParser()
    config.read_string((ROOT / "setup.cfg").read_text())
    patterns = config["options.package_data"]["lockstep.cli"].split()
    cli = ROOT / "cli"
    listed = {path for pattern in patterns for path in cli.glob(pattern)}
    templates = (*init._files(cli / "starter"), *init._files(cli / "agents"))
    assert set(templates) <= listed
