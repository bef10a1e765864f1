"""The package list of setup.cfg and the tree say the same: what is not listed is in no wheel."""

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("engine", "shm", "workers", "cli", "bench")
CONFIG = configparser.ConfigParser()
CONFIG.read_string((ROOT / "setup.cfg").read_text())


def listed(section: str, key: str) -> list[str]:
    return CONFIG[section][key].split("\n")[1:]


def folders() -> list[str]:
    """Every folder with Python files, as a path from the root."""
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in TOP
        for path in (ROOT / top).rglob("*.py")
    }
    return sorted(found)


def package_of(folder: str) -> str:
    return "lockstep." + folder.replace("/", ".")


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    assert sorted(listed("options", "packages")) == [package_of(f) for f in folders()]


def test_every_package_is_mapped_onto_its_folder() -> None:
    assert sorted(listed("options", "package_dir")) == [
        f"{package_of(folder)} = {folder}" for folder in folders()
    ]


@pytest.mark.parametrize("folder", folders())
def test_every_package_has_an_init(folder: str) -> None:
    assert (ROOT / folder / "__init__.py").is_file()


@pytest.mark.parametrize("top", TOP)
def test_every_top_package_says_that_it_is_typed(top: str) -> None:
    assert (ROOT / top / "py.typed").is_file()
    assert "py.typed" in CONFIG["options.package_data"][f"lockstep.{top}"].split()


@pytest.mark.parametrize("top", TOP)
def test_every_top_package_is_seen_by_the_type_checker_under_its_real_name(top: str) -> None:
    link = ROOT / ".typing" / "lockstep" / top
    assert link.is_symlink()
    assert link.resolve() == ROOT / top


def test_the_namespace_itself_has_no_files() -> None:
    # An __init__.py would turn the namespace into a package and hide the others.
    links = (ROOT / ".typing" / "lockstep").iterdir()
    assert sorted(path.name for path in links if path.name != "__pycache__") == sorted(TOP)
