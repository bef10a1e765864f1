"""The decoder knows what the engine accepts, and never loses its place in it."""

from types import ModuleType

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from lockstep.workers.agent import binary
from lockstep.workers.agent.binary import BULK, VECTOR, Reader, Section, Unreadable, encode_number
from lockstep.workers.agent.engine_config import guest_engine

BLOCK, LOOP, IF, ELSE, END, UNREACHABLE = 0x02, 0x03, 0x04, 0x05, 0x0B, 0x00
BR_TABLE, SELECT_TYPED, REF_NULL = 0x0E, 0x1C, 0xD0
I32, FUNCREF = 0x7F, 0x70

# What stands behind an opcode, by the letter of the decoder's table; and where 0 means nothing.
FILLED = {"n": b"\0", "1": b"\0", "4": bytes(4), "8": bytes(8), "x": bytes(16), "t": b"\0\0"}
SPECIAL = {SELECT_TYPED: bytes((1, I32)), REF_NULL: bytes((FUNCREF,)), ELSE: None, END: None}


def section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + encode_number(len(content)) + content


def module(body: bytes) -> bytes:
    """One function with that body, in a module where every index 0 exists."""
    body = b"\x01\x01\x7f" + body + bytes((END,))  # One local.
    return b"".join(
        (
            b"\0asm\x01\0\0\0",
            section(1, b"\x01\x60\0\0"),
            section(3, b"\x01\0"),
            section(4, b"\x01\x70\0\x01"),
            section(5, b"\x01\0\x01"),
            section(6, b"\x01\x7f\x01\x41\0\x0b"),
            section(9, b"\x01\x01\0\x01\0"),
            section(12, b"\x01"),
            section(10, b"\x01" + encode_number(len(body)) + body),
            section(11, b"\x01\x01\0"),
        )
    )


def written(code: int) -> bytes:
    """The opcode as bytes."""
    prefix, sub = code >> 16, code & 0xFFFF
    return bytes((prefix,)) + encode_number(sub) if prefix else bytes((code,))


def instruction(code: int) -> bytes:
    """The opcode with what follows it, whole: a block has its end."""
    follows = SPECIAL.get(code) or b"".join(FILLED[each] for each in binary._FOLLOWS[code])
    ends = bytes((END,)) if code in (BLOCK, LOOP, IF) else b""
    return written(code) + follows + ends


def is_valid(wasm: bytes) -> bool:
    try:
        wasmtime.Module.validate(guest_engine().engine, wasm)
    except wasmtime.WasmtimeError:
        return False
    return True


def code_of(wasm: bytes) -> Section:
    return next(each for each in binary.sections(wasm) if each.number == binary.CODE)


def opcodes(wasm: bytes) -> set[int]:
    found = set[int]()
    for body in binary.bodies(wasm, code_of(wasm)):
        found |= binary.opcodes(wasm, *body)
    return found


KNOWN = sorted(code for code in binary._FOLLOWS if code not in (ELSE, END))


def test_every_known_instruction_is_as_long_as_the_engine_takes_it_to_be() -> None:
    for code in KNOWN:
        # Behind `unreachable` there is whatever an instruction wants to take.
        wasm = module(bytes((UNREACHABLE,)) + instruction(code) + bytes((UNREACHABLE,)))
        assert is_valid(wasm), hex(code)
        assert opcodes(wasm) == {code, UNREACHABLE, END}, hex(code)
    assert is_valid(module(bytes((UNREACHABLE, IF, 0x40, ELSE, END))))


def test_no_instruction_that_the_engine_accepts_is_missing() -> None:
    engine = guest_engine().engine
    every = [*range(256), *(p << 16 | s for p in (BULK, VECTOR) for s in range(300))]
    for code in every:
        if code in binary._FOLLOWS or code in (BULK, VECTOR):
            continue
        for count in (0, 1, 2, 3, 16):
            body = bytes((UNREACHABLE,)) + written(code) + bytes(count) + bytes((UNREACHABLE,))
            with pytest.raises(wasmtime.WasmtimeError):
                wasmtime.Module.validate(engine, module(body))


@given(st.lists(st.sampled_from(KNOWN), max_size=40))
def test_a_body_of_many_instructions_is_passed_over_to_its_end(codes: list[int]) -> None:
    wasm = module(b"".join(map(instruction, codes)))
    assert opcodes(wasm) == {*codes, END}


@given(st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_numbers_are_read_back_however_long_they_are_written(value: int, padding: int) -> None:
    data = encode_number(value)
    reader = Reader(data, 0, len(data))
    assert (reader.number(), reader.at) == (value, len(data))
    padded = bytes(each | 0x80 for each in data) + b"\x80" * padding + b"\0"
    if len(padded) <= binary.NUMBER_BYTES_MAX:
        assert Reader(padded, 0, len(padded)).number() == value
    else:
        with pytest.raises(Unreadable, match="a number of more than"):
            Reader(padded, 0, len(padded)).number()


@pytest.mark.parametrize(
    "body, found",
    [
        (b"\x12\0", "instruction 0x12 "),  # A tail call: switched off.
        (b"\xfe\0\0\0", "instruction 0xfe "),  # Threads.
        (b"\xfc\x12\0", "instruction 0xfc0012 "),
        (b"\xfd\x94\x02", "instruction 0xfd0114 "),
        (bytes((BLOCK, 0x40)), "cut off"),
        (bytes((END, UNREACHABLE)), "behind the end of a function"),
        (b"\x41\x80", "cut off"),
        (b"\x41" + b"\x80" * 11 + b"\0", "a number of more than 10 bytes"),
    ],
)
def test_what_is_not_known_is_refused_and_named(body: bytes, found: str) -> None:
    with pytest.raises(Unreadable, match=found):
        opcodes(module(body))


@pytest.mark.parametrize("kind", [0x63, 0x6E, 0x40, 0])
def test_a_local_of_an_unknown_type_is_refused(kind: int) -> None:
    body = bytes((1, 1, kind, END))
    with pytest.raises(Unreadable, match=f"type {kind:#x} at byte"):
        binary.opcodes(body, 0, len(body))


def test_every_function_of_every_test_guest_is_decoded(h: ModuleType) -> None:
    for path in sorted(h.GUESTS.glob("*.wasm")):
        wasm = path.read_bytes()
        assert {END} < opcodes(wasm), path.name


def test_sections_lie_behind_one_another_to_the_end(h: ModuleType) -> None:
    wasm = h.wasm_path("keeper").read_bytes()
    found = binary.sections(wasm)
    assert [each.head for each in found[1:]] == [each.end for each in found[:-1]]
    assert (found[0].head, found[-1].end) == (binary.HEAD_BYTES, len(wasm))
    for wrong in (wasm[:-1], wasm + b"\x0d\0", wasm + b"\0"):
        with pytest.raises(Unreadable):
            binary.sections(wrong)


def test_bytes_behind_the_last_function_are_refused() -> None:
    content = b"\x01\x02\0\x0b" + b"\0"
    with pytest.raises(Unreadable, match="1 bytes behind the last function"):
        list(binary.bodies(content, Section(binary.CODE, 0, 0, len(content))))
