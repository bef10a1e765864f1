"""Documents that would rot: the tables of docs/fleet.md name every key, and the README runs."""

import dataclasses
import re
from pathlib import Path

from lockstep.cli.main import MODULES
from lockstep.engine.fleet import AgentGroup, Fleet, Model, Recovery, Schedule, Source, Tool
from lockstep.engine.fleet_file import parse

ROOT = Path(__file__).resolve().parents[1]
TOP = ("engine", "shm", "workers", "cli", "bench")
# Of a fleet: tables of their own, and the rules that its run is run under.
PARTS = {"schedule", "models", "groups", "agents", "tools", "sources", "recovery", "logic_flags"}
SECTIONS = {
    "[fleet]": (Fleet, PARTS),
    "[recovery]": (Recovery, set()),
    "[schedule]": (Schedule, set()),
    "[models.NAME]": (Model, {"name"}),
    "[agents.NAME]": (AgentGroup, {"name"}),
    "[tools.NAME]": (Tool, {"name"}),
    "[sources.NAME]": (Source, {"name"}),
}


def test_every_key_of_the_fleet_file_is_in_its_table() -> None:
    text = (ROOT / "docs/fleet.md").read_text()
    for title, (kind, unlisted) in SECTIONS.items():
        part = text.split(f"## {title}\n")[1].split("\n#")[0]
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        listed = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
        fields = {field.name for field in dataclasses.fields(kind)} - unlisted
        assert sorted(listed) == sorted(fields), title


def test_the_fleet_of_the_readme_parses() -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split("```toml\n")[1].split("```")[0]
    fleet = parse(block.encode(), "README.md")
    assert [agent.name for agent in fleet.agents] == [f"solver.{n}" for n in range(5)] + ["judge"]


def test_every_module_has_a_place_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    files = (path for top in TOP for path in (ROOT / top).rglob("*.py"))
    names = {path.stem for path in files if not path.stem.startswith(("__init__", "test_"))}
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_every_verb_of_the_command_line_is_in_the_change_log() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [verb for verb in MODULES if not re.search(rf"`(lockstep )?{verb}\b", text)] == []


def test_the_documents_that_the_readme_names_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([\w./-]+)\)", readme)
    assert links and all((ROOT / link).exists() for link in links)
