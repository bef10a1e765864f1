"""The results table: a row for each run, in order of the grid, whatever was finished first.

Columns that follow from the runs come first: they are the same bytes for any number of jobs and
after any interruption. Those of `TIMES` stand at the end, and are of this execution.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lockstep.engine.errors import LockstepError, RunStopped
from lockstep.workers.sweeps.grid import Axis, Point

FIGURES = (
    *("digest", "digest_text", "regenerative", "steps", "turns", "messages", "requests"),
    *("requests_failed", "tokens_in", "tokens_out", "items_in", "items_out", "items_failed"),
)
TIMES = ("wall_s", "run_s", "tokens_per_s", "restarts")

Row = dict[str, Any]


def columns(axes: Sequence[Axis]) -> list[str]:
    """Names, in order."""
    keys = [axis.key for axis in axes]
    tail = (*FIGURES, "agents_failed", "models", "folder", *TIMES)
    return ["run", "seed", *keys, "state", "exit_code", "reason", *tail]


def row_of(point: Point, folder: str, models: str, summary: Mapping[str, Any]) -> Row:
    """The row of a run with a summary (`lockstep run --json`).

    Args:
        point: The run.
        folder: Its folder, in the sweep's.
        models: Hash of the models that it was made with.
        summary: As of `workers.api.Run`.
    """
    run_s, tokens = summary.get("run_s"), summary.get("tokens_out")
    return {
        **_head(point),
        "state": summary["state"],
        "exit_code": summary["exit_code"],
        "reason": summary["reason"],
        **{name: summary.get(name) for name in FIGURES},
        "agents_failed": len(summary.get("agents_failed", ())),
        "models": models,
        "folder": folder,
        "wall_s": summary.get("wall_s"),
        "run_s": run_s,
        "tokens_per_s": round(tokens / run_s, 1) if run_s and tokens is not None else None,
        "restarts": summary.get("restarts"),
    }


def row_without(point: Point, folder: str, error: LockstepError) -> Row:
    """The row of a run that has no summary: it was refused, or its supervisor died."""
    unknown = dict.fromkeys((*FIGURES, "agents_failed", "models"))
    return {
        **_head(point),
        "state": "stopped" if isinstance(error, RunStopped) else "refused",
        "exit_code": error.exit_code,
        "reason": str(error),
        **unknown,
        "folder": folder,
        **dict.fromkeys(TIMES),
    }


def changed_models(rows: Iterable[Row], axes: Sequence[Axis]) -> list[str]:
    """Runs that were made with other model files than the first of the same settings."""
    first: dict[str, Row] = {}
    told = []
    for row in rows:
        if row["models"] is None:
            continue
        before = first.setdefault(str([row[axis.key] for axis in axes]), row)
        if before["models"] != row["models"]:
            told.append(
                f"run {row['run']} was made with other model files than run {before['run']} "
                f"({row['models']}, {before['models']}): they cannot be compared"
            )
    return told


def _head(point: Point) -> Row:
    settings = {setting.key: setting.value for setting in point.settings}
    return {"run": point.number, "seed": point.seed, **settings}


def as_csv(names: Sequence[str], rows: Iterable[Row]) -> str:
    """With a header; what is unknown is empty, what is no plain value is JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return text.getvalue()


def as_json_lines(names: Sequence[str], rows: Iterable[Row]) -> str:
    """One object a line, its keys in order of the columns."""
    return "".join(json.dumps({name: row[name] for name in names}) + "\n" for row in rows)


def _cell(value: object) -> object:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
