"""The compiled form (setup.py): who is on its list, what is refused, and that it says the same.

The nightly part compiles, which takes minutes, and lets both forms do the same work:
``pytest -m nightly tests/test_compiled.py``. A compiled installation made before is tested instead
with ``LOCKSTEP_COMPILED=FOLDER`` (what ``pip install --target FOLDER`` or `make compiled` made).
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUP = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
GOLDEN = ROOT / "tests/data/journals"
PATHS_TAKEN = ("addressof", "from_buffer")  # Of a ctypes object that a local name keeps alive.
MAKE_C = """
import runpy, sys
from pathlib import Path
runpy.run_path("setup.py")["extensions"](Path(sys.argv[1]))
"""
BUILD_S_MAX = 1800
SUITE_S_MAX = 3600


def modules() -> list[str]:
    """Paths of the modules on the list, from the root."""
    for node in SETUP.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES":
            listed: dict[str, str] = ast.literal_eval(node.value)
            return [f"{folder}/{n}.py" for folder, names in listed.items() for n in names.split()]
    raise AssertionError("setup.py has no MODULES")


def build(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py, as pip does."""
    environment = {**os.environ, "LOCKSTEP_COMPILE": "1", **variables}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BUILD_S_MAX,
    )  # fmt: skip


def test_every_module_on_the_list_is_there_once() -> None:
    listed = modules()
    assert [name for name in listed if not (ROOT / name).is_file()] == []
    assert len(set(listed)) == len(listed)
    assert not [name for name in listed if name.endswith("__init__.py")]


@pytest.mark.parametrize("name", modules())
def test_a_compiled_module_hands_no_address_to_c(name: str) -> None:
    # Compiled code lets go of a local name after its last use: what lies at the address is gone.
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    found = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert [attribute for attribute in found if attribute in PATHS_TAKEN] == []
    assert "native.address" not in (ROOT / name).read_text(encoding="utf-8")


def test_an_editable_installation_is_never_compiled() -> None:
    pytest.importorskip("setuptools")
    done = build("build_ext", "--inplace")
    assert done.returncode and "an editable installation stays Python" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_c_compiler_is_said_in_one_line_before_anything_is_built(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    done = build("build", "--build-base", str(tmp_path), PATH=str(tmp_path))
    assert done.returncode and "there is no C compiler" in done.stderr
    assert done.stderr.rstrip().endswith("without LOCKSTEP_COMPILE the build needs none of this")
    assert not list(tmp_path.rglob("__native*.c"))


def test_mypyc_makes_c_of_every_module_on_the_list(tmp_path: Path) -> None:
    for needed in ("setuptools", "mypyc"):
        pytest.importorskip(needed)
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAKE_C, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = (tmp_path / "c/__native_lockstep.c").read_text(encoding="utf-8")
    assert all(f'"lockstep.{name[:-3].replace("/", ".")}"' in made for name in modules())


def classes(path: Path) -> list[ast.ClassDef]:
    """Of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_classes_on_the_list_that_others_are_made_of_allow_it() -> None:
    closed = {
        each.name
        for name in modules()
        for each in classes(ROOT / name)
        if not any("allow_interpreted_subclasses" in ast.unparse(d) for d in each.decorator_list)
    }
    listed = {ROOT / name for name in modules()}
    others = [p for top in ("workers", "cli", "bench") for p in (ROOT / top).rglob("*.py")]
    refused = [
        (path.name, each.name)
        for path in others
        if path not in listed
        for each in classes(path)
        if closed & {base.id for base in each.bases if isinstance(base, ast.Name)}
    ]
    assert refused == []


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Environment of a process that imports compiled modules."""
    given = os.environ.get("LOCKSTEP_COMPILED", "")
    folder = Path(given or tmp_path_factory.mktemp("compiled"))
    if not given:
        for needed in ("setuptools", "mypyc"):
            pytest.importorskip(needed)
        if shutil.which("cc") is None and shutil.which("gcc") is None:
            pytest.skip("there is no C compiler here")
        lib = folder / "lib"
        done = build("build", "--build-base", str(folder / "work"), "--build-lib", str(lib))
        assert done.returncode == 0, done.stderr
        folder = lib
    yield {**os.environ, "PYTHONPATH": str(folder)}


ASKED = """
import json, sys
from lockstep.engine.compiled import is_compiled
from lockstep.workers import replay, verify
folder, models = sys.argv[1], json.loads(sys.argv[2])
again = verify(folder, models=models)
print(json.dumps([is_compiled(), replay(folder).digest, again.recorded, again.equal and again.whole,
                  len(again.notes)]))
"""


def ask(folder: Path, environment: Mapping[str, str]) -> list[object]:
    """What a process of that form says of a golden run: replayed, and executed again."""
    has_model = json.loads((folder / "manifest.json").read_bytes())["environment"]["models"]
    model = {"default": str(ROOT / "tests/data/genai-micro-fp32")} if has_model else None
    command = [sys.executable, "-P", "-c", ASKED, str(folder), json.dumps(model)]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: list[object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["agents", "model", "requests"])
def test_both_forms_make_the_same_of_a_golden_run(
    kind: str, compiled: Mapping[str, str], tmp_path: Path
) -> None:
    golden = max(GOLDEN.glob(f"*-{kind}"))
    said = []
    for number, environment in enumerate((os.environ, compiled)):
        folder = Path(shutil.copytree(golden, tmp_path / f"run{number}"))
        said.append(ask(folder, environment))
    assert [form for form, *_ in said] == [False, True]
    assert said[0][1:] == said[1][1:]
    assert said[1][1] == json.loads((golden / "summary.json").read_bytes())["digest"]


@pytest.mark.nightly
def test_the_tests_of_engine_and_shm_pass_against_the_compiled_form(
    compiled: Mapping[str, str],
) -> None:
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "tests/engine", "tests/shm"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(compiled), capture_output=True, text=True, timeout=SUITE_S_MAX
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.nightly
def test_a_run_is_recorded_in_the_compiled_form(
    compiled: Mapping[str, str], tmp_path: Path
) -> None:
    vote = ROOT / "examples/vote"
    command = [sys.executable, "-P", "-m", "lockstep.cli.main", "profile", str(vote / "fleet.toml")]
    more = ["--input", str(vote / "questions.jsonl"), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, *more], env=dict(compiled), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/profile.json").is_file()
