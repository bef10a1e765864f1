"""Build: setup.cfg says what is in the wheel. With LOCKSTEP_COMPILE=1 its hot modules are machine code.

mypyc makes C of modules as they stand, by their annotations; the results of both forms are the same,
bit for bit (docs/install.md). The .py files stay in the wheel beside the extensions: Python takes
the extension, people and tracebacks the source.
"""

import os
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
WANTED = os.environ.get("LOCKSTEP_COMPILE", "") not in ("", "0")
COMPILER = "mypy>=2.4,<3"  # Brings mypyc. Asked for only where it is wanted.

# What a turn, a step or a message goes through. What a run does once stays Python: compiled it would
# only make the wheel larger and the build longer.
MODULES = {
    "shm": "cursor doorbell exchange header ring side slots walk",
    "engine": "actions agenda calls counts digest effects fleet history itemdesk items keyed mailbox "
    "model_queue order outside plan planner post prefix record reports requests roster running "
    "sequencer slots standing stepper tag toolbook tooldesk wire world",
    "engine/journal": "format parts writer",
    "engine/schedule": "base dag edges events groups round_robin",
    "workers": "journal_file ledger links loop placement seat stalls storage switchboard view",
    "workers/agent": "channel clock fuel lane turn",
    "workers/outside": "doors gate",
}


class Compiled(Distribution):
    """A wheel of this platform, not of any."""

    def has_ext_modules(self) -> bool:
        """As said; the extensions themselves are known later, when the compiler is there."""
        return WANTED


class Compile(build_ext):
    """Makes C of the modules, then extensions of the C."""

    def finalize_options(self) -> None:
        """As of the base class, once there are extensions."""
        if WANTED and not self.distribution.ext_modules:
            self.distribution.ext_modules = extensions(Path(self.build_temp or "build"))
        super().finalize_options()


def extensions(place: Path) -> list[Extension]:
    from mypyc.build import mypycify

    place = Path(tempfile.mkdtemp())
    packages = place / "lockstep"
    packages.mkdir()
    paths = []
    for package in ("shm", "engine", "workers"):
        (packages / package).symlink_to(ROOT / package)
    for folder, names in MODULES.items():
        paths += [str(packages / folder / f"{name}.py") for name in names.split()]
    os.environ["MYPYPATH"] = str(place)
    options = ["--config-file=", "--namespace-packages", "--explicit-package-bases",
               "--ignore-missing-imports", "--no-site-packages", "--follow-imports=silent"]
    return mypycify([*options, *paths], opt_level=os.environ.get("OPT", "3"), debug_level="0",
                    target_dir=str(place / "c"), group_name="lockstep")


setup(
    distclass=Compiled,
    cmdclass={"build_ext": Compile},
    setup_requires=[COMPILER] if WANTED else [],
)
