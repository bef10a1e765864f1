"""What is accepted as an agent, and what a refusal says."""

from types import ModuleType

import pytest
import wasmtime

from lockstep.engine.errors import UsageError
from lockstep.workers.agent.modules import compile_module, describe
from lockstep.workers.agent.signatures import WASI, WASI_FUNCTIONS

MEMORY = '(memory (export "memory") 1)'
MAIN = '(func (export "main"))'
ON_EVENTS = '(func (export "on_events") (param i32 i32) (result i32) (i32.const 0))'
ALLOC = '(func (export "lockstep_alloc") (param i32) (result i32) (i32.const 8))'
TURN = '(import "lockstep" "turn" (func (param i32 i32 i32 i32) (result i32)))'
SUBMIT = '(import "lockstep" "submit" (func (param i32 i32)))'

REFUSED_WAT = {
    f"(module {MAIN})": "no export `memory`",
    f'(module (func (export "memory")) {MAIN})': "export `memory` is not a memory",
    f"(module {MEMORY})": "exports none of them",
    f"(module {MEMORY} {MAIN} {ON_EVENTS} {ALLOC})": "both `main` and `on_events`",
    f"(module {MEMORY} {ON_EVENTS})": "no export `lockstep_alloc`, expected a function",
    f'(module {MEMORY} (func (export "main") (param i32)))': (
        r"export `main` is \(i32\) -> \(\), expected \(\) -> \(\) or \(\) -> \(i32\)"
    ),
    f'(module {MEMORY} (func (export "_start") (result i32) (i32.const 0)))': "export `_start` is",
    f'(module {MEMORY} (global (export "main") i32 (i32.const 0)))': "`main` is not a function",
    f'(module {MEMORY} {MAIN} (func (export "_initialize") (param i64)))': "`_initialize` is",
    f'(module (import "env" "puts" (func)) {MEMORY} {MAIN})': "import `env.puts` is not known",
    f'(module (import "lockstep" "nap" (func)) {MEMORY} {MAIN})': "in `lockstep`: submit, turn",
    f'(module (import "{WASI}" "fd_dup" (func)) {MEMORY} {MAIN})': f"`{WASI}.fd_dup` is not known",
    f'(module (import "lockstep" "turn" (func (param i32))) {MEMORY} {MAIN})': (
        r"is \(i32\) -> \(\), expected \(i32, i32, i32, i32\) -> \(i32\)"
    ),
    f'(module (import "{WASI}" "random_get" (func (param i32 i32))) {MEMORY} {MAIN})': "random_get",
    f'(module (import "lockstep" "turn" (global i32)) {MEMORY} {MAIN})': "is not a function",
    f'(module (import "env" "memory" (memory 1)) {MAIN})': "no export `memory`",
    '(module (import "env" "m" (memory 1)) (export "memory" (memory 0)) (func (export "main")))': (
        "import `env.m` is not known"
    ),
    f"(module {TURN} {MEMORY} {ON_EVENTS} {ALLOC})": "`lockstep.turn` does not go with the reactor",
    f"(module {SUBMIT} {MEMORY} {MAIN})": "`lockstep.submit` does not go with the blocking form",
}


@pytest.mark.parametrize("wat", REFUSED_WAT)
def test_module_without_the_right_imports_and_exports_is_refused(wat: str) -> None:
    with pytest.raises(UsageError, match=REFUSED_WAT[wat]) as refusal:
        compile_module(wasmtime.wat2wasm(wat), path="agents/a.wasm")
    assert str(refusal.value).startswith("agents/a.wasm: ")


REFUSED_BYTES = {
    b"": "empty",
    b"\0asm\x01\0": "cut off after 6 bytes",
    b"\0asm\x02\0\0\0": "WebAssembly version 2",
    b"\0asm\x0d\0\x01\0": "a WebAssembly component",
    b"\x7fELF\x02\x01\x01\0\0\0": r"an ELF file \(native or precompiled code\)",
    b"  (module)": "WebAssembly text",
    b";; a comment\n(module)": "WebAssembly text",
    b"#!/bin/sh\n": "begins with 23212f62696e2f73",
    b"\0asm\x01\0\0\0\xff": "not a valid module: ",
    b"\0asm\x01\0\0\0\x01\x85\x80": "not a valid module: ",
}


@pytest.mark.parametrize("data", REFUSED_BYTES)
def test_file_that_is_no_module_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UsageError, match=REFUSED_BYTES[data]):
        compile_module(data)


def test_size_limit_comes_before_anything_else() -> None:
    with pytest.raises(UsageError, match=r"m: 65 bytes, expected at most 64"):
        compile_module(b"(" * 65, path="m", bytes_max=64)


def test_deeply_nested_module_is_refused() -> None:
    body = b"\x02\x40" * 100_000
    code = b"\x01" + _leb(len(body) + 2) + b"\0" + body + b"\x0b"
    wasm = b"\0asm\x01\0\0\0" + b"\x01\x04\x01\x60\0\0" + b"\x03\x02\x01\0"
    with pytest.raises(UsageError, match="not a valid module"):
        compile_module(wasm + b"\x0a" + _leb(len(code)) + code)


def _leb(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


def test_own_machine_code_is_refused_as_a_module() -> None:
    code = compile_module(wasmtime.wat2wasm(f"(module {MEMORY} {MAIN})"))
    with pytest.raises(UsageError, match="precompiled"):
        compile_module(code)


def test_describe_tells_form_imports_exports_and_memory(h: ModuleType) -> None:
    described = describe(h.wasm_path("echo").read_bytes())
    assert described["form"] == "blocking"
    assert described["entry"] == "main"
    assert described["imports"] == ["lockstep.turn (i32, i32, i32, i32) -> (i32)"]
    assert described["exports"] == ["memory", "main"]
    assert described["memory"] == {"pages_min": 4, "pages_max": None}
    reactor = describe(h.wasm_path("echo_reactor").read_bytes())
    assert (reactor["form"], reactor["entry"]) == ("reactor", "on_events")
    assert describe(h.wasm_path("hello_wasi").read_bytes())["entry"] == "_start"


def test_signatures_are_those_of_wasi_preview_1() -> None:
    store = wasmtime.Store(wasmtime.Engine())
    store.set_wasi(wasmtime.WasiConfig())
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    assert len(WASI_FUNCTIONS) == 46
    for name, expected in WASI_FUNCTIONS.items():
        kind = linker.get(store, WASI, name).type(store)
        assert (tuple(map(str, kind.params)), tuple(map(str, kind.results))) == expected, name


def test_module_may_import_every_wasi_function(h: ModuleType) -> None:
    imports = "".join(
        f'(import "{WASI}" "{name}" (func (param {" ".join(params)}) (result {" ".join(results)})))'
        for name, (params, results) in WASI_FUNCTIONS.items()
    )
    played = h.play(f"(module {imports} {MEMORY} {MAIN})")
    assert (played.status, played.last.outcome.name) == (0, "RETURNED")
