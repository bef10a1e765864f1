"""Units: what systemd thinks of them, and that no file of anybody else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.workers.service import installed
from lockstep.workers.service.unit import Unit, text, unit_of

ANALYZE = shutil.which("systemd-analyze")
asked = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on this machine")
CONFIG = Path("/home/ann/.config")
FLEET = """
[fleet]
name = "vote"
[agents.solver]
module = "solver.wasm"
input = "broadcast"
"""
GPU = """
[models.default]
path = "model"
providers = ["cuda", "cpu"]
[tools.web]
command = ["curl"]
"""


def unit(more: str = "", path: str = "/srv/vote/fleet.toml") -> Unit:
    fleet = parse((FLEET + more).encode(), path)
    return unit_of("vote", ["/bin/true"], Path(path), fleet, [path])


VARIANTS = {
    "plain": unit(),
    "gpu, tools, at home": unit(GPU, "/home/ann/a vote %i $x/fleet.toml"),
    "of a person": replace(unit(), for_user=True),
    "HTTP": replace(unit(), arguments=("--http", "127.0.0.1:8000"), network=True),
}


def analyze(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *args],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@asked
@pytest.mark.parametrize("name", VARIANTS)
def test_systemd_takes_the_unit_without_a_word(name: str, tmp_path: Path) -> None:
    made = VARIANTS[name]
    path = tmp_path / made.file
    path.write_text(text(made))
    manager = ("--user",) if made.for_user else ()
    # A short one: systemd makes addresses of sockets from it, which have 107 characters at most.
    done = analyze(*manager, "verify", str(path), folder=tmp_path.parent)
    assert (done.returncode, done.stderr) == (0, "")


@asked
@pytest.mark.parametrize("name", ["plain", "gpu, tools, at home", "HTTP"])
def test_the_unit_is_hardened(name: str, tmp_path: Path) -> None:
    path = tmp_path / "lockstep-vote.service"
    path.write_text(text(VARIANTS[name]))
    done = analyze("security", "--offline=true", "--threshold=40", str(path), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    path.write_text("[Service]\nExecStart=/bin/true\n")  # That it can fail.
    assert analyze("security", "--offline=true", "--threshold=40", str(path),
                   folder=tmp_path).returncode != 0  # fmt: skip


def test_a_unit_opens_what_its_fleet_needs_and_no_more() -> None:
    plain, open_ = text(VARIANTS["plain"]), text(VARIANTS["gpu, tools, at home"])
    assert "PrivateDevices=yes" in plain and "PrivateDevices=yes" not in open_
    assert "RestrictAddressFamilies=AF_UNIX\n" in plain and "AF_INET" in open_
    assert "ProtectHome=yes" in plain and "ProtectHome=read-only" in open_
    assert '"/home/ann/a vote %%i $$x/fleet.toml"' in open_
    assert "AF_INET" in text(VARIANTS["HTTP"])
    assert not any(line.startswith("MemoryDenyWriteExecute") for line in plain.splitlines())
    assert "ProtectSystem" not in text(VARIANTS["of a person"])  # Takes rights that it lacks.
    with pytest.raises(UsageError, match="name is 'a b'"):
        unit_of("a b", [], Path("/f"), parse(FLEET.encode(), "f"), [])


@asked
def test_systemd_finds_a_program_whatever_its_path_has_in_it(tmp_path: Path) -> None:
    program = tmp_path / "a b 50% %i $x ; # \u00e9" / "program"
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    made = replace(unit(), program=(str(program), "a\\b", 'a"b', "a'b", ";", ""))
    path = tmp_path / made.file
    path.write_text(text(made))
    done = analyze("verify", str(path), folder=tmp_path.parent)
    assert (done.returncode, done.stderr) == (0, "")
    path.write_text(text(made).replace("/program", "/none"))  # That it can fail.
    assert "is not executable" in analyze("verify", str(path), folder=tmp_path.parent).stderr
    for character in "'\"\\":
        with pytest.raises(UsageError, match="systemd takes no program"):
            text(replace(made, program=(f"/bin/{character}true",)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("/p", "a", "--x=/y_z"), "/p a --x=/y_z"),
        (("/p$", "$HOME", "${HOME}"), '/p$ $$HOME "$${HOME}"'),
        (("/p%i", "%i", "100%"), "/p%%i %%i 100%%"),
        (("/p q", "", ";"), '"/p q" "" ";"'),
        (("/p", "it's", 'so "x"', "\\n"), '/p "it\'s" "so \\"x\\"" "\\\\n"'),
    ],
)
def test_words_of_a_command_are_what_systemd_makes_of_them(
    words: tuple[str, ...], expected: str
) -> None:
    made = replace(unit(), program=words)
    assert f"ExecStart={expected} serve /srv/vote/fleet.toml --stop-s 20\n" in text(made)


@pytest.mark.parametrize("ending", ["\n", "\nExecStop=/x", "\r", "\x00", "\u2028", "\udcff"])
def test_no_value_begins_a_line_of_its_own(ending: str) -> None:
    for change in (
        {"fleet": Path(f"/srv/vote{ending}/fleet.toml")},
        {"arguments": (f"--seed=1{ending}",)},
        {"program": (f"/bin/true{ending}",)},
        {"memory_max": f"4G{ending}"},
        {"run_as": f"ann{ending}"},
        {"name": f"vote{ending}"},
    ):
        with pytest.raises(UsageError, match=r"cannot hold it|, expected "):
            text(replace(unit(), **change))  # type: ignore[arg-type]


@asked
def test_systemd_takes_every_memory_max_that_is_accepted(tmp_path: Path) -> None:
    paths = []
    for value in (
        "4000000000",
        "1",
        "512M",
        "4G",
        "1T",
        "999999T",
        "1%",
        "80%",
        "100%",
        "infinity",
    ):
        paths.append(tmp_path / f"{len(paths)}.service")
        paths[-1].write_text(text(replace(unit(), memory_max=value)))
    assert analyze("verify", *map(str, paths), folder=tmp_path.parent).stderr == ""
    paths[-1].write_text(paths[-1].read_text().replace("infinity", "0"))  # That it can fail.
    assert "emory" in analyze("verify", str(paths[-1]), folder=tmp_path.parent).stderr


@pytest.mark.parametrize(
    "value", ["", "0", "-1", "4g", "4 G", "4GB", "1.5G", "101%", "0%", "%", "max", "9999999T"]
)
def test_another_memory_max_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"--memory-max is '.*', expected bytes"):
        replace(unit(), memory_max=value)


@pytest.mark.parametrize("place", ["/tmp", "/tmp/vote/fleet.toml", "/var/tmp/model"])
def test_a_system_service_is_refused_what_its_private_tmp_would_hide(place: str) -> None:
    fleet, path = parse(FLEET.encode(), "f"), Path("/srv/fleet.toml")
    with pytest.raises(UsageError, match=f"^{place}: .* of its own and would not find it"):
        unit_of("vote", ["/bin/true"], path, fleet, ["/srv", place])
    assert unit_of("vote", ["/bin/true"], path, fleet, [place], for_user=True).for_user
    assert unit_of("vote", ["/bin/true"], path, fleet, ["/tmpfs/x", "/var/tmp2"]).file


def test_install_is_idempotent_and_says_what_it_wrote(tmp_path: Path) -> None:
    files = installed.files_of(unit(), tmp_path, CONFIG)
    paths = [tmp_path / "etc/systemd/system/lockstep-vote.service",
             tmp_path / "etc/sysusers.d/lockstep.conf"]  # fmt: skip
    assert [file.path for file in files] == paths
    assert [state for _, state in installed.install(files, dry_run=True)] == [
        "would be written"
    ] * 2
    assert not any(tmp_path.iterdir())
    assert installed.install(files) == [(path, "written") for path in paths]
    assert installed.install(files) == [(path, "unchanged") for path in paths]
    more = installed.files_of(replace(unit(), memory_max="4G"), tmp_path, CONFIG)
    assert [state for _, state in installed.install(more)] == ["written", "unchanged"]
    assert "MemoryMax=4G" in paths[0].read_text() and paths[0].stat().st_mode & 0o777 == 0o644


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    files = installed.files_of(unit(), tmp_path, CONFIG)
    path = files[0].path
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/theirs\n")
    for deed in (
        lambda: installed.install(files),
        lambda: installed.uninstall("vote", False, tmp_path, CONFIG),
    ):
        with pytest.raises(UsageError, match="was not written by Lockstep"):
            deed()
    assert "theirs" in path.read_text() and not files[1].path.exists()
    path.write_text(files[0].text.replace("WatchdogSec=60", "WatchdogSec=600"))
    with pytest.raises(UsageError, match="was changed since"):
        installed.install(files)
    assert "WatchdogSec=600" in path.read_text()


def test_uninstall_removes_what_was_written_and_the_user_with_the_last(tmp_path: Path) -> None:
    installed.install(installed.files_of(unit(), tmp_path, CONFIG))
    other = replace(unit(), name="other")
    installed.install(installed.files_of(other, tmp_path, CONFIG))
    users = tmp_path / "etc/sysusers.d/lockstep.conf"
    first = installed.uninstall("vote", False, tmp_path, CONFIG, dry_run=True)
    assert [state for _, state in first] == ["would be removed"] and users.exists()
    installed.uninstall("vote", False, tmp_path, CONFIG)
    assert users.exists()
    last = installed.uninstall("other", False, tmp_path, CONFIG)
    assert [state for _, state in last] == ["removed", "removed"] and not users.exists()
    again = installed.uninstall("other", False, tmp_path, CONFIG)
    assert [state for _, state in again] == ["not there", "not there"]


def test_a_persons_service_lies_with_the_person(tmp_path: Path) -> None:
    made = replace(unit(), for_user=True)
    (file,) = installed.files_of(made, tmp_path, CONFIG)
    assert file.path == tmp_path / "home/ann/.config/systemd/user/lockstep-vote.service"
    assert "WantedBy=default.target" in file.text and "User=" not in file.text
