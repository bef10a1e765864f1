"""Completion: what a shell offers for what was typed so far, without loading anything heavy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.cli.completion import SHELLS, answer
from lockstep.cli.main import cli
from lockstep.cli.verbs import COMPLETE
from lockstep.engine.changes import MAY_CHANGE

Offered = Callable[[Any, str], list[str]]
PROGRAM = [sys.executable, "-m", "lockstep.cli.main"]
HEAVY = ("numpy", "wasmtime", "onnxruntime", "posix_ipc", "psutil", "tokenizers", "jinja2")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offered:
    """What is offered at the end of a line, as ``kind,value``."""

    def offer(place: Any, typed: str) -> list[str]:
        monkeypatch.chdir(place.path)
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
        assert answer(cli, "bash_complete") == 0
        return capsys.readouterr().out.splitlines()

    return offer


OFFERED = {
    "lockstep re": ["plain,replay", "plain,resume"],
    "lockstep run --ord": ["plain,--order"],
    "lockstep run --order ": ["plain,strict", "plain,arrival"],
    "lockstep journal ex": ["plain,export"],
    "lockstep verify ": ["plain,runs/small-1"],
    "lockstep top ": ["plain,runs/small-1"],
    "lockstep diff runs/small-1 ru": ["plain,runs/small-1"],
    "lockstep replay runs/small-1 --agent ": ["plain,ask", "plain,echo"],
    "lockstep journal show runs/small-1 --agent e": ["plain,echo"],
    "lockstep resume elsewhere/": ["dir,elsewhere/"],
    "lockstep fork runs/small-1 --set fleet.s": [
        f"plain,{key}=" for key in MAY_CHANGE if key.startswith("fleet.s")
    ],
    "lockstep model inspect models/": ["plain,models/tiny"],
}


@pytest.mark.parametrize("typed", OFFERED)
def test_what_may_follow_is_offered(done: Any, offered: Offered, typed: str) -> None:
    place = done[0]
    (place.path / "models/tiny").mkdir(parents=True, exist_ok=True)
    (place.path / "models/tiny/genai_config.json").touch()
    assert offered(place, typed) == OFFERED[typed]


def test_runs_are_offered_in_the_order_of_their_numbers(place: Any, offered: Offered) -> None:
    for number in (10, 9, 1):
        run = place.path / "runs" / f"vote-{number}"
        (run / "journal").mkdir(parents=True)
        (run / "fleet.toml").touch()
    found = offered(place, "lockstep verify ")
    assert found == [f"plain,runs/vote-{number}" for number in (1, 9, 10)]


def test_an_answer_loads_nothing_heavy(done: Any) -> None:
    code = (
        "import sys; from lockstep.cli.main import main\n"
        "assert main([]) == 0\n"
        f"print(*(m for m in {HEAVY!r} + ('lockstep.workers',) if m in sys.modules), end='')"
    )
    env = {COMPLETE: "zsh_complete", "COMP_WORDS": "lockstep ", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=done[0].path, env=done[0].env | env, capture_output=True,
                           text=True, check=False)  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "plain\nrun\nRun a fleet" in ended.stdout and ended.stdout.endswith("verb.\n")


def test_a_shell_that_asks_nonsense_hears_nothing(place: Any) -> None:
    for asked in ("bash_complete", "nu_complete", ""):
        done = subprocess.run(PROGRAM, env=place.env | {COMPLETE: asked}, capture_output=True,
                              check=False)  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_that_the_shell_takes(place: Any, shell: str) -> None:
    script = place.lockstep("completion", shell)
    assert script.code == 0 and COMPLETE in script.out and script.err == ""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    (place.path / "script").write_text(script.out)
    checked = subprocess.run([shell, "-n", "script"], cwd=place.path, capture_output=True,
                             text=True, check=False)  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_a_verb_by_the_script(place: Any, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not here")
    program = tmp_path / "lockstep"
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$("$0" completion bash)"; COMP_WORDS=(lockstep journal ex); COMP_CWORD=2; '
        '_lockstep_completion "$0"; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", script, str(program)], env=place.env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "export\n", "")
