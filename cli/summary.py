"""The end of a run for people: what came of it, what failed, and how to go on."""

import json
from pathlib import Path
from typing import Any

from lockstep.cli import screen
from lockstep.engine.errors import EXIT_BUG, EXIT_UNFINISHED
from lockstep.workers.advice import STALL_SHARE, advice

FAILED_SHOWN = 10  # Reasons and agents named; the rest is counted.
IDS_SHOWN = 5  # Items named with one reason.
STALLS_SHOWN = 3
LOUD = ("requests", "refused")  # Labels of what must not be overlooked.
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
        ("state", state(summary)),
        *([("seed", summary["seed"])] if "seed" in summary else []),
        ("items", items),
        ("tokens", f"{summary['tokens_in']} in, {summary['tokens_out']} out{rate}"),
        ("work", "{steps} steps, {turns} turns, {requests} requests, {messages} messages, "
                 "{wall_s} s".format(**summary)),
        *_restarts(summary),
        *_requests(summary),
        *_refused(summary),
        *_stalls(summary),
        ("provider", _provider(summary)),
        ("digest", summary["digest"]),
        ("digest_text", summary["digest_text"]),
        *_repeats(summary),
        *failed(summary, run),
        ("output", output or summary.get("output") or run / "output.jsonl"),
        *go_on(summary, run),
    ]  # fmt: skip


def state(summary: dict[str, Any]) -> str:
    reason = summary.get("reason")
    return f"{summary['state']}: {reason}" if reason else str(summary["state"])


def _provider(summary: dict[str, Any]) -> str:
    """Where the models ran, and what was proven of them there (docs/verify.md)."""
    classes = ", ".join(dict.fromkeys(name for name in summary.get("classes", {}).values() if name))
    return f"{summary['provider']}, {classes}" if classes else str(summary["provider"])


def _requests(summary: dict[str, Any]) -> list[tuple[str, object]]:
    failed, first = summary.get("requests_failed", 0), summary.get("request_failure", "")
    if not failed:
        return []
    cause = f", the first: {screen.one_line(first)}" if first else ""
    return [("requests", f"{failed} of {summary['requests']} failed{cause}")]


def _refused(summary: dict[str, Any]) -> list[tuple[str, object]]:
    count = summary.get("lines_refused", 0)
    words = (
        "line of standard input was no item"
        if count == 1
        else ("lines of standard input were no items")
    )
    return [("refused", f"{count} {words}")] if count else []


def _repeats(summary: dict[str, Any]) -> list[tuple[str, object]]:
    """Why the run cannot be had again from its fleet, input and seed alone."""
    if summary.get("regenerative", True):
        return []
    causes = ", ".join(summary.get("outside") or ["what came from outside"])
    return [("repeats", f"from its record only (not regenerative): {screen.one_line(causes)}")]


def _stalls(summary: dict[str, Any]) -> list[tuple[str, object]]:
    """Who held the inference process back, when that cost something, and what would help."""
    stalled_s, run_s = float(summary.get("stalled_s", 0)), float(summary.get("run_s", 0))
    rows = [row for row in summary.get("stalls") or [] if row.get("agent")]
    if not rows or stalled_s <= STALL_SHARE * run_s:
        return []
    held = ", ".join(
        "{agent} {seconds:.1f} s in {steps} steps".format(**row) for row in rows[:STALLS_SHOWN]
    )
    return [
        ("waited", f"the model for agents, {stalled_s:.1f} s of {run_s:.1f} s: {held}"),
        ("", advice(rows[0])),
    ]


def failed(summary: dict[str, Any], run: Path) -> list[tuple[str, object]]:
    """Rows of the agents and items that failed, and why.

    Args:
        summary: As the supervisor gives it.
        run: Where its output file lies.
    """
    agents = list(summary.get("failures") or [f"agent {n}" for n in summary["agents_failed"]])
    lines = agents[:FAILED_SHOWN]
    if len(agents) > FAILED_SHOWN:
        lines.append(f"and {len(agents) - FAILED_SHOWN} more agents")
    if summary["items_failed"]:
        groups = failed_items(run / "output.jsonl")
        lines += [_group(*group) for group in groups]
        more = int(summary["items_failed"]) - sum(count for _, count, _ in groups)
        if more > 0:
            lines.append(f"and {more} more items" if groups else f"{more} items")
    return [("failed" if n == 0 else "", line) for n, line in enumerate(lines)]


def _group(reason: str, count: int, ids: list[str]) -> str:
    if count == 1:
        return f"item {ids[0]}: {reason}"
    more = ", ..." if count > len(ids) else ""
    return f"{count} items: {reason} ({', '.join(ids)}{more})"


def failed_items(output: Path) -> list[tuple[str, int, list[str]]]:
    """The items of an output file that failed: reason, how many, and the first of their ids.

    Items with one reason are together; the first `FAILED_SHOWN` reasons are given.
    """
    found: dict[str, tuple[int, list[str]]] = {}
    try:
        with open(output, "rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                if b'"error"' in line:
                    _count(found, line)
    except OSError:
        pass
    return [(reason, count, ids) for reason, (count, ids) in found.items()]


def _count(found: dict[str, tuple[int, list[str]]], line: bytes) -> None:
    try:
        value = json.loads(line)
    except ValueError:
        return
    # An agent's own line has its name; only Lockstep's has none.
    if not isinstance(value, dict) or "error" not in value or "agent" in value:
        return
    reason = str(value["error"])
    if reason not in found and len(found) >= FAILED_SHOWN:
        return
    count, ids = found.get(reason, (0, []))
    if len(ids) < IDS_SHOWN:
        ids.append(json.dumps(value.get("id")))
    found[reason] = (count + 1, ids)


def go_on(summary: dict[str, Any], run: Path) -> list[tuple[str, object]]:
    """Rows of what can be done with a run that is kept."""
    lines = []
    if summary["agents_failed"]:
        first = summary["agents_failed"][0]
        lines.append(f"lockstep replay {run} --agent {first} --trace")
        if any((run / "logs").glob("*.log")):
            lines.append(f"what the agents logged is in {run / 'logs'}")
    if summary["exit_code"] == EXIT_BUG:
        lines.append("a bug in Lockstep: please report it; the journal is whole, this tries again:")
        lines.append(f"lockstep resume {run}")
    elif summary["state"] == "stopped" and summary.get("resumable"):
        lines.append("the journal is whole up to here; this goes on with it:")
        lines.append(f"lockstep resume {run}")
    elif summary["state"] == "stopped" and summary["exit_code"] == EXIT_UNFINISHED:
        lines.append("this is the run's own end: it would come again, and resume cannot mend it")
    lines.append(f"lockstep verify {run}")
    return [("next" if n == 0 else "", line) for n, line in enumerate(lines)]


def _restarts(summary: dict[str, Any]) -> list[tuple[str, object]]:
    count = summary.get("restarts", 0)
    words = "process was" if count == 1 else "processes were"
    return [("restarts", f"{count} {words} brought back")] if count else []
