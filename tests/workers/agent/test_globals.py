"""Which modules can be snapshot; and exporting their globals changes nothing that they do."""

from types import ModuleType

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import UsageError
from lockstep.workers.agent import globals as exposing
from lockstep.workers.agent import guest
from lockstep.workers.agent.binary import encode_number
from lockstep.workers.agent.engine_config import guest_engine
from lockstep.workers.agent.globals import CHANGES, NotWhole, expose
from lockstep.workers.agent.modules import compile_module, describe, shape_of

PARTS = """
  (memory (export "memory") 1)
  (func (export "lockstep_alloc") (param i32) (result i32) (i32.const 8))"""
CLEAN = '(func (export "on_events") (param i32 i32) (result i32) (i32.const 0))'
TABLE = "(table 2 funcref) (elem $e func 0)"

# Two globals that the compiler keeps apart only as long as nobody else sees them.
COUNTING = f"""(module (import "lockstep" "submit" (func $submit (param i32 i32))) {PARTS}
  (global $a (mut i32) (i32.const 5)) (global (mut i64) (i64.const 9)) (global $k i32 (i32.const 6))
  (global $c (mut f64) (f64.const 0.25))
  (func (export "on_events") (param i32 i32) (result i32)
    (global.set $a (i32.add (global.get $a) (global.get $k)))
    (global.set $c (f64.mul (global.get $c) (f64.const 1.5)))
    (i32.store8 offset=200 (global.get $a) (i32.const 1))
    (i32.div_u (i32.const 0) (i32.lt_u (global.get $a) (i32.const 60)))))"""


def reactor(body: str = "", extra: str = "") -> bytes:
    text = f"(module {PARTS} {extra} {CLEAN} (func {body}))"
    return bytes(wasmtime.wat2wasm(text))


def exports(wasm: bytes) -> list[str]:
    return [each.name or "" for each in wasmtime.Module(guest_engine().engine, wasm).exports]


def test_memory_and_every_mutable_global_is_exported_behind_the_modules_own() -> None:
    wasm = bytes(wasmtime.wat2wasm(COUNTING))
    own = ["memory", "lockstep_alloc", "on_events"]
    assert exports(wasm) == own
    added = ["lockstep:memory", "lockstep:global.0", "lockstep:global.1", "lockstep:global.3"]
    assert exports(expose(wasm)) == own + added
    shape = shape_of(wasmtime.Module(guest_engine().engine, expose(wasm)), "agent")
    assert (shape.exports, shape.state) == (tuple(own), tuple(added[1:]))
    assert shape_of(wasmtime.Module(guest_engine().engine, wasm), "agent").state is None


def test_a_program_in_c_keeps_its_stack_pointer_and_its_own_globals_within_reach(
    h: ModuleType,
) -> None:
    wasm = h.wasm_path("keeper").read_bytes()
    assert describe(wasm)["snapshots"] == "possible"
    assert sum(name.startswith("lockstep:global.") for name in exports(expose(wasm))) == 3


REFUSED = {
    "(table.set 0 (i32.const 0) (ref.null func))": "table.set",
    "(drop (table.grow 0 (ref.null func) (i32.const 1)))": "table.grow",
    "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))": "table.fill",
    "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))": "table.copy",
    "(table.init $e (i32.const 0) (i32.const 0) (i32.const 1))": "table.init",
    "(elem.drop $e)": "elem.drop",
    "(data.drop $d)": "data.drop",
    "(loop (block (br_if 1 (i32.const 38)) (if (i32.const 252) (then (elem.drop $e)))))": "elem",
}


@pytest.mark.parametrize("body", REFUSED)
def test_a_module_that_changes_tables_or_segments_cannot_be_snapshot(body: str) -> None:
    wasm = reactor(body, TABLE + '(data $d "x")')
    with pytest.raises(NotWhole, match=f"it uses {REFUSED[body]}.* function 2 of its own"):
        expose(wasm)
    assert describe(wasm)["snapshots"].startswith("not possible: it uses")


HARMLESS = [
    "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))",
    "(memory.copy (i32.const 0) (i32.const 8) (i32.const 8))",
    "(memory.fill (i32.const 0) (i32.const 8) (i32.const 8))",
    "(drop (table.size 0))",
    "(drop (table.get 0 (i32.const 1)))",
    "(call_indirect (i32.const 1))",
    "(drop (i32.const 38)) (drop (i32.const 252)) (drop (i64.const 0x0dfc00fc26002600))",
    "(drop (v128.const i64x2 0x0dfc00fc26002600 0x26000dfc09fc0efc))",
]


@pytest.mark.parametrize("body", HARMLESS)
def test_what_only_looks_like_it_or_only_reads_is_no_obstacle(body: str) -> None:
    wasm = reactor(body, TABLE + '(data $d "x")')
    assert "lockstep:memory" in exports(expose(wasm))


@given(st.sampled_from(sorted(CHANGES)), st.integers(0, 6))
def test_a_number_written_longer_than_it_has_to_be_hides_nothing(code: int, padding: int) -> None:
    number = code & 0xFFFF if code >> 16 else 0
    short = encode_number(number)
    long = short if not padding else bytes((number | 0x80,)) + b"\x80" * (padding - 1) + b"\0"
    prefix = bytes((code >> 16 or code,))
    assert exposing._SUSPECT.search(prefix + short)
    assert exposing._SUSPECT.search(prefix + long)


