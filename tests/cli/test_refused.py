"""Bad input: one line that names it, exit 2, and nothing half written."""

import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import wasmtime

WRONG_IMPORT = """(module (import "env" "time" (func)) (memory (export "memory") 1)
  (func (export "main")))"""
ECHO = '[agents.e]\nmodule = "{guests}/echo.wasm"\ninput = "broadcast"\n'
INPUT = 'input = "deal"\n'
MODELS = '[models.default]\npath = "{model}"\n'

CASES = {
    "no fleet file": (None, "cannot read the fleet file: No such file"),
    "not TOML": ("x = [", "bad.toml: "),
    "not UTF-8": (b"\xff", "not UTF-8 at byte 0"),
    "unknown table": ("[flet]\n", "unknown key 'flet'; did you mean 'fleet'?"),
    "unknown key": (ECHO + "inptu = 1\n", "unknown key 'inptu'; did you mean 'input'?"),
    "no agents": ("[fleet]\n", "expected at least one agent"),
    "a wrong type": ("[fleet]\nseed = 'x'\n" + ECHO, "seed is 'x', expected a whole number"),
    "no module": ("[agents.e]\nmodule = 'no.wasm'\n", "cannot read the module of [agents.e]"),
    "a module that is none": (
        "[agents.e]\nmodule = 'items.jsonl'\n" + INPUT,
        "core WebAssembly module",
    ),
    "a wrong import": (
        "[agents.e]\nmodule = 'wrong.wasm'\n" + INPUT,
        "import `env.time` is not known",
    ),
    "no model folder": (ECHO + "[models.default]\npath = 'none'\n", "none: no such folder"),
    "no model file": (ECHO + "[models.default]\npath = 'damaged'\n", "model.onnx"),
    "an unknown provider": (ECHO + MODELS + "providers = ['cdua']\n", "did you mean 'cuda'?"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fleet_that_cannot_run_is_refused_in_one_line(place: Any, case: str) -> None:
    text, expected = CASES[case]
    if isinstance(text, bytes):
        (place.path / "bad.toml").write_bytes(text)
    elif text is not None:
        place.write("bad.toml", text)
    (place.path / "wrong.wasm").write_bytes(wasmtime.wat2wasm(WRONG_IMPORT))
    if "damaged" in str(text):
        _damaged(place.path / "damaged")
    _refused(place, expected, "run", "bad.toml", "--input", "items.jsonl")


def _damaged(folder: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "data" / "genai-micro-fp32", folder)
    (folder / "model.onnx").unlink()


def _refused(place: Any, expected: str, *args: str) -> None:
    before = place.names()
    result = place.lockstep(*args)
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("lockstep: error: ") and result.err.count("\n") == 1, result.err
    assert expected in result.err
    assert place.names() == before


INPUTS = {
    "not JSON": ('{"a": 1}\n\n{"a":\n', "bad.jsonl:3: not valid JSON"),
    "no object": ('{"a": 1}\n[1]\n', "bad.jsonl:2: found"),
    "an id twice": ('{"id": 1}\n{"id": 2}\n{"id": 1}\n', "bad.jsonl:3: id 1 is that of line 1"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_a_malformed_input_line_is_named_by_its_number(place: Any, case: str) -> None:
    text, expected = INPUTS[case]
    (place.path / "bad.jsonl").write_text(text)
    args = ("run", "fleet.toml", "--input", "bad.jsonl", "--run-dir", "run")
    _refused(place, expected, *args)


def test_cuda_that_is_required_and_missing_is_refused_with_a_cure(place: Any) -> None:
    if any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg")):
        pytest.skip("there may be CUDA here")
    place.write("cuda.toml", ECHO + MODELS + 'require = "cuda"\n')
    _refused(place, "To get it, ", "run", "cuda.toml", "--input", "items.jsonl")


def test_a_folder_that_holds_a_run_or_files_is_not_touched(done: Any, place: Any) -> None:
    run = done[0].path / "runs" / "small-1"
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    args = ("run", "fleet.toml", "--input", "items.jsonl", "--run-dir")
    _refused(place, "holds a run already; nothing was touched", *args, str(run))
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before
    _refused(place, "not empty; nothing was touched", *args, ".")


def test_an_output_that_cannot_be_written_is_refused_first(place: Any) -> None:
    args = ("run", "fleet.toml", "--input", "items.jsonl", "--output", "nowhere/out.jsonl")
    _refused(place, "cannot write the output there", *args)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("run", "fleet.toml", "--durability", "async2"), "async2"),
        (
            ("run", "fleet.toml", "--order", "strct"),
            "'--order': 'strct' is not one of 'strict', 'arrival' (lockstep run --help)",
        ),
        (("graph", "fleet.toml", "--format", "svgg"), "'--format': 'svgg' is not one of 'text', "),
        (("graph",), "Missing argument 'FLEET' (lockstep graph --help)"),
        (("cancel",), "Missing argument 'RUN' (lockstep cancel --help)"),
        (("cancel", ".", "--item", "a", "--ticket", "3"), "--item and --ticket: give one of them"),
        (("bench", "tex"), "unknown verb 'tex'; did you mean 'tax'? (lockstep bench --help)"),
        (("bench", "setup", "agnets"), "'[GROUP]': 'agnets' is not one of 'shm', 'agents'"),
        (("run", "fleet.toml", "--seed", "-1"), "--seed"),
        (("run",), "Missing argument 'FLEET' (lockstep run --help)"),
        (("run", "--inptu", "x", "fleet.toml"), "--inptu"),
        (("verify", "."), "no run in this folder"),
        (("verify", ".", "--model", "x"), "--model is 'x', expected NAME=DIR"),
        (("top", "."), "no run in this folder"),
        (("top", "nowhere"), "nowhere: no such folder"),
        (("verify", "nowhere"), "nowhere: no such folder"),
        (("verify", "items.jsonl"), "items.jsonl: not a folder"),
        (
            ("run", "fleet.toml", "items.jsonl"),
            "unexpected extra argument: items.jsonl; did you mean --input items.jsonl?",
        ),
        (("run", "fleet.toml", "a", "b"), "unexpected extra arguments: a b (lockstep run"),
        (("run", "fleet.toml", "a", "--input", "b"), "unexpected extra argument: a (lockstep"),
        (("agent", "check", "items.jsonl"), "expected a core WebAssembly module"),
        (("agent", "check", "nowhere"), "cannot read the module"),
        (("agent", "chek"), "unknown verb 'chek'; did you mean 'check'?"),
        (("model", "check", "nowhere"), "nowhere: no such folder"),
        (("model", "inspect", "."), "genai_config.json: missing"),
        (("rnu",), "unknown verb 'rnu'; did you mean 'run'?"),
        (("resume", "x"), "x: no such folder"),
        (("resume", "."), "no run in this folder"),
        (("resume",), "Missing argument 'RUN' (lockstep resume --help)"),
        (("resume", ".", "--model", "x"), "--model is 'x', expected NAME=DIR"),
        (("replay", "x"), "x: no such folder"),
        (("replay", "items.jsonl"), "items.jsonl: not a folder"),
        (("replay", ".", "--until", "soon"), "until is 'soon', expected STEP or STEP.MICROSTEP"),
        (("diff", "x"), "Missing argument 'RUN_B' (lockstep diff --help)"),
        (("diff", "x", "y"), "x: no such folder"),
        (("diff", ".", "."), "no run in this folder"),
        (("fork", "x"), "Missing option '--at' (lockstep fork --help)"),
        (("fork", "x", "--at", "0"), "--at"),
        (("fork", "x", "--at", "2"), "x: no such folder"),
        (("fork", ".", "--at", "2", "--set", "seed"), "--set is 'seed', expected K=V, such as "),
        (("fork", ".", "--at", "2", "--set", "a=1", "--set", "a=2"), "a is set twice"),
        (("journal", "shwo", "."), "unknown verb 'shwo'; did you mean 'show'?"),
        (("journal", "ls", "x"), "x: no run in this folder"),
        (("journal", "check", "."), "no run in this folder"),
        (("journal", "export", "items.jsonl"), "items.jsonl: no run in this folder"),
        (("journal", "show", ".", "--from", "1.x"), "--from is '1.x', expected STEP or STEP.MI"),
        (("journal", "show", ".", "--kind", "emti"), "no kind of record; did you mean 'EMIT'?"),
        (("top", "\x1b[31mred\x07"), "\\x1b[31mred\\x07: no such folder"),
    ],
)
def test_a_wrong_command_is_one_line(place: Any, args: tuple[str, ...], expected: str) -> None:
    _refused(place, expected, *args)


def test_a_limit_of_addresses_that_no_agent_can_live_with_is_refused(place: Any) -> None:
    before = place.names()
    limit = (1_500_000 << 10, resource.RLIM_INFINITY)
    run = place.lockstep(
        *("run", "fleet.toml", "--input", "items.jsonl"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    assert (run.code, run.out) == (2, ""), run
    assert "each agent reserves 4.0 GiB of addresses for its guest, mostly unused" in run.err
    assert run.err.count("\n") == 1 and place.names() == before
