"""A contestant is a process that answers lines; whatever it does, it ends with its user."""

import os
import sys
from pathlib import Path

import pytest

from lockstep.bench.line import Line
from lockstep.engine.errors import UsageError

HELLO = "out.write(b'{\"agents\": 2}\\n')\n"
ECHO = "for line in iter(given.readline, b''): out.write(line)\n"


def line(tmp_path: Path, body: str, first_line: bytes = b"", **more: float) -> Line:
    script = tmp_path / "contestant.py"
    opened = (
        "given, out = [open(int(n), m, buffering=0) for n, m in zip(sys.argv[1:], 'rb wb'.split())]"
    )
    script.write_text(f"import sys\n{opened}\n{body}")
    return Line("echo", [sys.executable, str(script)], os.environ, first_line, **more)


def test_it_says_hello_and_answers_line_by_line(tmp_path: Path) -> None:
    with line(tmp_path, HELLO + ECHO) as contestant:
        assert contestant.hello == {"agents": 2}
        assert contestant.ask(turns=3) == {"turns": 3}
        assert contestant.ask(turns=4) == {"turns": 4}


def test_it_ends_when_nobody_asks_any_more(tmp_path: Path) -> None:
    with line(tmp_path, HELLO + ECHO) as contestant:
        pid = contestant.pid
    assert not Path(f"/proc/{pid}").exists()


def test_its_first_line_comes_by_standard_input(tmp_path: Path) -> None:
    with line(tmp_path, "out.write(sys.stdin.buffer.readline())\n", b'{"job": 1}\n') as contestant:
        assert contestant.hello == {"job": 1}


def test_one_that_dies_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="echo: its process ended: no such thing"):
        line(tmp_path, "sys.exit('no such thing')\n")


def test_one_that_dies_in_a_round_is_named_with_its_last_words(tmp_path: Path) -> None:
    body = HELLO + "given.readline()\nsys.exit('out of breath')\n"
    with (
        line(tmp_path, body) as contestant,
        pytest.raises(UsageError, match="echo: its process ended: out of breath"),
    ):
        contestant.ask(turns=1)


def test_one_that_hangs_is_killed_and_named(tmp_path: Path) -> None:
    body = "print('waiting', flush=True)\ngiven.readline()\n"
    with pytest.raises(UsageError, match=r"echo: no answer in 5 s: waiting"):
        line(tmp_path, body, answer_s_max=5.0)
