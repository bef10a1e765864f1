"""A reactor's whole state within reach: its globals exported, or why that is not all of it.

Between turns the state of a module in reactor form is its memory and its mutable globals, if
nothing else of it can change. Its instructions show that: one that writes to a table or drops a
segment changes what nobody can read back. Globals that are not exported cannot be read through the
engine; so they are exported here, under names that no module may use, before it is compiled. What
decides the identity of a run is the module as it was given.

An export makes the compiler assume less about a global, so the machine code may be another; its
results, its traps and its fuel are the same (tests/workers/agent/test_globals.py).
"""

import re

from lockstep.workers.agent import binary
from lockstep.workers.agent.binary import Reader, Section, Unreadable

RESERVED = "lockstep:"
MEMORY_NAME = f"{RESERVED}memory"  # Exported by exactly the modules that can be snapshot.
GLOBAL_NAME = f"{RESERVED}global."
GLOBALS_MAX = 128  # Mutable ones. A C program has one or two.

_FUNCTION_KIND, _MEMORY_KIND, _GLOBAL_KIND = 0, 2, 3
_MUTABLE = 1

# Instructions that change something besides memory and globals.
CHANGES = {
    binary.TABLE_SET: "table.set",
    binary.DATA_DROP: "data.drop",
    binary.TABLE_INIT: "table.init",
    binary.ELEM_DROP: "elem.drop",
    binary.TABLE_COPY: "table.copy",
    binary.TABLE_GROW: "table.grow",
    binary.TABLE_FILL: "table.fill",
}
# Every one of them begins like this: the opcode, and a number whose lowest 7 bits are these,
# whether it is written longer than it has to be or not. What begins like this may be something
# else. So only functions with such bytes have to be decoded.
TABLES_MAX = 16  # No instance has more (`guest.TABLES_MAX`): the number behind table.set is lower.
_SUSPECT = re.compile(
    rb"\x26[\x00-\x0f\x80-\x8f]|\xfc[\x09\x0c-\x0f\x11\x89\x8c-\x8f\x91]", re.DOTALL
)


class NotWhole(Exception):
    """There is state that cannot be read back, or might be. Its text says what."""


def expose(wasm: bytes) -> bytes:
    """The module with its memory and all its mutable globals exported under reserved names.

    Raises:
        NotWhole: it cannot be snapshot.
    """
    try:
        found = {each.number: each for each in binary.sections(wasm) if each.number}
        exports = _exports(wasm, found.get(binary.EXPORT))
        _check_imports(wasm, found.get(binary.IMPORT))
        mutable = _mutable_globals(wasm, found.get(binary.GLOBAL))
        _check_instructions(wasm, found.get(binary.CODE))
    except Unreadable as error:
        raise NotWhole(f"it cannot be decoded: {error}") from None
    added = [_export(MEMORY_NAME, _MEMORY_KIND, 0)]
    added += [_export(f"{GLOBAL_NAME}{index}", _GLOBAL_KIND, index) for index in mutable]
    return _with_exports(wasm, found[binary.EXPORT], exports, added)


def _exports(wasm: bytes, section: Section | None) -> int:
    """How many exports there are, if it is a reactor without names of ours."""
    names = []
    if section is not None:
        reader = Reader(wasm, section.start, section.end)
        for _ in range(reader.number()):
            names.append(reader.name())
            reader.byte()
            reader.number()
    if b"on_events" not in names:
        raise NotWhole("the blocking form keeps state in frames and locals")
    reserved = RESERVED.encode()
    taken = [name for name in names if name.startswith(reserved)]
    if taken:
        raise NotWhole(f"it exports a reserved name: {taken[0].decode('utf-8', 'replace')}")
    return len(names)


def _check_imports(wasm: bytes, section: Section | None) -> None:
    if section is None:
        return
    reader = Reader(wasm, section.start, section.end)
    for _ in range(reader.number()):
        names = reader.name(), reader.name()
        if reader.byte() != _FUNCTION_KIND:
            text = b".".join(names).decode("utf-8", "replace")
            raise NotWhole(f"import `{text}` is not a function")
        reader.number()


def _mutable_globals(wasm: bytes, section: Section | None) -> list[int]:
    """Indices of the globals that can change."""
    found: list[int] = []
    if section is None:
        return found
    reader = Reader(wasm, section.start, section.end)
    for index in range(reader.number()):
        kind, mutable = reader.value_type(), reader.byte()
        reader.expression(set())
        if mutable != _MUTABLE:
            continue
        if kind in binary.REFERENCE_TYPES:
            raise NotWhole(f"global {index} is a reference that can change")
        found.append(index)
    if len(found) > GLOBALS_MAX:
        raise NotWhole(f"{len(found)} globals can change, expected at most {GLOBALS_MAX}")
    return found


def _check_instructions(wasm: bytes, section: Section | None) -> None:
    if section is None:
        return
    for number, (start, end) in enumerate(binary.bodies(wasm, section)):
        if _SUSPECT.search(wasm, start, end) is None:
            continue
        changes = sorted(binary.opcodes(wasm, start, end) & CHANGES.keys())
        if changes:
            raise NotWhole(f"it uses {CHANGES[changes[0]]} (in function {number} of its own)")


def _export(name: str, kind: int, index: int) -> bytes:
    data = name.encode()
    return binary.encode_number(len(data)) + data + bytes((kind,)) + binary.encode_number(index)


def _with_exports(wasm: bytes, section: Section, count: int, added: list[bytes]) -> bytes:
    reader = Reader(wasm, section.start, section.end)
    reader.number()
    kept = wasm[reader.at : section.end]
    content = binary.encode_number(count + len(added)) + kept + b"".join(added)
    head = bytes((binary.EXPORT,)) + binary.encode_number(len(content))
    return wasm[: section.head] + head + content + wasm[section.end :]
