"""What `lockstep doctor` tries out, each in a process of its own: a crash is an answer, too.

Run by `lockstep.cli.child`; every function returns JSON-able checks. Libraries are imported here.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lockstep.cli.checks import AGENTS_EXPECTED, FAIL, OFF, OK, WARN, Check

Checks = list[dict[str, str]]

RECORD_BYTES_MAX = 65_536  # A fleet's default.

# (module (func (export "f") (result i32) (i32.const 42)))
WASM = bytes.fromhex(
    "0061736d01000000" "010501" "60" "00" "017f" "03020100" "0705" "01" "0166" "0000" "0a0601"
    "04" "00" "412a" "0b"
)  # fmt: skip
# One node: y = x + x, float32 of shape (1); made with onnx 1.23 (a test makes it again).
ONNX = bytes.fromhex(
    "08083a390a0e0a01780a01781201792203416464120570726f62655a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
DENORMAL = 1e-40  # Of float32, whose smallest normal number is 1.2e-38.


def kernel() -> Checks:
    """System calls that a run cannot do without."""
    found = [_system_call(name) for name in ("fork", "pidfd", "eventfd", "memfd")]
    bad = [line for line in found if line]
    if bad:
        cure = "use Linux 5.3 or newer, outside a sandbox that forbids these calls"
        return _list(Check("kernel", FAIL, "; ".join(bad), cure))
    return _list(Check("kernel", OK, "fork, pidfd, eventfd and memfd work"))


def _system_call(name: str) -> str:
    """Empty, or why it does not work."""
    try:
        if name == "fork":
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            return ""
        descriptor = {
            "pidfd": lambda: os.pidfd_open(os.getpid()),
            "eventfd": lambda: os.eventfd(0),
            "memfd": lambda: os.memfd_create("lockstep-doctor"),
        }[name]()
        os.close(descriptor)
    except (OSError, AttributeError) as error:
        return f"{name}: {error}"
    return ""


def shared_memory() -> Checks:
    """Room in /dev/shm, a segment made and removed, and what dead runs left there."""
    from lockstep import shm
    from lockstep.workers.engine_links import EngineMemory

    folder = Path("/dev/shm")
    if not folder.is_dir():
        return _list(Check("/dev/shm", FAIL, "is not there", "mount a tmpfs at /dev/shm"))
    swept = shm.sweep()
    left = f"removed {len(swept)} that dead runs left" if swept else "dead runs left none"
    room = os.statvfs(folder)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    engine = EngineMemory.slice_bytes(RECORD_BYTES_MAX)
    found = f"{free >> 20} of {total >> 20} MiB free"
    state = FAIL if free < engine else OK
    cure = "" if state == OK else "make it larger (docker run --shm-size=1g)"
    try:
        segment = shm.create_unlinked(engine)
        segment.close()
    except (OSError, shm.SegmentFull) as error:
        state, found, cure = FAIL, str(error), cure or "make /dev/shm writable for this user"
    return _list(Check("/dev/shm", state, found, cure), Check("stale segments", OK, left))


def agents(wanted: int, record_bytes_max: int, guest_mib: int) -> Checks:
    """How many agents of one size there is room for, by resource.

    Args:
        wanted: This many; 0: however many, a few hundred are expected.
        record_bytes_max: As the fleet's.
        guest_mib: Memory of each guest, MiB, beyond what a small one needs.
    """
    from lockstep.engine.fleet import AGENTS_MAX
    from lockstep.workers import room

    found = room.resources(record_bytes_max, guest_mib << 20)
    limited = [(each.agents, each) for each in found if each.agents is not None]
    most, tightest = min(limited, key=lambda pair: pair[0], default=(AGENTS_MAX, found[0]))
    size = f"record_bytes_max = {record_bytes_max}" + (f", {guest_mib} MiB" if guest_mib else "")
    parts = [
        f"{each.name} {count} ({each.text(each.each)} each, {each.text(each.free or 0)} there)"
        for count, each in limited
    ]
    text = f"room for {most} agents ({size}): {', '.join(parts)}"
    state = OK if most >= (wanted or AGENTS_EXPECTED) else WARN
    if most < max(wanted, 1):
        state = FAIL
        text = f"{tightest.arithmetic(wanted or 1)}; {text}"
    return _list(Check("agents", state, text, "" if state == OK else tightest.cure))


def guests() -> Checks:
    """wasmtime compiles a module as agents get it, and runs it."""
    from wasmtime import Instance, Module, Store

    from lockstep.workers.agent.engine_config import guest_engine

    engine = guest_engine().engine
    store = Store(engine)
    store.set_fuel(1000)
    exports: Any = Instance(store, Module(engine, WASM), []).exports(store)
    answer = exports["f"](store)
    if answer != 42 or store.get_fuel() >= 1000:
        return _list(Check("guests", FAIL, f"a module answered {answer}", "reinstall wasmtime"))
    return _list(Check("guests", OK, "wasmtime compiles and runs a module, and counts its fuel"))


def inference() -> Checks:
    """onnxruntime loads with its telemetry off; which providers really come up."""
    import numpy as np

    from lockstep.workers.inference.ort import ort
    from lockstep.workers.inference.provider import NAMES, open_session

    built = ort.get_available_providers()
    checks = [Check("inference", OK, f"onnxruntime {ort.__version__}, telemetry off")]
    for short in NAMES:
        if short not in ("cuda", "cpu") and NAMES[short] not in built:
            continue
        asked = list(dict.fromkeys([short, "cpu"]))
        session, report = open_session(_folder(), asked, None, 1)
        checks.append(_provider(short, report))
        if short == "cpu":
            result = session.run(None, {"x": np.array([DENORMAL], np.float32)})[0]
            checks.append(_denormals(float(result[0])))
    return _list(*checks)


def _folder() -> Any:
    """A model folder that holds the probe, without files."""
    from lockstep.workers.inference.model import ModelFolder

    class Probe(ModelFolder):
        def __init__(self) -> None:
            self.path = Path("probe")

        def weights(self) -> tuple[bytes, list[str], list[Any], list[int]]:
            return ONNX, [], [], []

        def unchanged(self) -> None:
            pass

    return Probe()


def _provider(short: str, report: Any) -> Check:
    name = f"provider {short}"
    if short in report.got:
        return Check(name, OK, "comes up")
    cause = next((m for m in report.missing if m.provider == short), None)
    found = f"does not come up: {cause.cause if cause else 'no reason was given'}"
    if short == "cpu":
        return Check(name, FAIL, found, "reinstall onnxruntime")
    if short == "tensorrt":
        # An extra on top of CUDA that no fleet asks for by itself; without it nothing is wrong.
        return Check(name, OFF, f"optional; {found}")
    return Check(name, WARN, found, cause.cure if cause else "")


def _denormals(doubled: float) -> Check:
    if doubled > 0:
        return Check("denormals", OK, "kept, as every machine of a run has to")
    cure = "a library switched them off when it was loaded (-ffast-math): look at LD_PRELOAD"
    return Check("denormals", WARN, "flushed to zero: digests differ from other machines", cure)


def _list(*checks: Check) -> Checks:
    return [asdict(check) for check in checks]
