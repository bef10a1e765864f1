"""The entry point: light help, one line for everything, streams that go away."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click import Command, Context, Group
from click.testing import CliRunner

from lockstep.cli.main import VERBS as LISTED
from lockstep.cli.main import cli
from lockstep.engine.changes import MAY_CHANGE
from lockstep.engine.version import VERSION

HEAVY = ("numpy", "wasmtime", "onnxruntime", "posix_ipc", "psutil", "tokenizers", "jinja2")
# Of the standard library, each several milliseconds that a list of verbs has no use for.
SLOW = ("subprocess", "tempfile", "importlib.metadata", "asyncio", "socket", "ctypes", "traceback")
RESULTLESS = {("serve",), ("bench", "setup"), ("completion",), ("help",)}


def _verbs(group: Group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Command]:
    """Every verb and every group of them, by the words that are typed."""
    found: dict[tuple[str, ...], Command] = {}
    for name in group.list_commands(Context(group)):
        command = group.get_command(Context(group), name)
        assert command is not None
        found[(*path, name)] = command
        if isinstance(command, Group):
            found |= _verbs(command, (*path, name))
    return found


VERBS = _verbs(cli)


LIGHT = [
    *(["--help"], ["--version"], ["rnu"], [], ["run", "-h"]),
    *([verb, "--help"] for verb in ("run", "resume", "replay", "fork", "diff", "journal")),
]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_help_loads_nothing_heavy(place: Any, args: list[str]) -> None:
    code = (
        "import sys; from lockstep.cli.main import main\n"
        f"main({args!r})\n"
        f"sys.exit(','.join(m for m in {HEAVY!r} + ('lockstep.workers',) if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=place.env, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.stderr.strip().splitlines()[1 if args == ["rnu"] else 0 :] == []


def test_the_list_of_verbs_imports_none_of_them(place: Any) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from lockstep.cli.main import main; main(['--help'])\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=place.env, capture_output=True,
                          text=True, check=False)  # fmt: skip
    loaded = done.stderr.split()
    ours = [name for name in loaded if name.startswith("lockstep.cli.")]
    assert ours == [f"lockstep.cli.{name}" for name in ("interrupts", "main", "screen", "verbs")]
    assert [name for name in SLOW if name in loaded] == []


def test_version_is_one_line(place: Any) -> None:
    assert place.lockstep("--version").out == f"lockstep {VERSION}\n"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_of_every_verb_has_one_form(verb: tuple[str, ...]) -> None:
    text = CliRunner().invoke(cli, [*verb, "--help"]).output
    assert 0 < text.index("Examples:") < text.index("Options:")
    assert f"lockstep {' '.join(verb)}" in text
    assert CliRunner().invoke(cli, ["help", *verb]).output == text
    if not isinstance(VERBS[verb], Group):
        assert 0 < text.index("Exit codes:") < text.index("Options:")
        options = [name for param in VERBS[verb].params for name in param.opts]
        assert ("--json" in options) is (verb not in RESULTLESS)


def test_every_verb_is_listed_by_what_it_is_and_names_others() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["--help"]).output.split())
    for name, (short, related) in LISTED.items():
        assert f"{name} {short}" in shown
        assert VERBS[(name,)].short_help in (None, short)
        assert related and set(related) <= set(LISTED) - {name}
        text = CliRunner().invoke(cli, [name, "--help"]).output
        assert f"See also: lockstep {related[0]}" in text


def test_every_verb_and_its_options_are_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text().replace("\\|", "|")
    for name in LISTED:
        command = VERBS[(name,)]
        assert f"`{name} " in text.replace(f"`{name}`", f"`{name} "), name
        if not isinstance(command, Group):
            options = [o for p in command.params for o in p.opts if o.startswith("--")]
            line = next(line for line in text.splitlines() if line.startswith(f"| `{name}"))
            missing = [o for o in options if o != "--json" and o not in line]
            assert missing == [], name


def test_every_option_of_verbs_within_verbs_is_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for path, command in VERBS.items():
        if len(path) > 1 and path[0] != "bench":  # docs/benchmarks.md has theirs.
            options = [o for p in command.params for o in p.opts if o.startswith("--")]
            assert [o for o in options if o not in text] == [], path


def test_the_document_says_what_a_fork_may_change() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    part = text.split("May change:")[1].split("Every other key")[0]
    assert re.findall(r"`([\w.]+)`", part) == list(MAY_CHANGE)


def test_without_a_verb_help_is_shown(place: Any) -> None:
    result = place.lockstep()
    assert result.code == 2 and "lockstep doctor" in result.out and result.err == ""
    assert all(verb in result.out for verb in LISTED)


def test_a_bug_is_one_line_and_its_traceback_a_file(place: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from lockstep.cli import main, top\n"
        "def look(run): raise KeyError('\\x1b[31mboom')\n"
        "top.look = look\n"
        "sys.exit(main.main(['top', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=place.env | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith("lockstep: bug: KeyError: ") and done.stderr.count("\n") == 1
    (kept,) = tmp_path.glob("lockstep/reports/lockstep-bug-*.txt")
    assert str(kept) in done.stderr and "\x1b" not in done.stderr
    assert "Traceback (most recent call last)" in kept.read_text()


def test_a_bug_in_a_child_keeps_the_childs_traceback(place: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from lockstep.cli import child, main, top\n"
        "top.look = lambda run: child.call('trying', 'json:loads', 'no json')\n"
        "sys.exit(main.main(['top', 'x']))"
    )
    env = place.env | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 70 and "trying: JSONDecodeError" in done.stderr
    (kept,) = tmp_path.glob("lockstep/reports/lockstep-bug-*.txt")
    assert "raw_decode" in kept.read_text()


STUB = """
import os, signal, sys
def late(*found):
    if found[0] == "click":  # One of the first imports of main.py.
        print("there", flush=True)
        os.read(0, 1)  # For ever: a signal ends it.
