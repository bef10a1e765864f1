"""Compilers that make WebAssembly: which is here, what it is told, what to do when there is none.

No shell, and relative paths in the folder of the source: the same source gives the same module,
wherever it lies. What a compiler prints goes to standard error as it is.
"""

import importlib.util
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lockstep.engine.errors import UsageError

HEADERS = Path(__file__).parent / "starter"  # lockstep.h, for sources that have none beside them.
C_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror=date-time", "-Wl,-z,stack-size=65536",
           "-Wl,--strip-all")  # fmt: skip
C_BARE = ("--target=wasm32-freestanding", "-nostdlib", "-Wl,--no-entry")
C_LIBC = ("--target=wasm32-wasi",)
C_CURE = "pip install ziglang (or, as Debian has them: apt install clang lld)"
RUST_TARGET = "wasm32-unknown-unknown"
CARGO, SOURCE = "Cargo.toml", "agent.c"


@dataclass(frozen=True, slots=True)
class Source:
    """What an agent is built of.

    Attributes:
        path: A C source, or the Cargo.toml of a Rust one.
        libc: C: link WASI's libc, for an agent with ``int main(void)``.
    """

    path: Path
    libc: bool = False

    @property
    def module(self) -> Path:
        """Where its module goes."""
        rust = self.path.name == CARGO
        return self.path.with_name("agent.wasm") if rust else self.path.with_suffix(".wasm")

    def build(self, scratch: Path) -> Path:
        """Make its module.

        Args:
            scratch: An empty folder; a module in C is made in it.

        Raises:
            UsageError: there is no compiler for it, or that refused; it has said why.
        """
        if self.path.name == CARGO:
            return _cargo(self.path)
        return _c(self, scratch / "agent.wasm")


def is_source(path: Path) -> bool:
    """Whether a path means something to build."""
    return path.is_dir() or path.suffix == ".c" or path.name == CARGO


def source_of(path: Path, libc: bool = False) -> Source:
    """The source that a path means: itself, or the one in a folder.

    Raises:
        UsageError: there is none, or several.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if not is_source(path):
        raise UsageError(f"{path}: expected a C source (.c), {CARGO}, or a folder with one")
    if path.is_dir():
        path = _in_folder(path)
    if libc and path.name == CARGO:
        raise UsageError(f"{path}: --libc is for C")
    return Source(path, libc)


def _in_folder(folder: Path) -> Path:
    for name in (CARGO, SOURCE):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.c"))
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{folder}: {len(found)} C sources; name one, such as {found[0]}")
    raise UsageError(
        f"{folder}: no C source and no {CARGO} (lockstep agent new DIR makes an agent)"
    )


def c_compiler() -> list[str]:
    """The command of a C compiler that makes WebAssembly.

    Raises:
        UsageError: none is here; how to get one is said.
    """
    found = importlib.util.find_spec("ziglang")
    for folder in found.submodule_search_locations or () if found else ():
        if (Path(folder) / "zig").is_file():
            return [str(Path(folder) / "zig"), "cc"]
    if zig := shutil.which("zig"):
        return [zig, "cc"]
    clang = shutil.which("clang")
    if clang and _links(clang):
        # Its loops become calls of memcpy and memset, which zig brings along, and it does not.
        return [clang, "-mbulk-memory"]
    there = (
        "clang is here, but not its linker wasm-ld" if clang else "neither zig nor clang is here"
    )
    raise UsageError(f"no C compiler that makes WebAssembly: {there}; {C_CURE}")


def _links(clang: str) -> bool:
    """Whether it finds the linker for WebAssembly, which packages leave apart."""
    asked = subprocess.run(
        [clang, "-print-prog-name=wasm-ld"], capture_output=True, text=True, check=False
    )
    return shutil.which(asked.stdout.strip() or "wasm-ld") is not None


def _c(source: Source, target: Path) -> Path:
    # A lockstep.h beside the source goes before ours: it may be one that the agent was written for.
    command = [*c_compiler(), *(C_LIBC if source.libc else C_BARE), *C_FLAGS]
    command += ["-idirafter", str(HEADERS.resolve()), source.path.name, "-o", str(target)]
    _call(command, source.path)
    return target


def _cargo(manifest: Path) -> Path:
    cargo, rustc = shutil.which("cargo"), shutil.which("rustc")
    if cargo is None or rustc is None:
        raise UsageError(f"{manifest}: cargo is not here: https://rustup.rs has it")
    _check_rust_target(rustc)
    said = _call(
        [cargo, "build", "--release", f"--target={RUST_TARGET}",
         "--message-format=json-render-diagnostics"],
        manifest,
    )  # fmt: skip
    made = [
        Path(file)
        for line in said.splitlines()
        if line.startswith("{")
        for file in json.loads(line).get("filenames", ())
        if file.endswith(".wasm")
    ]
    if len(made) != 1:
        raise UsageError(f'{manifest}: {len(made)} modules, expected one (crate-type "cdylib")')
    return made[0]


def _check_rust_target(rustc: str) -> None:
    command = [rustc, "--print=target-libdir", f"--target={RUST_TARGET}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if not Path(asked.stdout.strip() or "-").is_dir():
        raise UsageError(f"Rust's {RUST_TARGET} is not here: rustup target add {RUST_TARGET}")


def _call(command: list[str], source: Path) -> str:
    """Run a compiler in the source's folder; what it prints on standard output.

    Raises:
        UsageError: it refused.
    """
    done = subprocess.run(
        command, cwd=source.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise UsageError(f"{source}: the compiler refused it ({Path(command[0]).name}, above)")
    return done.stdout
