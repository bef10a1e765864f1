"""Limits: what a run reached of what this machine has: memory, processors, calls of the system."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.workers.profile.bandwidth import Probe
from lockstep.workers.profile.spans import Kind, Role
from lockstep.workers.profile.tracks import Tracks, ns_of

# What fits into the caches is not read from memory: nothing is limited by that.
WEIGHTS_BYTES_MIN = 48 << 20
BUFFER_BYTES = 256 << 20
READS = 3
CALLS = 4_000

Object = dict[str, Any]


def limits(
    tracks: Tracks, processes: Sequence[Mapping[str, Any]], models: Sequence[str]
) -> list[Object]:
    """Each with ``name``, ``value``, ``limit`` (None: there is none), ``unit``, ``note``.

    The limits are measured here and now, on a machine that is to be as idle as it was.

    Args:
        tracks: Of the run.
        processes: As `figures.processes` gives them.
        models: Names, in the fleet's order.
    """
    found = [_memory(tracks, number, name) for number, name in enumerate(models)]
    found += [_processors(tracks, processes), _calls(tracks)]
    return [limit for limit in found if limit is not None]


def _memory(tracks: Tracks, model: int, name: str) -> Object | None:
    """How fast the weights were read while a model decoded; None: it did not."""
    decodes = tracks.joined(Role.INFERENCE, Kind.DECODE)
    decodes = decodes[decodes["a"] == model]
    weights = tracks.joined(Role.INFERENCE, Kind.WEIGHTS)
    weights = weights[weights["a"] == model]
    decoding_s = float(ns_of(decodes).sum()) / 1e9
    if not len(decodes) or not len(weights) or not decoding_s:
        return None
    size, threads = int(weights["b"][-1]), int(weights["c"][-1])
    if not size:
        return None
    reads = int(decodes["b"].sum())
    found = {"name": f"memory bandwidth, {name}", "value": size * reads / decoding_s / 1e9}
    if size < WEIGHTS_BYTES_MIN:
        note = f"its weights ({size / 1e6:.1f} MB) fit into caches: the memory is no limit"
        return {**found, "limit": None, "unit": "GB/s", "note": note}
    with Probe(max(threads, 1), BUFFER_BYTES) as probe:
        rate = max(probe.bytes_per_s() for _ in range(READS)) / 1e9
    note = (
        f"weights of {size / 1e6:.0f} MB, read {reads} times in {decoding_s:.3g} s of decoding; "
        f"the limit is what {threads} threads read here now"
    )
    return {**found, "limit": rate, "unit": "GB/s", "note": note}


def _processors(tracks: Tracks, processes: Sequence[Mapping[str, Any]]) -> Object | None:
    used = [each["cpu_s"] for each in processes if each["cpu_s"] is not None]
    wall_s = (tracks.supervisor.ended_ns - tracks.supervisor.began_ns) / 1e9
    if not used or not wall_s:
        return None
    note = f"CPU time of {len(used)} of {len(processes)} processes, from their start to their end"
    return {"name": "processors", "value": sum(used) / wall_s, "limit": float(cores()),
            "unit": "cores", "note": note}  # fmt: skip


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _calls(tracks: Tracks) -> Object | None:
    """Reads and writes of the supervisor, which everything goes through."""
    supervisor = tracks.supervisor
    used = supervisor.of(Kind.USED)
    used = used[used["a"] == supervisor.pid]
    wall_s = supervisor.life_ns / 1e9
    turns = len(tracks.joined(Role.AGENT, Kind.TURN))
    if not len(used) or not wall_s:
        return None
    count, cost_s = int(used["c"][-1]), call_s()
    note = (
        f"{count} reads and writes, {count / max(turns, 1):.1f} for each turn; one takes "
        f"{cost_s * 1e6:.2f} us here now, and the limit is nothing but those"
    )
    return {"name": "system calls of the supervisor", "value": count / wall_s,
            "limit": 1 / cost_s, "unit": "1/s", "note": note}  # fmt: skip


def call_s() -> float:
    """What a read or write of a doorbell takes, in seconds."""
    reading, writing = os.pipe()
    try:
        begun = time.perf_counter_ns()
        for _ in range(CALLS // 2):
            os.write(writing, b"x")
            os.read(reading, 1)
        return (time.perf_counter_ns() - begun) / CALLS / 1e9
    finally:
        os.close(reading)
        os.close(writing)
