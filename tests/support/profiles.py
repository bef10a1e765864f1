"""Profiles as `lockstep profile` writes them, made up: any number of agents, any length."""

import random
from typing import Any

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202eevil \"&' \ud83d"
PHASES = ("prefill", "decode", "sampling", "copies", "loading", "waiting: stalled",
          "waiting: nothing asked")  # fmt: skip


def profile(agents: int = 5, wall_s: float = 24.0, bins: int = 240) -> dict[str, Any]:
    """A profile of a fleet that asks, thinks and talks, the same each time."""
    chance = random.Random(1)
    names = [f"solver[{n}]" for n in range(agents - 1)] + ["judge"]
    rows = max(min(agents, 16), 1)
    return {
        "format": 1,
        "fleet": "vote",
        "run": {"state": "finished", "digest": "9f3a61c2" * 8, "tokens_out": 7_655,
                "tokens_in": 118_500, "requests": 192, "turns": 1_210, "messages": 960,
                "stalled_s": 1.9, "provider": "cpu"},
        "machine": {"cpu": "A CPU of 2024", "cores": 2, "system": "Linux 6.8", "memory_gib": 8},
        "wall_s": wall_s,
        "processes": _processes(names, wall_s, chance),
        "phases": [{"name": name, "s": wall_s * chance.uniform(0.02, 0.3)} for name in PHASES],
        "agents": [_agent(name, chance) for name in names],
        "series": _series(bins, wall_s, rows, chance),
        "distributions": {
            name: _distribution(median, 10 * bins, chance)
            for name, median in (("ttft_ms", 180), ("tpot_ms", 14), ("itl_ms", 12),
                                 ("request_ms", 900), ("step_ms", 11), ("turn_ms", 0.6),
                                 ("guest_ms", 0.09), ("journal_write_ms", 0.05))
        },
        "batch": {"default": {"rows_max": rows, "rows_mean": rows * 0.7,
                              "steps_by_rows": [chance.randrange(400) for _ in range(rows + 1)]}},
        "timeline": _timeline(names, wall_s, chance),
        "stalls": [{"agent": name, "s": chance.expovariate(4), "steps": chance.randrange(1, 90)}
                   for name in names],
        "limits": [
            {"name": "memory bandwidth", "value": 21.4, "limit": 33.0, "unit": "GB/s",
             "note": "weights and keys and values that each step reads"},
            {"name": "CPU of two cores", "value": 1.83, "limit": 2.0, "unit": "cores", "note": ""},
            {"name": "system calls", "value": 5_210, "limit": 400_000, "unit": "1/s", "note": ""},
        ],
        "advice": ["agent judge held the model back for 1.2 s: delay = 2 would hide most of it",
                   "rows_max = 16 is never reached"],
    }  # fmt: skip


def _agent(name: str, chance: random.Random) -> dict[str, Any]:
    return {"name": name, "turns": chance.randrange(20, 400), "guest_s": chance.random(),
            "ring_s": chance.random() / 50, "waiting_s": 20 * chance.random(),
            "start_s": 0.004, "fuel": chance.randrange(10**9), "requests": chance.randrange(60),
            "tokens_in": chance.randrange(9_000), "tokens_out": chance.randrange(2_000),
            "stall_s": chance.expovariate(4)}  # fmt: skip


def _processes(names: list[str], wall_s: float, chance: random.Random) -> list[dict[str, Any]]:
    kinds = {"supervisor": ("deciding", "journal", "rings"),
             "inference": ("prefill", "decode", "sampling", "copies"),
             "tools": ("commands",)}  # fmt: skip
    parts = [(kind, kind, busy) for kind, busy in kinds.items()]
    parts += [(f"agent {name}", "agent", ("guest", "rings")) for name in names]
    made = []
    for pid, (name, kind, busy) in enumerate(parts, 4_000):
        share = {"inference": 0.8, "supervisor": 0.2}.get(kind, 0.05)
        spent = [wall_s * share * chance.random() / len(busy) for _ in busy]
        named = [{"name": n, "s": s} for n, s in zip(busy, spent, strict=True)]
        named.append({"name": "waiting", "s": wall_s - sum(spent)})
        made.append({"name": name, "kind": kind, "pid": pid, "busy": named,
                     "cpu_s": sum(spent) if kind != "tools" else None})  # fmt: skip
    return made


def _series(bins: int, wall_s: float, rows: int, chance: random.Random) -> dict[str, Any]:
    def wave(most: float) -> list[float]:
        level, found = most / 2, []
        for _ in range(bins):
            level = min(max(level + chance.uniform(-0.12, 0.12) * most, 0.0), most)
            found.append(round(level, 2))
        return found

    return {"t_s": [round(n * wall_s / bins, 4) for n in range(bins)], "bin_s": wall_s / bins,
            "tokens_per_s": wave(410), "prompt_tokens_per_s": wave(2_900), "rows": wave(rows),
            "tickets_waiting": wave(rows / 2), "messages_per_s": wave(90),
            "events_waiting": wave(12), "stalled_share": wave(0.4)}  # fmt: skip


def _distribution(median: float, count: int, chance: random.Random) -> dict[str, Any]:
    values = sorted(median * chance.lognormvariate(0, 0.6) for _ in range(count))
    return {"count": 12_345, "values": values}


def _timeline(names: list[str], wall_s: float, chance: random.Random) -> dict[str, Any]:
    def spans(mean_s: float, gap_s: float, labels: list[tuple[str, str]]) -> list[list[Any]]:
        found, now = [], 0.0
        while len(found) < 3_000:
            now += chance.expovariate(1 / gap_s)
            length = chance.expovariate(1 / mean_s)
            if now + length > wall_s:
                break
            label, kind = labels[chance.randrange(len(labels))]
            found.append([round(now, 6), round(length, 6), label, kind])
            now += length
        return found

    tracks = [
        {"name": "supervisor", "kind": "supervisor",
         "spans": spans(0.0004, 0.02, [("write of 2 kB", "journal"), ("tag", "deciding")])},
        {"name": "inference", "kind": "inference",
         "spans": spans(0.011, 0.001, [("4 rows", "decode"), ("prompt of 96", "prefill")])},
        *({"name": f"agent {name}", "kind": "agent",
           "spans": spans(0.08, 0.9, [("turn", "guest"), ("turn", "guest"), ("full", "ring wait")])}
          for name in names),
    ]  # fmt: skip
    stalls = [[round(s, 3), 0.04, names[-1], int(s * 80)] for s in (2.1, 7.7, 8.4, 15.0)]
    return {"tracks": tracks, "stalls": stalls}
