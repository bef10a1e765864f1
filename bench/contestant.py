"""Contestant: Lockstep itself, measured round by round as its peers are, or as a whole run."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lockstep.bench.line import Line
from lockstep.engine.errors import UsageError
from lockstep.workers.folder import SUMMARY
from lockstep.workers.job import Job
from lockstep.workers.launch import ENVIRONMENT, cache_folder

GUESTS = Path(__file__).parent / "guests"


class Whole(NamedTuple):
    """A run that went to its end.

    Attributes:
        seconds: From when every agent had started to the last tag.
        summary: As `lockstep run --json` prints it.
        seen: What bench/watch.py saw, if it was asked for.
    """

    seconds: float
    summary: dict[str, Any]
    seen: dict[str, Any]

    @property
    def tokens_out(self) -> int:
        """Of all answers."""
        return int(self.summary["tokens_out"])


@contextmanager
def lockstep(
    fleet: str,
    lines: str = "",
    durability: str = "async",
    bare: bool = False,
    hops: bool = False,
    profiled: bool = False,
) -> Iterator[Line]:
    """A fleet that runs round by round, as bench/tap.py says.

    Args:
        fleet: Text of the fleet file; ``GUESTS`` becomes the folder of bench/guests.
        lines: The input, JSON Lines; empty: none.
        durability: Of the journal.
        bare: Without a journal, to have something to compare one with.
        hops: Note when agents send and receive.
        profiled: Recorded as by `lockstep profile`.

    Raises:
        UsageError: the run was refused, or ended before its time.
    """
    words = [*["bare"] * bare, *["hops"] * hops, *["profiled"] * profiled]
    with _folder() as folder, _started(folder, fleet, lines, durability, words) as line:
        yield line


def whole(fleet: str, lines: str, watch: bool = False) -> Whole:
    """Run a fleet to its end.

    Args:
        fleet: As `lockstep`.
        lines: The input.
        watch: Note when requests were asked and tokens came (bench/watch.py).

    Raises:
        UsageError: the run was refused, or something in it failed: its speed means nothing.
    """
    with _folder() as folder:
        with _started(folder, fleet, lines, words=["requests"] * watch) as line:
            answer = line.ask(turns=0)
        summary = json.loads((folder / "run" / SUMMARY).read_text(encoding="utf-8"))
    failed = summary["failures"] or summary["items_failed"] or summary["requests_failed"]
    if summary["state"] != "finished" or failed:
        why = summary["reason"] or "; ".join(summary["failures"]) or summary["request_failure"]
        raise UsageError(f"a run of the benchmark {summary['state']} with failures: {why}")
    return Whole(answer["ns"] / 1e9, summary, answer)


def write_fleet(folder: Path, fleet: str, lines: str) -> tuple[Path, Path]:
    """A fleet file (``GUESTS`` as in `lockstep`) and an input file in a folder: their paths."""
    path, items = folder / "fleet.toml", folder / "input.jsonl"
    path.write_text(fleet.replace("GUESTS", str(GUESTS)), encoding="utf-8")
    items.write_text(lines, encoding="utf-8")
    return path, items


@contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="lockstep-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _started(
    folder: Path,
    fleet: str,
    lines: str,
    durability: str = "async",
    words: Sequence[str] = (),
) -> Iterator[Line]:
    path, items = write_fleet(folder, fleet, lines)
    job = Job(
        fleet=str(path),
        base=str(folder),
        input=str(items) if lines else "",
        run_dir=str(folder / "run"),
        durability=durability,
        cache=cache_folder(),
    )
    command = [sys.executable, "-P", "-m", "lockstep.bench.tap", *words]
    environment = {**os.environ, **ENVIRONMENT}
    with Line("lockstep", command, environment, job.to_json().encode() + b"\n") as line:
        yield line
