"""Build. All is said in setup.cfg, but how a wheel is made whose hot modules are machine code.

``LOCKSTEP_COMPILE=1 pip install .`` asks for one (docs/install.md): mypyc makes C of the modules as
they stand. They stay in the wheel beside the extensions made of them, which Python prefers; so a
module that is not on the list, or is taken off it, is interpreted, and everything else is the same.
"""

import os
import shutil
import sys
import sysconfig
from contextlib import chdir
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
WANTED = os.environ.get("LOCKSTEP_COMPILE", "") not in ("", "0")
COMPILER = "mypy>=2.4,<3"  # Brings mypyc. The build asks for it only where it is wanted.

# What every turn, step and message goes through. Not here, and not to be added: what is handed by
# its address to C (a compiled function lets go of a variable after its last use, not at its end),
# what is run by ``python -m``, and what a run does once.
MODULES = {
    "shm": "cursor doorbell exchange header ring side slots walk",
    "engine": "actions agenda calls counts digest effects ending fleet history horizon itemdesk"
    " items keyed mailbox order outside post record reports requests roster running sequencer"
    " standing tag ticketdesk toolbook tooldesk wire world",
    "engine/journal": "format parts writer",
    "engine/schedule": "base calls dag edges events groups round_robin",
    "workers": "engine_links journal_file ledger links loop placement seat stalls storage"
    " switchboard view",
    "workers/agent": "channel clock fuel lane turn",
    "workers/outside": "doors gate",
}
# mypyc takes types from the annotations of these modules alone: what is installed beside them must
# not change what is made of them. Whether they are right is the type checker's business.
OPTIONS = (
    *("--config-file=", "--namespace-packages", "--explicit-package-bases"),
    *("--follow-imports=silent", "--ignore-missing-imports", "--no-site-packages"),
)


class Compiled(Distribution):
    """A wheel for this platform and Python, where it is wanted."""

    def has_ext_modules(self) -> bool:
        """Known before the extensions are."""
        return WANTED


class Compile(build_ext):
    """Makes the extensions, then builds them."""

    def finalize_options(self) -> None:
        """As of the base class; first, there have to be extensions."""
        self.set_undefined_options("build", ("build_temp", "build_temp"))
        if WANTED and not self.distribution.ext_modules:
            self.distribution.ext_modules = extensions(Path(self.build_temp).resolve())
        super().finalize_options()


def extensions(place: Path) -> list:
    """The C of all `MODULES`, one library and a thin extension for each of them.

    Args:
        place: Folder for what is made on the way.
    """
    check()
    from mypyc.build import mypycify

    tree = place / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "lockstep").mkdir(parents=True)
    for top in sorted({folder.split("/")[0] for folder in MODULES}):
        (tree / "lockstep" / top).symlink_to(ROOT / top)
    paths = [f"lockstep/{f}/{n}.py" for f, names in MODULES.items() for n in names.split()]
    with chdir(tree):  # So that paths in tracebacks are those of the packages.
        return mypycify(
            [*OPTIONS, *paths],
            opt_level="1",  # Nothing is gained above: what costs is memory, not instructions.
            debug_level="0",
            target_dir=str(place / "c"),
            group_name="lockstep",
        )


def check() -> None:
    """Whether what the build needs is there, before minutes go by."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None:
        refuse(f"there is no C compiler {compiler} here (Debian: apt install gcc libc6-dev)")
    if not header.is_file():
        refuse(f"there is no {header} (Debian: apt install python3-dev)")
    try:
        import mypyc.build  # noqa: F401
    except ImportError:
        refuse(f"there is no mypyc in this environment (pip install '{COMPILER}')")


def refuse(why: str) -> None:
    """End the build with one sentence."""
    sys.exit(f"LOCKSTEP_COMPILE: {why}; without LOCKSTEP_COMPILE the build needs none of this")


if __name__ == "__main__":
    if WANTED and {"editable_wheel", "develop", "--inplace"} & set(sys.argv):
        refuse("an editable installation stays Python: extensions would hide what is edited")
    setup(
        distclass=Compiled,
        cmdclass={"build_ext": Compile},
        setup_requires=[COMPILER] if WANTED else [],
    )
