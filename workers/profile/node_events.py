"""Node events, read: the lines that ONNX Runtime wrote, one at a time, of whatever size."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lockstep.workers.folder import PROFILE

SUFFIX = ".nodes"  # A line with the moment it began, then ONNX Runtime's lines as they are.
KIND = "_kernel_time"  # What the names of events end with that are of a node's own work.
TOP = 20


class NodeEvent(NamedTuple):
    """A run of a node: of which model, its name and operator, from when to when in ns."""

    model: int
    name: str
    operator: str
    start: int
    end: int


def node_events(run: Path) -> Iterator[NodeEvent]:
    """Of a run, model by model, in order of time."""
    for path in sorted((run / PROFILE).glob(f"model-*{SUFFIX}")):
        model = int(path.name.split("-")[1])
        with open(path, encoding="utf-8", errors="replace") as file:
            first = file.readline().strip()
            if first.isdigit():
                yield from _events(file, model, int(first))


def _events(lines: Any, model: int, zero: int) -> Iterator[NodeEvent]:
    for line in lines:
        if KIND not in line:
            continue
        try:
            event = json.loads(line.strip().strip(",").removesuffix("]"))
            name, operator = str(event["name"]), str(event["args"]["op_name"])
            start = zero + int(event["ts"]) * 1000
            end = start + int(event["dur"]) * 1000
        except (ValueError, KeyError, TypeError):
            continue  # The last line, of a file that a full disk cut.
        if name.endswith(KIND):
            yield NodeEvent(model, name.removesuffix(KIND), operator, start, end)


def by_operator(run: Path, models: list[str]) -> list[dict[str, Any]]:
    """What operators took, most first: ``model``, ``operator``, ``s``, ``count``."""
    sums: dict[tuple[int, str], list[int]] = {}
    for event in node_events(run):
        found = sums.setdefault((event.model, event.operator), [0, 0])
        found[0] += event.end - event.start
        found[1] += 1
    order = sorted(sums, key=lambda key: (-sums[key][0], key))[:TOP]
    return [
        {"model": models[model] if model < len(models) else str(model), "operator": operator,
         "s": sums[model, operator][0] / 1e9, "count": sums[model, operator][1]}
        for model, operator in order
    ]  # fmt: skip
