"""Runs the command line as a process of its own, the way a person does."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lockstep.workers.folder import JOURNAL, OUTPUT, SUMMARY
from lockstep.workers.identity import read_journal

TESTS = Path(__file__).resolve().parents[1]
GUESTS = TESTS / "guests"
MODEL = TESTS / "data" / "genai-micro-fp32"
WATCHDOG_S = 120  # Ends what hangs; nothing is measured by it.
PROGRAM = [sys.executable, "-m", "lockstep.cli.main"]

FLEET = """
[fleet]
name = "small"
[models.default]
path = "{model}"
providers = ["cpu"]
intra_op_threads = 1
[agents.ask]
module = "{guests}/asker.wasm"
config = {{ tokens = 4 }}
[agents.echo]
module = "{guests}/echo.wasm"
input = "broadcast"
"""
ASKS = """
[fleet]
name = "asks"
seed = 3
[models.default]
path = "{model}"
providers = ["cpu"]
intra_op_threads = 1
[agents.ask]
module = "{guests}/asker.wasm"
input = "broadcast"
config = {{ tokens = 6, temperature = 0.9 }}
"""
TRAP = """
[fleet]
name = "trap"
[agents.boom]
module = "{guests}/trapper.wasm"
input = "deal"
config = {{ trap_item = 2 }}
replicas = 3
"""
ENDLESS = """
[fleet]
name = "endless"
[agents.spin]
module = "{guests}/looper.wasm"
turn_fuel_max = 1_000_000_000_000_000_000
input = "broadcast"
[agents.calm]
module = "{guests}/echo.wasm"
"""
ITEMS = '{"id": "a", "n": 1}\n{"id": "b", "n": 2}\n{"id": "c", "n": 3}\n'


@dataclass(frozen=True)
class Result:
    """What a process left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of standard output."""
        value: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return value


@dataclass(frozen=True)
class Place:
    """A working folder with fleets and items in it, and the program."""

    path: Path
    env: dict[str, str]

    def write(self, name: str, text: str) -> str:
        """A file in it; ``{guests}`` and ``{model}`` are filled in."""
        filled = text.format(guests=GUESTS, model=MODEL)
        (self.path / name).write_text(filled, encoding="utf-8")
        return name

    def lockstep(self, *args: str, **more: Any) -> Result:
        """Run to the end. No traceback may come out, whatever happens."""
        done = subprocess.run(
            [*PROGRAM, *args],
            cwd=self.path,
            env=self.env,
            capture_output=True,
            timeout=WATCHDOG_S,
            check=False,
            **{"stdin": subprocess.DEVNULL, **more},
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.out + result.err
        return result

    def start(self, *args: str) -> "subprocess.Popen[str]":
        """Start, with pipes; who calls it waits for its end."""
        return subprocess.Popen(
            [*PROGRAM, *args],
            cwd=self.path,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear,
        )

    def names(self) -> set[str]:
        """What lies in the folder."""
        return {entry.name for entry in self.path.iterdir()}


@pytest.fixture(scope="session")
def env() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return kept | {"TERM": "xterm"}


def _fill(path: Path, env: dict[str, str]) -> Place:
    place = Place(path, env)
    place.write("fleet.toml", FLEET)
    place.write("asks.toml", ASKS)
    place.write("trap.toml", TRAP)
    place.write("endless.toml", ENDLESS)
    (path / "items.jsonl").write_text(ITEMS)
    return place


@pytest.fixture(scope="session")
def fill(env: dict[str, str]) -> Callable[[Path], Place]:
    """Makes a working folder of an empty one, for who shares it among tests."""
    return lambda path: _fill(path, env)


@pytest.fixture
def place(tmp_path: Path, env: dict[str, str]) -> Place:
    """A working folder of this test."""
    return _fill(tmp_path, env)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> tuple[Place, Result]:
    """A finished run (runs/small-1 with --json) that tests of a file have together."""
    place = _fill(tmp_path_factory.mktemp("done"), env)
    args = ("--input", "items.jsonl", "--output", "copy.jsonl", "--json")
    return place, place.lockstep("run", "fleet.toml", *args)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> tuple[Place, Result]:
    """A finished run that asks a model (runs/asks-1, --json): tests of a file have it together."""
    place = _fill(tmp_path_factory.mktemp("asked"), env)
    return place, place.lockstep("run", "asks.toml", "--input", "items.jsonl", "--json")


@pytest.fixture(scope="session")
def cut() -> "Callable[..., Path]":
    """Makes a copy of a run as a crash leaves it."""
    return _cut


def _cut(run: Path, to: Path, frames: int, tail: bytes = b"") -> Path:
    """So many frames, then ``tail``; it was never closed."""
    shutil.copytree(run, to)
    (to / SUMMARY).unlink()
    (to / OUTPUT).write_bytes(b"")
    frame = read_journal(to).frames[frames]
    path = to / JOURNAL
    path.write_bytes(path.read_bytes()[: frame.offset] + tail)
    return to


def _hear() -> None:
    """A background job of a shell ignores Ctrl-C, one of `nohup` SIGHUP; so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


Live = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def live(place: Place) -> Iterator[Live]:
    """Starts the endless fleet in a folder ``run`` and waits until `top` shows it spinning."""
    started: list[subprocess.Popen[str]] = []

    def start(*more: str) -> "subprocess.Popen[str]":
        args = ("run", "endless.toml", "--input", "items.jsonl", "--run-dir", "run", *more)
        process = place.start(*args)
        started.append(process)
        for _ in range(200):  # Each look takes a process start: minutes in all.
            look = place.lockstep("top", "run", "--json")
            if look.code == 0 and "running" in [a["state"] for a in look.json["agents"]]:
                return process
            assert process.poll() is None, process.communicate()
        raise AssertionError("the run did not appear")

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=WATCHDOG_S)
