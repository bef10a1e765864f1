"""Rehearsal: an agent's whole life, played in one process, leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from lockstep.workers import rehearsal
from lockstep.workers.agent.modules import compile_module
from lockstep.workers.agent.process import EXIT_LEFT, AgentSpec


def spec() -> AgentSpec:
    """Any agent's."""
    return AgentSpec(
        name="a",
        index=0,
        replica=0,
        seed=1,
        code=b"of another module",
        memory_bytes_max=1 << 20,
        turn_fuel_max=10**9,
        turn_out_bytes_max=1 << 16,
        record_bytes_max=4096,
        log_lines_max=10,
        log_bytes_max=1000,
        table_elements_max=100,
        frozen_epoch_us=0,
        step_us=1000,
        canonical_nans=False,
        fuel_per_step=1000,
    )


def held() -> list[list[str]]:
    """Threads of this process, and what it has open."""
    folders = [Path("/proc/self/task"), Path("/proc/self/fd")]
    return [sorted(path.name for path in folder.iterdir()) for folder in folders]


@pytest.mark.parametrize("part", rehearsal.PARTS, ids=["logs", "sends"])
def test_the_guest_lives_through_all_turns_and_leaves(part: bytes) -> None:
    code = compile_module(part)
    rehearsal.rehearse(spec(), code)  # What is loaded for the first time may stay open.
    before = held()
    assert rehearsal.rehearse(spec(), code) == (EXIT_LEFT, rehearsal.TURNS + 1)
    assert held() == before


def test_the_module_is_the_text_beside_it() -> None:
    source = Path(rehearsal.__file__).read_text()
    lines = [line[2:] for line in source.splitlines() if line.startswith("# ")]
    text = "\n".join(lines[lines.index(next(x for x in lines if x.startswith("(module"))) :])
    at = rehearsal.WASM.index(b"\x28\0\0\0\x28\0")  # A record of 40 bytes, LOG.
    record = rehearsal.WASM[at : at + 40]
    data = "".join(f"\\{byte:02x}" for byte in record)
    made = wasmtime.wat2wasm(text.replace('"..."', f'"{data}"'))
    assert bytes(made).startswith(rehearsal.WASM)  # Behind it: names, for debuggers.