sys.addaudithook(lambda event, found: event == "import" and late(*found))
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[:] = ["/usr/bin/lockstep"]
import lockstep.cli.main
"""


def test_an_interrupt_while_it_is_still_importing_shows_no_traceback(place: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", STUB], env=place.env, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == b""
    assert process.returncode == -signal.SIGINT


def test_an_import_as_a_library_keeps_the_handler() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


def test_streams_that_are_closed_from_the_start_do_no_harm(place: Any) -> None:
    script = 'exec "$0" -m lockstep.cli.main --version >&- 2>&- <&-'
    done = subprocess.run(["/bin/sh", "-c", script, sys.executable], env=place.env, check=False)
    assert done.returncode == 0


def test_help_into_a_closed_pipe_is_quiet(place: Any) -> None:
    process = place.start("--help")
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() == 0


REFUSED = [
    (["run"], 2, "Missing argument 'FLEET' (lockstep run --help)"),
    (["verify", "nowhere"], 2, "nowhere: no such folder"),
    (["journal", "check", "\x1b[31m"], 2, "\\x1b[31m: no run in this folder"),
    (["rnu"], 2, "unknown verb 'rnu'; did you mean 'run'?"),
]


@pytest.mark.parametrize(("args", "code", "text"), REFUSED)
def test_a_refused_command_is_an_object_for_who_asked_for_json(
    place: Any, args: list[str], code: int, text: str
) -> None:
    result = place.lockstep(*args, "--json")
    assert result.code == code and result.out.count("\n") == 1
    assert set(result.json) == {"error", "exit_code"} and result.json["exit_code"] == code
    assert text in result.json["error"] and text in result.err
    plain = place.lockstep(*args)
    assert (plain.code, plain.out) == (code, "")


def test_json_behind_two_dashes_is_an_argument(place: Any) -> None:
    result = place.lockstep("verify", "--", "--json")
    assert (result.code, result.out) == (2, "") and "--json: no such folder" in result.err


def test_a_bug_is_an_object_too(place: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from lockstep.cli import main, top\n"
        "def look(run): raise KeyError('boom')\n"
        "top.look = look\n"
        "sys.exit(main.main(['top', 'x', '--json']))"
    )
    env = place.env | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True,
                          check=False)  # fmt: skip
    value = json.loads(done.stdout)
    assert (done.returncode, value["exit_code"]) == (70, 70) and "KeyError" in value["error"]


def test_a_refusal_with_json_into_a_full_disk_is_one_line(place: Any) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lockstep.cli.main", "verify", "nowhere", "--json"],
            env=place.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
