"""`lockstep agent new|build|run`: an agent is made, built and run alone."""

import json
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tensorfolders

from lockstep.cli import agent_run, ending, toolchain
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.engine.record import Kind
from lockstep.workers.launch import Interrupted

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests" / "guests"
MODEL = ROOT / "tests" / "data" / "genai-micro-fp32"
# Whether the compiler that is here built the committed modules: bytes of another are its own.
SAME = json.loads((GUESTS / "build.json").read_text())["ziglang"] == version("ziglang")
RUST = ROOT / "cli" / "agents" / "rust"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_new_makes_is_built_and_run_at_once(place: Any) -> None:
    made = place.lockstep("agent", "new", "my words", "--json")
    assert made.code == 0, made.err
    assert made.json["agent"] == "my-words"
    folder = place.path / "my words"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*")} == set(made.json["files"])
    assert "NAME" not in (folder / "README.md").read_text()
    assert made.json["next"][0] == "lockstep agent run 'my words' --input 'my words/items.jsonl'"
    before = place.names()
    run = place.lockstep("agent", "run", "my words", "--input", "my words/items.jsonl", "--json")
    assert run.code == 0, run.err
    first, second, summary = lines(run.out)
    assert (first["payload"], second["payload"]) == ({"words": 5}, {"words": 1})
    assert (first["agent"], summary["items_out"], summary["run"]) == ("my-words", 2, None)
    assert place.names() == before  # Nothing of the run is kept.
    again = place.lockstep("agent", "new", "my words")
    assert again.code == 2 and "the folder is not empty; nothing was touched" in again.err


def test_a_built_module_is_the_one_that_the_same_source_gave_elsewhere(
    place: Any, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "examples" / "vote" / "solver.c", tmp_path)
    built = place.lockstep("agent", "build", "solver.c", "--json")
    assert built.code == 0, built.err
    assert (built.json["path"], built.json["form"]) == ("solver.wasm", "blocking")
    fresh = (tmp_path / "solver.wasm").read_bytes()
    assert not SAME or fresh == (ROOT / "examples" / "vote" / "solver.wasm").read_bytes()


@pytest.mark.nightly  # The compiler makes WASI's libc first.
def test_an_agent_with_a_main_of_its_own_is_linked_with_libc(place: Any) -> None:
    source = str(GUESTS / "hello_wasi.c")
    built = place.lockstep("agent", "build", source, "--libc", "--output", "hello.wasm", "--json")
    assert built.code == 0 and built.json["entry"] == "_start", built.err
    fresh = (place.path / "hello.wasm").read_bytes()
    assert not SAME or fresh == (GUESTS / "hello_wasi.wasm").read_bytes()


def test_what_a_compiler_says_is_shown_and_the_module_stays(place: Any) -> None:
    (place.path / "agent.c").write_text('#include "lockstep.h"\nLS_MAIN { nonsense(); }\n')
    (place.path / "agent.wasm").write_bytes(b"before")
    refused = place.lockstep("agent", "build", ".")
    assert refused.code == 2 and refused.out == ""
    assert "agent.c:2:11: error: " in refused.err
    assert refused.err.splitlines()[-1].startswith("lockstep: error: agent.c: the compiler refused")
    assert (place.path / "agent.wasm").read_bytes() == b"before"
    (place.path / "agent.c").write_text("int nothing;\n")
    refused = place.lockstep("agent", "build", "agent.c")
    assert refused.code == 2 and "agent.wasm: " in refused.err and "expected" in refused.err
    assert (place.path / "agent.wasm").read_bytes() == b"before"


def test_an_agent_is_fed_by_standard_input_and_its_failures_are_told(place: Any) -> None:
    (place.path / "given").write_text('{"id": 7, "n": 1}\n{"n": 2}\n')
    with open(place.path / "given", "rb") as given:
        run = place.lockstep(
            "agent", "run", str(GUESTS / "trapper.wasm"), "--config", '{"trap_item": 1}',
            stdin=given,
        )  # fmt: skip
    assert run.code == 3, run.err
    assert [(line["id"], "error" in line) for line in lines(run.out)] == [(7, True), (2, True)]
    assert "failed  agent trapper: " in run.err
    assert "--run-dir DIR keeps the run" in run.err


