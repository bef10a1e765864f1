"""Guest modules: what is accepted, what it exports, and its machine code.

Checked before anything is compiled: size, then the first eight bytes. Compiling a hostile module
can still take long or much memory: the caller does it in a child under a deadline.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from wasmtime import FuncType, MemoryType, Module, WasmtimeError

from lockstep.engine.errors import UsageError
from lockstep.workers.agent import binary
from lockstep.workers.agent.engine_config import guest_engine
from lockstep.workers.agent.globals import GLOBAL_NAME, MEMORY_NAME, RESERVED, NotWhole, expose
from lockstep.workers.agent.signatures import EXPORTS, IMPORTS, LOCKSTEP, Signature, text

MODULE_BYTES_MAX = 64 << 20
WASM_MAGIC = b"\0asm"
WASM_VERSION = b"\x01\0\0\0"
COMPONENT_LAYER = b"\x01\0"  # Second half of the version word of a component.

BLOCKING = "blocking"
REACTOR = "reactor"

# Which import goes with which form: a reactor that blocks would never end its turn.
_IMPORT_OF_OTHER_FORM = {BLOCKING: "submit", REACTOR: "turn"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a module offers.

    Attributes:
        form: `BLOCKING` or `REACTOR`.
        entry: The export that is called first after ``_initialize``, or ``""`` for a reactor.
        initialize: Whether ``_initialize`` is exported and has to be called.
        imports: ``module.name`` and signature of each import, in the module's order.
        exports: Names of all its exports, in the module's order.
        state: Names of ours under which its mutable globals are exported; None: it cannot be
            snapshot (`globals`).
        pages_min: Pages (64 KiB) of memory it starts with.
        pages_max: Pages it declares as its own limit, or None.
    """

    form: str
    entry: str
    initialize: bool
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    state: tuple[str, ...] | None
    pages_min: int
    pages_max: int | None


def compile_module(
    wasm: bytes,
    *,
    path: str = "module",
    canonical_nans: bool = True,
    bytes_max: int = MODULE_BYTES_MAX,
) -> bytes:
    """Machine code of a module, to be kept by its hash and given to an agent process.

    Args:
        wasm: The module's bytes.
        path: Where they came from, for messages.
        canonical_nans: As `guest_engine`; the agent process must be given the same.
        bytes_max: Largest module accepted.

    Raises:
        UsageError: not a core WebAssembly module, invalid, an import that is not known or of
            another type, no memory, not exactly one form, or an export of a name that is ours.
    """
    check_head(wasm, path, bytes_max)
    module = _exposed(wasm, canonical_nans)
    if module is None:
        module = _compile(wasm, path, canonical_nans)
        _check_names(module, path)
    shape_of(module, path)
    return bytes(module.serialize())


def describe(
    wasm: bytes,
    *,
    path: str = "module",
    canonical_nans: bool = True,
    bytes_max: int = MODULE_BYTES_MAX,
) -> dict[str, Any]:
    """What ``lockstep agent check`` prints. Errors as `compile_module`."""
    check_head(wasm, path, bytes_max)
    module = _compile(wasm, path, canonical_nans)
    _check_names(module, path)
    shape = shape_of(module, path)
    return {
        "form": shape.form,
        "entry": shape.entry or "on_events",
        "imports": list(shape.imports),
        "exports": list(shape.exports),
        "memory": {"pages_min": shape.pages_min, "pages_max": shape.pages_max},
        "snapshots": _snapshots(wasm),
        "bytes": len(wasm),
        "sha256": hashlib.sha256(wasm).hexdigest(),
    }


def check_head(wasm: bytes, path: str, bytes_max: int) -> None:
    """Refuse by size and by the first eight bytes, naming what it is instead.

    Raises:
        UsageError: too large, or not a core module in binary form.
    """
    if len(wasm) > bytes_max:
        raise UsageError(f"{path}: {len(wasm)} bytes, expected at most {bytes_max}")
    head = bytes(wasm[:8])
    if head[:4] == WASM_MAGIC and head[4:8] == WASM_VERSION:
        return
    raise UsageError(f"{path}: {_what_it_is(head, wasm)}, expected a core WebAssembly module")


def shape_of(module: Module, path: str) -> Shape:
    """Check a compiled module's imports and exports. Errors as `compile_module`."""
    exports = {export.name: export.type for export in module.exports}
    memory = exports.get("memory")
    if not isinstance(memory, MemoryType):
        found = "no export `memory`" if memory is None else "export `memory` is not a memory"
        raise UsageError(f"{path}: {found}, expected a memory of that name")
    form, entry = _form(exports, path)
    imports = _check_imports(module, form, path)
    initialize = "_initialize" in exports
    if initialize:
        _check_export(exports, "_initialize", path)
    limits = memory.limits
    own = tuple(name for name in exports if not name.startswith(RESERVED))
    state = None
    if MEMORY_NAME in exports:
        state = tuple(name for name in exports if name.startswith(GLOBAL_NAME))
    return Shape(form, entry, initialize, imports, own, state, limits.min, limits.max)


