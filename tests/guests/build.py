"""Builds every guest: of the tests, the runtime, `bench` and the example; notes what built them.

``python tests/guests/build.py`` with `ziglang` installed. The built modules are committed beside
their sources; ``build.json`` names the compiler's version, the hash of each module, and that of
what it was built of.
"""

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOTES = HERE / "build.json"
COMMON = ("-O2", "-Wall", "-Wextra", "-Werror", "-Wl,-z,stack-size=65536", "-Wl,--strip-all")
BARE = ("--target=wasm32-freestanding", "-nostdlib", "-Wl,--no-entry", *COMMON)
WASI = ("--target=wasm32-wasi", *COMMON)

FLAGS = {
    "asker": BARE,
    "burner": BARE,
    "caller": BARE,
    "chat": BARE,
    "chatter": BARE,
    "echo": BARE,
    "echo_reactor": BARE,
    "hello_wasi": WASI,
    "keeper": BARE,
    "looper": BARE,
    "pacer": BARE,
    "poser": BARE,
    "probe": BARE,
    "router": BARE,
    "talker": BARE,
    "teller": BARE,
    "ticker": BARE,
    "trapper": BARE,
}
SERVICE = {"calls": BARE}
EXAMPLES = {"judge": BARE, "solver": BARE}
BENCH = {"converse": BARE, "flood": BARE, "pass": BARE, "relay": BARE, "think": BARE}


def sources() -> dict[Path, tuple[str, ...]]:
    """Every C source and the flags it is built with."""
    found = {HERE / f"{name}.c": flags for name, flags in FLAGS.items()}
    vote, bench = ROOT / "examples" / "vote", ROOT / "bench" / "guests"
    found.update({vote / f"{name}.c": flags for name, flags in EXAMPLES.items()})
    outside = ROOT / "workers" / "outside"
    found.update({outside / f"{name}.c": flags for name, flags in SERVICE.items()})
    found.update({bench / f"{name}.c": flags for name, flags in BENCH.items()})
    return found


def hash_of(source: Path, flags: tuple[str, ...]) -> str:
    """Of all that a module is built of but the compiler: source, header and flags."""
    header = ROOT / "sdk" / "lockstep.h"
    parts = [source.read_bytes(), header.read_bytes(), repr(flags).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def build(source: Path, target: Path, flags: tuple[str, ...]) -> None:
    """Compile one module; relative paths, so that nothing of this machine gets into it.

    Raises:
        CalledProcessError: the compiler refused.
    """
    command = [sys.executable, "-m", "ziglang", "cc", *flags, "-I", "sdk"]
    command += [os.path.relpath(source, ROOT), "-o", str(target)]
    subprocess.run(command, cwd=ROOT, check=True)
    target.chmod(0o644)


def main() -> None:
    """Build all of them in place."""
    made, of = {}, {}
    for source, flags in sorted(sources().items()):
        target = source.with_suffix(".wasm")
        build(source, target, flags)
        made[source.stem] = hashlib.sha256(target.read_bytes()).hexdigest()
        of[source.stem] = hash_of(source, flags)
    notes = {"ziglang": version("ziglang"), "sha256": made, "sources": of}
    NOTES.write_text(json.dumps(notes, indent=2) + "\n")


if __name__ == "__main__":
    main()
