"""What may import and call what: layers, and an engine without clock, chance or hidden order."""

import ast
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("engine", "shm", "workers", "cli", "bench")
LOWER = {  # Which layers a layer may import, besides itself.
    "shm": (),
    "engine": ("shm",),
    "workers": ("engine", "shm"),
    "cli": ("bench", "workers", "engine", "shm"),  # `lockstep bench` is a command.
    "bench": ("workers", "engine", "shm"),
}
# Time and chance; processes, threads and the machine; the heavy libraries of the children.
ENGINE_IMPORTS = (
    *("time", "random", "secrets", "uuid"),
    *("threading", "multiprocessing", "concurrent", "asyncio", "subprocess", "socket", "select"),
    *("os", "sys", "signal", "platform", "psutil", "posix_ipc", "glob", "pathlib", "tempfile"),
    *("wasmtime", "onnxruntime"),
)
ENGINE_CALLS = {  # Dotted ends of calls, and why not.
    "hash": "is salted for each process",
    "id": "is an address",
    "listdir": "has no order",
    "scandir": "has no order",
    "iterdir": "has no order",
    "glob": "has no order",
    "rglob": "has no order",
    "datetime.now": "is the clock",
    "datetime.utcnow": "is the clock",
    "datetime.today": "is the clock",
    "date.today": "is the clock",
    "getpid": "is physical",
}
ORDERED_CALLS = ("list", "tuple", "iter", "enumerate", "next", "zip", "map", "filter", "dict")
ORDERED_METHODS = ("join", "extend", "fromkeys", "pop")
LIBRARY_ALIASES = {"np": "numpy", "dt": "datetime"}
FILES = sorted(path for top in TOP for path in (ROOT / top).rglob("*.py"))
OTHERS = sorted(path for top in ("tests", "examples") for path in (ROOT / top).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of each import; ``from a import b`` gives ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def layer_faults(tree: ast.AST, layer: str) -> Iterator[str]:
    """Imports against the one direction: cli -> workers -> engine -> shm."""
    for line, name in imports(tree):
        parts = name.split(".")
        if name.startswith("."):
            yield f"line {line}: relative import {name}"
        elif parts[0] == "lockstep" and len(parts) > 1 and parts[1] not in (layer, *LOWER[layer]):
            yield f"line {line}: {layer} imports {name}"


def bare_faults(tree: ast.AST) -> Iterator[str]:
    """``import engine`` loads a second copy of what `lockstep.engine` is."""
    for line, name in imports(tree):
        if name.split(".")[0] in TOP:
            yield f"line {line}: bare import {name}"


def engine_faults(tree: ast.AST) -> Iterator[str]:
    """What could let a clock, chance, an address or a hidden order into the history."""
    for line, name in imports(tree):
        if name.split(".")[0] in ENGINE_IMPORTS or name.startswith("numpy.random"):
            yield f"line {line}: engine imports {name}"
    sets = set_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node).startswith("numpy.random"):
            yield f"line {node.lineno}: numpy.random"
        if isinstance(node, ast.Call):
            yield from call_faults(node)
        for iterated in iterations(node):
            if is_set(iterated, sets):
                yield f"line {iterated.lineno}: iterates over a set"


def call_faults(node: ast.Call) -> Iterator[str]:
    name = dotted(node.func)
    for end, why in ENGINE_CALLS.items():
        if name == end or name.endswith(f".{end}"):
            yield f"line {node.lineno}: {name}() {why}"
    if name in ("sorted", "min", "max") or name.endswith(".sort"):
        for keyword in node.keywords:
            if keyword.arg == "key" and dotted(keyword.value) in ("repr", "hash", "id"):
                yield f"line {node.lineno}: {name}() by {dotted(keyword.value)}"