def starts(wasm: bytes) -> bool:
    """Whether code of an accepted module runs as soon as it is instantiated, or might."""
    try:
        return any(section.number == binary.START for section in binary.sections(wasm))
    except binary.Unreadable:
        return True


def _compile(wasm: bytes, path: str, canonical_nans: bool) -> Module:
    engine = guest_engine(canonical_nans=canonical_nans).engine
    try:
        return Module(engine, bytes(wasm))
    except WasmtimeError as error:
        cause = str(error).strip().splitlines()[-1].strip()
        raise UsageError(f"{path}: not a valid module: {cause}") from None


def _exposed(wasm: bytes, canonical_nans: bool) -> Module | None:
    """The module with its state exported; None: it cannot be snapshot, or is no module at all."""
    try:
        return Module(guest_engine(canonical_nans=canonical_nans).engine, expose(bytes(wasm)))
    except (NotWhole, WasmtimeError):
        return None  # If it is refused as it was given, too, that says so with the right offsets.


def _snapshots(wasm: bytes) -> str:
    """``possible``, or why not."""
    try:
        expose(bytes(wasm))
    except NotWhole as reason:
        return f"not possible: {reason}"
    return "possible"


def _check_names(module: Module, path: str) -> None:
    """A module that could pass for one of which we exported everything would lose state."""
    for export in module.exports:
        if (export.name or "").startswith(RESERVED):
            raise UsageError(f"{path}: export `{export.name}`: names with `{RESERVED}` are ours")


def _what_it_is(head: bytes, wasm: bytes) -> str:
    if not head:
        return "empty"
    if head.startswith(WASM_MAGIC):
        if len(head) < 8:
            return f"a WebAssembly file cut off after {len(head)} bytes"
        if head[6:8] == COMPONENT_LAYER:
            return "a WebAssembly component"
        return f"WebAssembly version {int.from_bytes(head[4:8], 'little')}"
    if head.startswith(b"\x7fELF"):
        return "an ELF file (native or precompiled code)"
    if wasm.lstrip()[:1] in (b"(", b";"):
        return "WebAssembly text"
    return f"a file that begins with {head.hex()}"


def _form(exports: dict[str, Any], path: str) -> tuple[str, str]:
    """The one form a module has, and its entry."""
    # A command's `_start` calls its own `main`; some linkers export that one too.
    entry = next((name for name in ("_start", "main") if name in exports), "")
    reactor = "on_events" in exports
    if bool(entry) == reactor:
        found = f"both `{entry}` and `on_events`" if entry else "none of them"
        raise UsageError(
            f"{path}: exports {found}, expected either `_start` or `main` (blocking form) or "
            "`on_events` with `lockstep_alloc` (reactor form)"
        )
    for name in ("on_events", "lockstep_alloc") if reactor else (entry,):
        _check_export(exports, name, path)
    return (REACTOR, "") if reactor else (BLOCKING, entry)


def _check_export(exports: dict[str, Any], name: str, path: str) -> None:
    kind = exports.get(name)
    expected = " or ".join(text(signature) for signature in EXPORTS[name])
    if kind is None:
        raise UsageError(f"{path}: no export `{name}`, expected a function {expected}")
    if not isinstance(kind, FuncType):
        raise UsageError(f"{path}: export `{name}` is not a function, expected {expected}")
    found = _signature(kind)
    if found not in EXPORTS[name]:
        raise UsageError(f"{path}: export `{name}` is {text(found)}, expected {expected}")


def _check_imports(module: Module, form: str, path: str) -> tuple[str, ...]:
    lines = []
    for wanted in module.imports:
        name = f"{wanted.module}.{wanted.name}"
        known = IMPORTS.get(wanted.module)
        if known is None:
            modules = " and ".join(f"`{each}`" for each in IMPORTS)
            raise UsageError(f"{path}: import `{name}` is not known, expected {modules} only")
        expected = known.get(wanted.name or "")
        if expected is None:
            names = f": {', '.join(sorted(known))}" if wanted.module == LOCKSTEP else ""
            raise UsageError(f"{path}: import `{name}` is not known in `{wanted.module}`{names}")
        if not isinstance(wanted.type, FuncType):
            raise UsageError(
                f"{path}: import `{name}` is not a function, expected {text(expected)}"
            )
        found = _signature(wanted.type)
        if found != expected:
            raise UsageError(f"{path}: import `{name}` is {text(found)}, expected {text(expected)}")
        if wanted.module == LOCKSTEP and wanted.name == _IMPORT_OF_OTHER_FORM[form]:
            raise UsageError(f"{path}: import `{name}` does not go with the {form} form")
        lines.append(f"{name} {text(found)}")
    return tuple(lines)


def _signature(kind: FuncType) -> Signature:
    return tuple(map(str, kind.params)), tuple(map(str, kind.results))
