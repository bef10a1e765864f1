"""Code generation, pinned: one configuration whose code does the same on every machine.

What is here decides bits (NaN, relaxed SIMD), the instruction at which fuel ends, and the depth
at which the stack ends; so all of it is named in the run's identity (`code_generation`). Nothing
is inferred from the host: with ``target`` set, wasmtime takes a baseline CPU and only the
features listed here. Wasmtime ends the process on a flag it does not know, so none of these may
come from outside.
"""

import platform
from dataclasses import dataclass

from wasmtime import Config, Engine

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.workers.agent.linear import MemoryCreator

OPT_LEVEL = "speed"
REGISTER_ALLOCATOR = "backtracking"

# Guest frames only; the operating system's stack (8 MiB) also holds what the host does below.
STACK_BYTES_MAX = 1 << 20

# Both decide which bounds checks are left out of the code.
MEMORY_RESERVED_BYTES = 1 << 32
MEMORY_GUARD_BYTES = 32 << 20

# x86-64-v2, what every server of the last 15 years has: without SSE4.1 each floor and ceil is a
# call into the host; AVX would change code, not results, and would shut machines out.
TARGETS = {
    "x86_64": (
        "x86_64-unknown-linux-gnu",
        ("has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"),
    ),
    "aarch64": ("aarch64-unknown-linux-gnu", ()),
}

# On: what compilers emit today. Everything else is off until a guest needs it: shared memory and
# threads would be a second order of events, the rest is unneeded room for surprises.
FEATURES_ON = (
    "wasm_bulk_memory",
    "wasm_multi_value",
    "wasm_reference_types",
    "wasm_relaxed_simd",
    "wasm_relaxed_simd_deterministic",
    "wasm_simd",
)
FEATURES_OFF = (
    "gc_support",
    "shared_memory",
    "wasm_component_model",
    "wasm_custom_page_sizes",
    "wasm_exceptions",
    "wasm_function_references",
    "wasm_gc",
    "wasm_memory64",
    "wasm_multi_memory",
    "wasm_stack_switching",
    "wasm_tail_call",
    "wasm_threads",
    "wasm_wide_arithmetic",
)


@dataclass(frozen=True, slots=True)
class GuestEngine:
    """An engine and the maker of its memories. Lives as long as its process."""

    engine: Engine
    memories: MemoryCreator


def guest_engine(*, canonical_nans: bool = True) -> GuestEngine:
    """An engine for one agent (or for compiling its module).

    Args:
        canonical_nans: Give every NaN the same bits. Costs float loops up to three times their
            time; without it a guest that looks at NaN bits may differ between machine types.

    Raises:
        UsageError: this machine has no pinned target.
    """
    triple, cpu_features = _target()
    settings: dict[str, object] = {
        "target": triple,
        "strategy": "cranelift",
        "cranelift_opt_level": OPT_LEVEL,
        "cranelift_nan_canonicalization": canonical_nans,
        "parallel_compilation": False,  # Its threads hang for ever in a forked child.
        "consume_fuel": True,
        "epoch_interruption": False,
        "max_wasm_stack": STACK_BYTES_MAX,
        "memory_may_move": False,
        "memory_reservation": MEMORY_RESERVED_BYTES,
        "memory_guard_size": MEMORY_GUARD_BYTES,
        "memory_init_cow": False,  # Ends the process together with memories of our own.
        **dict.fromkeys(FEATURES_ON, True),
        **dict.fromkeys(FEATURES_OFF, False),
    }
    config = Config()
    for name, value in settings.items():
        # A misspelt setting would be taken as a new attribute, silently: it was, once.
        if not isinstance(getattr(Config, name, None), property):
            raise LockstepBug(f"wasmtime has no setting {name!r}")
        setattr(config, name, value)
    config.cranelift_flag_set("regalloc_algorithm", REGISTER_ALLOCATOR)
    for feature in cpu_features:
        config.cranelift_flag_enable(feature)
    memories = MemoryCreator()
    memories.install(config)
    return GuestEngine(Engine(config), memories)


def code_generation(*, canonical_nans: bool = True) -> dict[str, object]:
    """What decides the code of a guest, for the run's identity: plain JSON values.

    The version of wasmtime is not in it: versions are the run's environment (rule 7).
    """
    triple, cpu_features = _target()
    return {
        "target": triple,
        "cpu_features": list(cpu_features),
        "opt_level": OPT_LEVEL,
        "register_allocator": REGISTER_ALLOCATOR,
        "canonical_nans": canonical_nans,
        "fuel": True,
        "stack_bytes_max": STACK_BYTES_MAX,
        "memory_reserved_bytes": MEMORY_RESERVED_BYTES,
        "memory_guard_bytes": MEMORY_GUARD_BYTES,
        "features": sorted(FEATURES_ON),
    }


def _target() -> tuple[str, tuple[str, ...]]:
    machine = platform.machine()
    target = TARGETS.get(machine)
    if target is None:
        known = ", ".join(sorted(TARGETS))
        raise UsageError(f"machine type {machine!r}: guests run on {known}")
    return target