def test_every_table_that_an_instance_can_have_is_looked_for() -> None:
    assert guest.TABLES_MAX == exposing.TABLES_MAX
    for index in range(exposing.TABLES_MAX):
        assert exposing._SUSPECT.search(b"\x26" + encode_number(index))


@pytest.mark.parametrize(
    "extra, found",
    [
        ("(global (mut funcref) (ref.null func))", "global 0 is a reference that can change"),
        ("(global (mut externref) (ref.null extern))", "global 0 is a reference"),
        ("(global (mut i32) (i32.const 0))" * 129, "129 globals can change, expected at most 128"),
    ],
)
def test_globals_that_cannot_be_read_back_are_an_obstacle(extra: str, found: str) -> None:
    with pytest.raises(NotWhole, match=found):
        expose(reactor(extra=extra))


def test_globals_that_never_change_are_no_obstacle_whatever_they_hold() -> None:
    extra = "(global funcref (ref.func 0)) (global (mut v128) (v128.const i32x4 1 2 3 4))"
    extra += "(global i32 (i32.const 11)) (global (mut i64) (i64.const -1))" + TABLE
    found = exports(expose(reactor(extra=extra)))
    assert found[-3:] == ["lockstep:memory", "lockstep:global.1", "lockstep:global.3"]


@pytest.mark.parametrize("kind", ["(global i32)", "(memory 1)", "(table 1 funcref)"])
def test_a_module_that_imports_state_is_not_snapshot(kind: str) -> None:
    wasm = bytes(wasmtime.wat2wasm(f'(module (import "a" "b" {kind}) {CLEAN})'))
    with pytest.raises(NotWhole, match=r"import `a\.b` is not a function"):
        expose(wasm)


def test_the_blocking_form_is_repeated_from_its_first_turn(h: ModuleType) -> None:
    wasm = h.wasm_path("echo").read_bytes()
    with pytest.raises(NotWhole, match="blocking form"):
        expose(wasm)
    assert describe(wasm)["snapshots"].startswith("not possible: the blocking form")


@pytest.mark.parametrize("name", ["lockstep:memory", "lockstep:global.0", "lockstep:"])
@pytest.mark.parametrize("form", [CLEAN, '(func (export "main"))'])
def test_names_that_are_ours_are_refused(name: str, form: str) -> None:
    wasm = bytes(wasmtime.wat2wasm(f'(module {PARTS} {form} (export "{name}" (memory 0)))'))
    for look in (compile_module, describe):
        with pytest.raises(UsageError, match=f"a.wasm: export `{name}`: names with `lockstep:`"):
            look(wasm, path="a.wasm")


def run_of(h: ModuleType, wasm: bytes, batches: list[bytes], **changes: object) -> object:
    code = bytes(wasmtime.Module(guest_engine().engine, wasm).serialize())
    rest = iter(batches)
    channel = h.ScriptedChannel(lambda turn: next(rest, None))
    channel.played.status = h.agent_main(h.spec(code, **changes), channel)
    return channel.played


@pytest.mark.usefixtures("crossings")
@pytest.mark.parametrize("name", ["echo_reactor", "keeper", "counting"])
def test_with_its_state_exported_a_guest_does_the_same_for_the_same_fuel(
    h: ModuleType, name: str
) -> None:
    path = h.wasm_path(name)
    wasm = path.read_bytes() if path.exists() else bytes(wasmtime.wat2wasm(COUNTING))
    what = [b"b\x07w\x09", b"g\0w\xf0", b"r\0c\0l\0", b"z\x09m\0", b"b\x01" * 200, b"t\0"]
    batches = [h.start(), *(h.item(1 + at, data) for at, data in enumerate(what * 2)), h.CLOSE]
    assert run_of(h, wasm, batches) == run_of(h, expose(wasm), batches)
    # At the end of its fuel, too: after each of many instructions of a turn.
    for fuel in range(2_000, 6_000, 199):
        limited = [run_of(h, each, batches, turn_fuel_max=fuel) for each in (wasm, expose(wasm))]
        assert limited[0] == limited[1]


def test_a_cut_off_or_damaged_module_is_refused_as_it_was_given(h: ModuleType) -> None:
    wasm = h.wasm_path("echo_reactor").read_bytes()
    engine = guest_engine().engine
    tried = [wasm[:end] for end in range(8, len(wasm))]
    for at in range(8, len(wasm)):
        for bit in (at % 8, (at + 3) % 8):
            tried.append(wasm[:at] + bytes((wasm[at] ^ 1 << bit,)) + wasm[at + 1 :])
    exposed = 0
    for each in tried:
        try:
            more = expose(each)
        except NotWhole:
            continue
        exposed += 1
        assert _is_valid(engine, more) == _is_valid(engine, each)
    assert 100 < exposed < len(tried)


def _is_valid(engine: object, wasm: bytes) -> bool:
    try:
        wasmtime.Module.validate(engine, wasm)
    except wasmtime.WasmtimeError:
        return False
    return True


def test_the_error_of_a_bad_module_counts_its_own_bytes() -> None:
    wasm = reactor("(drop (i32.const 1))")
    bad = wasm.replace(b"\x41\x01\x1a", b"\x41\x01\x01")  # The value is left over.
    with pytest.raises(wasmtime.WasmtimeError) as plain:
        wasmtime.Module(guest_engine().engine, bad)
    offset = str(plain.value).split("at offset ")[1].split(":")[0]
    with pytest.raises(UsageError, match=f"offset {offset}: "):
        compile_module(bad)
