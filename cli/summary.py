"""The end of a run for people: what came of it, what failed, and how to go on."""

import json
from pathlib import Path
from typing import Any

FAILED_SHOWN = 10  # Items and agents named; the rest is counted.
LINE_BYTES_MAX = 1 << 20


def rows(summary: dict[str, Any], output: str = "") -> list[tuple[str, object]]:
    """Labels and values, in order.

    Args:
        summary: As the supervisor gives it.
        output: Where the person asked for a copy of the output.
    """
    run = Path(summary["run"])
    wall_s = float(summary["wall_s"])
    rate = f", {summary['tokens_out'] / wall_s:.0f} tokens/s" if wall_s > 0 else ""
    items = "{items_in} in, {items_out} out, {items_failed} failed".format(**summary)
    return [
        ("run", run),
        ("state", _state(summary)),
        ("items", items),
        ("tokens", f"{summary['tokens_in']} in, {summary['tokens_out']} out{rate}"),
        ("steps", "{steps} steps, {turns} turns, {requests} requests, {messages} messages, "
                  "{wall_s} s".format(**summary)),
        ("provider", summary["provider"]),
        ("digest", summary["digest"]),
        ("digest_text", summary["digest_text"]),
        *_failed(summary, run),
        ("output", output or run / "output.jsonl"),
        *_go_on(summary, run),
    ]  # fmt: skip


def _state(summary: dict[str, Any]) -> str:
    reason = summary.get("reason")
    return f"{summary['state']}: {reason}" if reason else str(summary["state"])


def _failed(summary: dict[str, Any], run: Path) -> list[tuple[str, object]]:
    agents = list(summary.get("failures") or [f"agent {n}" for n in summary["agents_failed"]])
    items = failed_items(run / "output.jsonl") if summary["items_failed"] else []
    lines = _cut(agents, len(agents)) + _cut(items, int(summary["items_failed"]))
    return [("failed" if n == 0 else "", line) for n, line in enumerate(lines)]


def _cut(lines: list[str], total: int) -> list[str]:
    shown = lines[:FAILED_SHOWN]
    more = total - len(shown)
    return [*shown, f"and {more} more"] if more > 0 and shown else shown


def failed_items(output: Path) -> list[str]:
    """The first items of an output file that failed, each with its cause."""
    found: list[str] = []
    try:
        with open(output, "rb") as file:
            while len(found) < FAILED_SHOWN and (line := file.readline(LINE_BYTES_MAX)):
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                # An agent's own line has its name; only Lockstep's has none.
                if isinstance(value, dict) and "error" in value and "agent" not in value:
                    found.append(f"item {json.dumps(value.get('id'))}: {value['error']}")
    except OSError:
        pass
    return found


def _go_on(summary: dict[str, Any], run: Path) -> list[tuple[str, object]]:
    lines = []
    if summary["agents_failed"]:
        lines.append(f"what the agents logged is in {run / 'logs'}")
    if summary["state"] == "stopped":
        lines.append("the journal is whole up to here; what is in it can be verified")
    lines.append(f"lockstep verify {run}")
    return [("next" if n == 0 else "", line) for n, line in enumerate(lines)]