def test_logs_of_an_agent_are_shown_without_their_control_characters(place: Any) -> None:
    run = place.lockstep("agent", "run", str(GUESTS / "hello_wasi.wasm"), "--input", "items.jsonl")
    assert run.code == 0, run.err
    assert "hello from hello_wasi, 1 argument" in run.err and run.out.count("\n") == 3


def test_an_agent_asks_a_folder_of_tensors_as_what_it_is(place: Any) -> None:
    shutil.copy(GUESTS / "poser.wasm", place.path)
    tensorfolders.arithmetic(place.path / "ranker")
    tensor = {"data": [[4, 9]]}
    (place.path / "items.jsonl").write_text(json.dumps({"inputs": {"a": tensor, "b": tensor}}))
    done = place.lockstep(
        "agent", "run", "poser.wasm", "--input", "items.jsonl", "--model", "ranker"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["payload"]["outputs"]["root"]["data"] == [[2.0, 3.0]]


def test_an_agent_that_asks_is_told_of_the_option_for_a_model(place: Any) -> None:
    asker = str(GUESTS / "asker.wasm")
    run = place.lockstep("agent", "run", asker, "--input", "items.jsonl")
    assert run.code == 3
    assert run.err.splitlines()[-1] == (
        "lockstep: error: the agent asks a model, and has none: --model DIR gives it one"
    )


def test_a_kept_run_is_verified_and_is_the_run_of_its_fleet_file(place: Any) -> None:
    asker = str(GUESTS / "asker.wasm")
    run = place.lockstep(
        "agent", "run", asker, "--input", "items.jsonl", "--model", str(MODEL), "--seed", "3",
        "--config", '{"tokens": 3, "temperature": 0.9}', "--run-dir", "kept", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert (run.json["requests"], run.json["tokens_out"], run.json["items_out"]) == (3, 9, 3)
    assert lines(run.out)[:-1] == lines((place.path / "kept/output.jsonl").read_text())
    again = place.lockstep("verify", "kept", "--json")
    assert again.code == 0 and again.json["equal"], again.err
    other = place.lockstep(
        "run", "kept/fleet.toml", "--input", "items.jsonl", "--seed", "3", "--json"
    )
    assert other.json["digest"] == run.json["digest"]


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "a module that is not there": (("run", "nowhere.wasm"), "nowhere.wasm: no such file"),
    "a file that is none": (("run", "items.jsonl"), "expected a core WebAssembly module"),
    "a config that is no JSON": (("run", "echo.wasm", "--config", "{"), "--config: not valid JSON"),
    "a config that is no object": (("run", "echo.wasm", "--config", "[1]"), "expected a JSON obj"),
    "a null": (("run", "echo.wasm", "--config", '{"a": null}'), "null has no form in a fleet"),
    "a model that is none": (("run", "echo.wasm", "--model", "."), "genai_config.json: missing"),
    "a folder without a source": (("build", "empty"), "no C source and no Cargo.toml"),
    "a folder with two": (("build", "two"), "2 C sources; name one, such as two/a.c"),
    "a module to build": (("build", "echo.wasm"), "echo.wasm: expected a C source"),
    "libc for Rust": (("build", "rust", "--libc"), "rust/Cargo.toml: --libc is for C"),
    "a language that is none": (("new", "x", "--language", "go"), "'c', 'rust'"),
}


@pytest.fixture(scope="module")
def there(fill: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of modules and sources that tests only read."""
    place = fill(tmp_path_factory.mktemp("there"))
    shutil.copy(GUESTS / "echo.wasm", place.path)
    shutil.copytree(RUST, place.path / "rust")
    for folder, files in {"empty": (), "two": ("b.c", "a.c")}.items():
        (place.path / folder).mkdir()
        for file in files:
            (place.path / folder / file).write_text("int x;\n")
    return place


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(there: Any, case: str) -> None:
    args, expected = REFUSED[case]
    before = sorted(there.path.rglob("*"))
    refused = there.lockstep("agent", *args)
    assert (refused.code, refused.out) == (2, ""), refused
    assert refused.err.startswith("lockstep: error: ") and refused.err.count("\n") == 1
    assert expected in refused.err
    assert sorted(there.path.rglob("*")) == before


def test_a_module_where_a_fleet_belongs_is_named(there: Any) -> None:
    for args in (("run", "echo.wasm"), ("echo.wasm",)):
        refused = there.lockstep(*args)
        assert refused.code == 2 and "lockstep agent run echo.wasm?" in refused.err


def test_nothing_on_standard_input_is_no_mistake(there: Any) -> None:
    run = there.lockstep("agent", "run", "echo.wasm")
    assert (run.code, run.out) == (0, "") and "items   0 in" in run.err


def test_items_of_standard_input_are_named_as_such(there: Any) -> None:
    with open(there.path / "fleet.toml", "rb") as given:
        refused = there.lockstep("agent", "run", "echo.wasm", stdin=given)
    assert refused.code == 2
    assert "lockstep: error: standard input:2: not valid JSON" in refused.err


def test_any_config_reaches_the_fleet_file() -> None:
    config = {"a b": 'x\n"y\x7f\u2028', "list": [1, 2.5, [True]], "in": {"deep": {"er": {}}}}
    text = agent_run.fleet_of("name", Path("/m.wasm"), config, None)
    fleet = parse(text, "fleet.toml")
    assert fleet.groups[0].config == config and fleet.models == ()
    with pytest.raises(UsageError, match="have to be UTF-8"):
        agent_run.fleet_of("name", Path("/\udcff.wasm"), {}, None)


def test_nothing_is_said_to_be_kept_of_a_run_that_is_not() -> None:
    def stopped(_listening: Any) -> Any:
        raise Interrupted("stopped at once; the journal in /somewhere is whole")

    with pytest.raises(Interrupted, match=r"^stopped at once; nothing is kept$"):
        ending.execute(stopped, as_json=False, kept=False)


@pytest.fixture
def path_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder in PATH; and no ziglang."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "ziglang", None)
    yield folder


def program(path: Path, prints: str) -> None:
    path.write_text(f"#!/bin/sh\necho {prints}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_which_compiler_is_missing_is_said_with_its_cure(path_of: Path) -> None:
    with pytest.raises(UsageError, match="neither zig nor clang is here; pip install ziglang"):
        toolchain.c_compiler()
    program(path_of / "clang", "wasm-ld")  # As clang names a program that it does not find.
    with pytest.raises(UsageError, match="clang is here, but not its linker wasm-ld; pip install"):
        toolchain.c_compiler()
    program(path_of / "wasm-ld", "")
    assert toolchain.c_compiler() == [str(path_of / "clang"), "-mbulk-memory"]
    program(path_of / "zig", "")
    assert toolchain.c_compiler() == [str(path_of / "zig"), "cc"]


def test_what_of_rust_is_missing_is_said_with_its_cure(path_of: Path, tmp_path: Path) -> None:
    source = toolchain.source_of(RUST)
    with pytest.raises(UsageError, match=r"cargo is not here: https://rustup\.rs"):
        source.build(tmp_path)
    program(path_of / "cargo", "")
    program(path_of / "rustc", str(tmp_path / "lib"))  # Where a target would be.
    with pytest.raises(UsageError, match="rustup target add wasm32-unknown-unknown"):
        source.build(tmp_path)
    (tmp_path / "lib").mkdir()
    with pytest.raises(UsageError, match="0 modules, expected one"):
        source.build(tmp_path)


def test_the_rust_template_knows_every_kind_of_record() -> None:
    text = (RUST / "src" / "lockstep.rs").read_text()
    said = {name: int(value) for name, value in re.findall(r"const (\w+): u16 = (\d+);", text)}
    assert said.pop("FLAG_ERROR") == 2
    assert said == {name: Kind[name] for name in said} and len(said) == 19


def _rust() -> bool:
    rustc = shutil.which("rustc")
    if rustc is None or shutil.which("cargo") is None:
        return False
    try:
        toolchain._check_rust_target(rustc)
    except UsageError:
        return False
    return True


@pytest.mark.skipif(not _rust(), reason="no cargo with wasm32-unknown-unknown")
def test_the_rust_template_is_built_and_run(place: Any) -> None:
    assert place.lockstep("agent", "new", "numbers", "--language", "rust").code == 0
    run = place.lockstep("agent", "run", "numbers", "--input", "numbers/items.jsonl")
    assert run.code == 0, run.err
    assert [line["payload"]["number"] for line in lines(run.out)] == [1, 2]
    first = (place.path / "numbers/agent.wasm").read_bytes()
    assert place.lockstep("agent", "new", "other", "--language", "rust").code == 0
    assert place.lockstep("agent", "build", "other").code == 0
    assert (place.path / "other/agent.wasm").read_bytes() == first
