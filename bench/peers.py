"""Peers: the runtimes Lockstep is measured beside, each in an environment of its own.

``lockstep bench setup`` makes the environments under the cache folder; measuring installs nothing.
A peer that is not there is skipped and named, with how to get it. Packages of two peers may clash
(Ray and autogen-core want other versions of protobuf), so that no two share an environment.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.bench.line import ANSWER_S_MAX, Line
from lockstep.engine.errors import UsageError

DONE = "done.json"  # Written last into an environment: it is whole.
SAID_CHARS_MAX = 400
HOST = Path(__file__).parent / "peer" / "host.py"

# No peer tells anybody that it is measured, or asks for what is not there.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment of a peer.

    Attributes:
        name: Of its folder.
        requirements: What pip installs; empty: the interpreter alone.
        megabytes: About what is downloaded, for the person who waits.
    """

    name: str
    requirements: tuple[str, ...]
    megabytes: int

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        return cache_folder() / "peers" / self.name

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python") if self.requirements else sys.executable

    def ready(self) -> bool:
        """Whether it was made, for these requirements and this version of Python."""
        return not self.requirements or _read(self.folder / DONE) == self._wanted()

    def make(self, tell: Tell) -> None:
        """Make it, unless it is there.

        Raises:
            UsageError: it cannot be made, or pip could not get the packages.
        """
        if self.ready():
            tell(f"{self.name}: there")
            return
        wanted = " ".join(self.requirements)
        tell(f"{self.name}: installing {wanted} (about {self.megabytes} MB) into {self.folder}")
        shutil.rmtree(self.folder, ignore_errors=True)  # Of another version, or half made.
        self._call([sys.executable, "-m", "venv", str(self.folder)])
        pip = [self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        self._call([*pip, *self.requirements])
        (self.folder / DONE).write_text(json.dumps(self._wanted()), encoding="utf-8")
        tell(f"{self.name}: done")

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)  # fmt: skip
        if done.returncode:
            said = done.stdout.decode("utf-8", "replace").strip()
            errors = [line for line in said.splitlines() if line.startswith("ERROR")]
            why = "; ".join(errors) or said or f"exit status {done.returncode}"
            raise UsageError(
                f"environment {self.name} ({' '.join(self.requirements)}) was not "
                f"made: {why[-SAID_CHARS_MAX:]} (it needs a package index: a network or pip's own "
                "settings)"
            )

    def _wanted(self) -> dict[str, Any]:
        return {"requirements": list(self.requirements), "python": list(sys.version_info[:3])}


PLAIN = Environment("plain", (), 0)
AUTOGEN = Environment("autogen", ("autogen-core==0.7.5",), 10)
GENAI = Environment("genai", ("onnxruntime-genai==0.18.0", "onnxruntime==1.32.0"), 60)
HF = Environment("hf", ("torch==2.15.0", "transformers==5.23.0"), 3000)
# Built from source: it wants a C++ compiler and some minutes.
LLAMACPP = Environment("llamacpp", ("llama-cpp-python==0.3.36", "gguf==0.19.0"), 80)
PYZMQ = Environment("pyzmq", ("pyzmq==27.3.0",), 1)
RAY = Environment("ray", ("ray==2.60.0", "numpy>=2.2,<3"), 100)


@dataclass(frozen=True, slots=True)
class Peer:
    """A runtime that a ratio is about.

    Attributes:
        script: In bench/peer/, without the ending.
        environment: Where it runs.
    """

    script: str
    environment: Environment

    def start(self, answer_s_max: float = ANSWER_S_MAX) -> Line:
        """Start it; its hello has ``versions``, requests and answers are as its script says.

        Args:
            answer_s_max: It is killed when an answer takes longer.

        Raises:
            UsageError: it died while it started.
        """
        command = [self.environment.python, "-P", str(HOST), self.script]
        return Line(self.script, command, {**os.environ, **QUIET}, answer_s_max=answer_s_max)

    def missing(self, group: str) -> tuple[str, str] | None:
        """Why it cannot be measured and how to get it, for `Report.skipped`; None: it is there."""
        if self.environment.ready():
            return None
        why = f"{' '.join(self.environment.requirements)} is not there"
        return why, f"lockstep bench setup {group}"


def cache_folder() -> Path:
    """Where models and environments of benchmarks are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lockstep" / "bench"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def make_all(environments: Iterable[Environment], tell: Tell) -> None:
    """Make several.

    Raises:
        UsageError: one or more cannot be made; the others are.
    """
    problems = []
    for environment in dict.fromkeys(environments):
        try:
            environment.make(tell)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems))