def iterations(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions whose order becomes visible."""
    if isinstance(node, ast.For | ast.comprehension):
        yield node.iter
    elif isinstance(node, ast.Starred):
        yield node.value
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in ORDERED_CALLS:
            yield from node.args
        elif isinstance(node.func, ast.Attribute) and node.func.attr in ORDERED_METHODS:
            yield from node.args
            if node.func.attr == "pop":
                yield node.func.value


def set_names(tree: ast.AST) -> dict[str, None]:
    """Last parts of names that are annotated as sets or get one."""
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            kind = node.annotation
            kind = kind.value if isinstance(kind, ast.Subscript) else kind
            if dotted(kind).split(".")[-1] in ("set", "frozenset", "Set", "AbstractSet"):
                name = node.arg if isinstance(node, ast.arg) else dotted(node.target)
                found[name.split(".")[-1]] = None
        elif isinstance(node, ast.Assign) and is_set(node.value, {}):
            found |= {dotted(target).split(".")[-1]: None for target in node.targets}
    return found


def is_set(node: ast.expr, names: Mapping[str, None]) -> bool:
    """Whether an expression is a set, as far as the syntax tells."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub):
        return is_set(node.left, names) or is_set(node.right, names)
    if isinstance(node, ast.Call):
        return dotted(node.func) in ("set", "frozenset")
    name = dotted(node).split(".")[-1]
    return bool(name) and name in names


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an expression, with the usual short names of libraries spelt out."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else node.attr
    if isinstance(node, ast.Name):
        return LIBRARY_ALIASES.get(node.id, node.id)
    return ""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert list(layer_faults(parsed(path), layer)) == []


@pytest.mark.parametrize("path", [*FILES, *OTHERS], ids=name_of)
def test_nobody_loads_a_second_copy_by_a_bare_import(path: Path) -> None:
    assert list(bare_faults(parsed(path))) == []


@pytest.mark.parametrize(
    "path", [p for p in FILES if name_of(p).startswith("engine/")], ids=name_of
)
def test_the_engine_has_no_clock_no_chance_and_no_hidden_order(path: Path) -> None:
    assert list(engine_faults(parsed(path))) == []


def text_files() -> Iterator[tuple[str, str]]:
    """Tracked and untracked text files that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in sorted(dict.fromkeys(listed.decode().split("\0"))):
        path = ROOT / name
        if not name or path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            yield name, data.decode("utf-8", "replace")


def test_no_file_names_a_folder_outside_the_repository() -> None:
    # A checkout must be whole in itself. (Put together here, or this file would be a finding.)
    outside = "../" + "shared"
    found = [name for name, text in text_files() if outside in text]
    assert found == []


# -- canaries: a checker that finds nothing must be able to find something ------------------------


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("engine", "import lockstep.workers.agent"),
        ("engine", "from lockstep.cli import main"),
        ("engine", "from lockstep import workers"),
        ("shm", "from lockstep.engine.errors import RingFull"),
        ("workers", "def late():\n    from lockstep import cli"),
        ("bench", "import lockstep.cli.main"),
        ("workers", "from lockstep import bench"),
        ("engine", "from . import tag"),
        ("engine", "from ..workers import agent"),
    ],
)
def test_an_import_against_the_layers_is_found(layer: str, source: str) -> None:
    assert list(layer_faults(ast.parse(source), layer)) != []


@pytest.mark.parametrize("source", ["import engine", "import shm.ring", "from workers import x"])
def test_a_bare_import_is_found(source: str) -> None:
    assert list(bare_faults(ast.parse(source))) != []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import os",
        "from os import fork",
        "import random",
        "import secrets",
        "import uuid",
        "import threading",
        "import multiprocessing.shared_memory",
        "import wasmtime",
        "import onnxruntime as ort",
        "import socket",
        "def f():\n    import subprocess",
        "import numpy.random",
        "from numpy import random",
        "import numpy as np\nnp.random.default_rng()",
        "d[hash(x)] = 1",
        "seen[id(x)] = 1",
        "sorted(xs, key=repr)",
        "xs.sort(key=id)",
        "for x in {1, 2}: pass",
        "for x in set(xs): pass",
        "for x in frozenset(xs) | ys: pass",
        "[x for x in {y for y in xs}]",
        "list(set(xs))",
        "tuple(set(xs))",
        "[*set(xs)]",
        "b''.join({a, b})",
        "dict.fromkeys(set(xs))",
        "def f(xs: frozenset[int]):\n    for x in xs: pass",
        "self.seen: set[int] = set()\nlist(self.seen)",
        "seen = set()\nseen.pop()",
        "names = Path('.').iterdir()",
        "path.glob('*')",
        "datetime.now()",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "datetime.datetime.utcnow()",
        "datetime.date.today()",
    ],
)
def test_what_the_engine_must_not_do_is_found(source: str) -> None:
    assert list(engine_faults(ast.parse(source))) != []


@pytest.mark.parametrize(
    "source",
    [
        "from lockstep.engine import tag",
        "if x in {1, 2}: pass",
        "x in frozenset(xs)",
        "for x in sorted(set(xs)): pass",
        "record.id",
        "f'{value!r}'",
        "datetime.datetime(2000, 1, 1)",
        "len({1, 2})",
        "def encode(*, id=0): return id",
    ],
)
def test_what_the_engine_may_do_is_not_found(source: str) -> None:
    tree = ast.parse(source)
    assert [*engine_faults(tree), *layer_faults(tree, "engine"), *bare_faults(tree)] == []
