"""docs/start.md does what it says: its files are made, its commands typed, one after another."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "start.md").read_text()
# What a test does not do: it has an environment, and a place of its own.
LEFT_OUT = ("make vote", "export PATH", "pip install", "mkdir tour", "cd tour")
ELSEWHERE = re.compile(r"\.\./(?=sdk|examples)")


def commands() -> list[tuple[str, int]]:
    """Each command and its exit code."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            code = re.search(r"#.*exit code (\d+)", line)
            if not line.startswith(LEFT_OUT):
                found.append((line, int(code[1]) if code else 0))
    return found


def file(kind: str) -> str:
    """The one block of its kind."""
    (block,) = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return str(block)


@pytest.mark.nightly
def test_the_ten_minutes_go_as_they_are_told(tmp_path: Path) -> None:
    there = f"{shlex.quote(str(ROOT))}/"
    (tmp_path / "adder.c").write_text(file("c"))
    (tmp_path / "fleet.toml").write_text(ELSEWHERE.sub(there, file("toml")))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command, code in commands():
        typed = ELSEWHERE.sub(there, command)
        # Without a shell between it and Ctrl-C.
        shell = ["bash", "-c", f"exec {typed}" if typed.startswith("lockstep") else typed]
        done = subprocess.Popen(shell, cwd=tmp_path, env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)  # fmt: skip
        if "# Ctrl-C" in command:
            _press(done, tmp_path / "runs/broken/output.jsonl")
        told, _ = done.communicate()
        assert done.returncode == code, (command, told)
    answers = (tmp_path / "runs/adder-1/output.jsonl").read_text()
    assert answers.count("\n") == 2 and '"payload"' in answers
    assert (tmp_path / "runs/adder-3/output.jsonl").read_text().count('"error"') == 1


def _press(running: "subprocess.Popen[str]", output: Path) -> None:
    """Ctrl-C, once the first items are answered."""
    while not (output.exists() and output.stat().st_size):
        assert running.poll() is None, running.communicate()
    running.send_signal(signal.SIGINT)


def test_the_ten_minutes_have_commands_and_both_files() -> None:
    assert len(commands()) > 15 and "LS_MAIN" in file("c") and "[agents.adder]" in file("toml")
