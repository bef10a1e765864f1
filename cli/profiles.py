"""A profile for people: where the time went, on one page of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.cli import screen

AGENTS_SHOWN = 10
STALLS_SHOWN = 5
OPERATORS_SHOWN = 8
PERCENTILES = ("p50", "p90", "p99")
BRIEF = ("wall_s", "processes", "phases", "agents", "batch", "stalls", "limits", "advice", "nodes",
         "files", "trace")  # fmt: skip
AGENTS = ("agent", "turns", "guest s", "ring s", "waiting s", "requests", "tokens in", "tokens out",
          "held s")  # fmt: skip
TIMES = ("guest_s", "ring_s", "waiting_s")
LATENCIES = {
    "ttft_ms": "TTFT, time to first token",
    "tpot_ms": "TPOT, time per token after it",
    "itl_ms": "ITL, from token to token",
    "request_ms": "request, asked to answered",
    "step_ms": "step of the model",
    "turn_ms": "turn of an agent",
    "guest_ms": "guest in a turn",
    "journal_write_ms": "journal write",
    "sync_ms": "sync of the journal",
}

Object = Mapping[str, Any]


def brief(profile: Object) -> dict[str, Any]:
    """What `--json` has of it: no pictures, of distributions the count and percentiles."""
    found = {key: profile[key] for key in BRIEF if key in profile}
    latencies = {
        name: {key: value for key, value in each.items() if key != "values"}
        for name, each in profile.get("distributions", {}).items()
    }
    return {**found, "latencies": latencies}


def text(profile: Object) -> str:
    """All of it, escaped."""
    parts = [
        f"where the time went: {profile['wall_s']:.3f} s from the first tag to the last",
        screen.table(("process", "life s", "CPU s", "waited", "busy"), _processes(profile)),
        _titled("the model's process", ("phase", "s", "of it"), _phases(profile)),
        _titled(_agents_title(profile), AGENTS, _agents(profile)),
        _titled(
            "operators of the models' first steps",
            ("model", "operator", "s", "count"),
            _operators(profile),
        ),
        _titled("latencies, ms", ("", "count", *PERCENTILES), _latencies(profile)),
        _titled("who held the model back", ("agent", "s", "steps"), _stalls(profile)),
        _titled("limits", ("", "reached", "limit", "", "share"), _limits(profile)),
        "\n".join(f"note: {screen.one_line(line)}" for line in profile["advice"]),
        screen.pairs([*_files(profile), *_trace(profile)]),
    ]
    return "\n\n".join(part for part in parts if part)


def _titled(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return f"{title}\n{screen.table(head, rows)}" if rows else ""


def _processes(profile: Object) -> list[Sequence[object]]:
    """The supervisor, the model and the like; of the agents those that did most, then the rest."""
    others = [each for each in profile["processes"] if each["kind"] != "agent"]
    agents = [each for each in profile["processes"] if each["kind"] == "agent"]
    agents.sort(key=lambda each: -_busy_s(each))
    rows: list[Sequence[object]] = [_process(each) for each in (*others, *agents[:AGENTS_SHOWN])]
    rest = agents[AGENTS_SHOWN:]
    if rest:
        rows.append((f"{len(rest)} more agents", "", "", "", f"{sum(map(_busy_s, rest)):.3f} s"))
    return rows


def _busy_s(process: Object) -> float:
    return sum(float(part["s"]) for part in process["busy"] if part["name"] != "waiting")


def _process(process: Object) -> Sequence[object]:
    life_s = process["life_s"]
    waited_s = sum(part["s"] for part in process["busy"] if part["name"] == "waiting")
    cpu = "-" if process["cpu_s"] is None else f"{process['cpu_s']:.2f}"
    busy = ", ".join(
        f"{part['name']} {part['s']:.3f} s" for part in process["busy"] if part["name"] != "waiting"
    )
    share = f"{waited_s / life_s:.0%}" if life_s else "-"
    return process["name"], f"{life_s:.3f}", cpu, share, busy


def _phases(profile: Object) -> list[Sequence[object]]:
    total = sum(phase["s"] for phase in profile["phases"]) or 1.0
    return [
        (phase["name"], f"{phase['s']:.3f}", f"{phase['s'] / total:.1%}")
        for phase in profile["phases"]
        if phase["s"]
    ]


def _ordered(profile: Object) -> list[Object]:
    return sorted(profile["agents"], key=lambda agent: (-agent["guest_s"], agent["name"]))


def _agents_title(profile: Object) -> str:
    count = len(profile["agents"])
    most = f"the {AGENTS_SHOWN} of {count} agents that computed most"
    return most if count > AGENTS_SHOWN else "agents"


def _agents(profile: Object) -> list[Sequence[object]]:
    return [
        (agent["name"], agent["turns"], *(f"{agent[key]:.3f}" for key in TIMES),
         agent["requests"], agent["tokens_in"], agent["tokens_out"], f"{agent['stall_s']:.3f}")
        for agent in _ordered(profile)[:AGENTS_SHOWN]
    ]  # fmt: skip


def _operators(profile: Object) -> list[Sequence[object]]:
    return [
        (each["model"], each["operator"], f"{each['s']:.3f}", each["count"])
        for each in profile.get("nodes", ())[:OPERATORS_SHOWN]
    ]


def _latencies(profile: Object) -> list[Sequence[object]]:
    found = profile["distributions"]
    return [
        (title, found[name]["count"], *(f"{found[name][key]:.3f}" for key in PERCENTILES))
        for name, title in LATENCIES.items()
        if found[name]["count"]
    ]


def _stalls(profile: Object) -> list[Sequence[object]]:
    return [
        (row["agent"] or "(what was under way)", f"{row['s']:.3f}", row["steps"])
        for row in profile["stalls"][:STALLS_SHOWN]
    ]


def _limits(profile: Object) -> list[Sequence[object]]:
    return [
        (limit["name"], f"{limit['value']:.4g}", _limit(limit), limit["unit"], _share(limit))
        for limit in profile["limits"]
    ]


def _limit(limit: Object) -> str:
    return "none" if limit["limit"] is None else f"{limit['limit']:.4g}"


def _share(limit: Object) -> str:
    share = f"{limit['value'] / limit['limit']:.0%}; " if limit["limit"] else ""
    return f"{share}{limit['note']}"


def _files(profile: Object) -> list[tuple[str, object]]:
    return list(profile["files"].items())


def _trace(profile: Object) -> list[tuple[str, object]]:
    trace = profile["trace"]
    lines: list[tuple[str, object]] = [
        ("", "open the trace at https://ui.perfetto.dev (docs/profiling.md)")
    ]
    if trace["dropped"]:
        lines.append(("", f"{trace['dropped']} slices shorter than {trace['least_ns'] / 1e3:g} us "
                          "are not in it"))  # fmt: skip
    return lines
