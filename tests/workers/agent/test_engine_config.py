"""The pinned code generation: what it accepts, what it computes, and that it does not drift."""

import hashlib
import json
import struct

import pytest
import wasmtime

from lockstep.engine.errors import UsageError
from lockstep.workers.agent import engine_config
from lockstep.workers.agent.engine_config import code_generation, guest_engine

REFUSED = {
    "threads": "(module (memory 1 1 shared))",
    "atomics": "(module (memory 1) (func (result i32) (i32.atomic.load (i32.const 0))))",
    "memory64": "(module (memory i64 1))",
    "multi-memory": "(module (memory 1) (memory 1))",
    "gc": "(module (type (struct (field i32))))",
    "externref": "(module (func (param externref)))",
    "typed references": "(module (type $t (func)) (func (param (ref $t))))",
    "exceptions": "(module (tag))",
    "tail calls": "(module (func $f (return_call $f)))",
    "page sizes": "(module (memory 1 (pagesize 1)))",
    "stack switching": "(module (type $f (func)) (type $c (cont $f)))",
}
ACCEPTED = {
    "bulk memory": "(module (memory 1) (func (param i32) "
    "(memory.fill (local.get 0) (local.get 0) (local.get 0))))",
    "reference types": "(module (table 3 funcref) (func (result i32) (table.size 0)))",
    "multi-value": "(module (func (result i32 i32) (i32.const 1) (i32.const 2)))",
    "simd": "(module (func (result i32) (i8x16.extract_lane_s 0 (v128.const i32x4 1 2 3 4))))",
    "sign extension": "(module (func (param i32) (result i32) (i32.extend8_s (local.get 0))))",
}


@pytest.mark.parametrize("name", REFUSED)
def test_features_that_are_off_are_refused(name: str) -> None:
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(guest_engine().engine, wasmtime.wat2wasm(REFUSED[name]))


@pytest.mark.parametrize("name", ACCEPTED)
def test_features_that_compilers_emit_are_accepted(name: str) -> None:
    wasmtime.Module(guest_engine().engine, wasmtime.wat2wasm(ACCEPTED[name]))


def test_identity_is_plain_json_and_names_what_decides_the_code() -> None:
    identity = code_generation()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["opt_level"] == "speed"
    assert identity["register_allocator"] == "backtracking"
    assert identity["canonical_nans"] is True
    assert code_generation(canonical_nans=False)["canonical_nans"] is False
    assert "wasmtime" not in identity  # Versions are environment, not identity.


def test_unknown_machine_type_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_config.platform, "machine", lambda: "pdp11")
    with pytest.raises(UsageError, match=r"'pdp11': guests run on aarch64, x86_64"):
        guest_engine()


def test_equal_settings_give_equal_code() -> None:
    wasm = wasmtime.wat2wasm(ACCEPTED["simd"])
    first, second = (
        hashlib.sha256(wasmtime.Module(guest_engine().engine, wasm).serialize()).hexdigest()
        for _ in range(2)
    )
    assert first == second


def test_code_is_not_made_for_the_cpu_it_was_compiled_on() -> None:
    """With features inferred from the host, popcnt and rounding differ from one CPU to the next."""
    wasm = wasmtime.wat2wasm("(module (func (param i64) (result i64) (i64.clz (local.get 0))))")
    config = wasmtime.Config()
    config.consume_fuel = True
    inferred = wasmtime.Module(wasmtime.Engine(config), wasm).serialize()
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module.deserialize(guest_engine().engine, inferred)


def test_nans_have_canonical_bits() -> None:
    wat = """(module (func (export "f") (param i32 f32) (result i32)
      (i32.reinterpret_f32 (f32.add (f32.reinterpret_i32 (local.get 0)) (local.get 1)))))"""
    made = guest_engine()
    store = wasmtime.Store(made.engine)
    store.set_fuel(1000)
    module = wasmtime.Module(made.engine, wasmtime.wat2wasm(wat))
    add = wasmtime.Instance(store, module, []).exports(store)["f"]
    for bits in (0x7FC12345, 0x7F800001, -0x00001234):
        assert add(store, bits, 1.0) == 0x7FC00000


def test_relaxed_simd_has_one_answer() -> None:
    """A fused and an unfused multiply-add differ here; the deterministic one is fused."""
    wat = """(module (func (export "f") (param f32 f32 f32) (result f32)
      (f32x4.extract_lane 0 (f32x4.relaxed_madd (f32x4.splat (local.get 0))
        (f32x4.splat (local.get 1)) (f32x4.splat (local.get 2))))))"""
    made = guest_engine()
    store = wasmtime.Store(made.engine)
    store.set_fuel(1000)
    module = wasmtime.Module(made.engine, wasmtime.wat2wasm(wat))
    madd = wasmtime.Instance(store, module, []).exports(store)["f"]
    x = struct.unpack("<f", struct.pack("<f", 1 + 2**-12))[0]
    assert madd(store, x, x, -(1 + 2**-11)) == 2**-24
