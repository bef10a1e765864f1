"""A run on a file system of one mebibyte: it stops cleanly, and goes on when there is room."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fleets
import pytest

from lockstep.engine.compare import ended
from lockstep.engine.errors import UsageError
from lockstep.engine.journal import format as journal_format
from lockstep.workers import resume, run, verify
from lockstep.workers.identity import read_journal
from lockstep.workers.journal_file import RESERVE_BYTES

COUNT = 400
PAYLOAD = "x" * 400 + " {}"


def mount(path: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


def free(path: Path) -> int:
    told = os.statvfs(path)
    return told.f_bavail * told.f_frsize


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    path = tmp_path / "small"
    path.mkdir()
    mount(path, "size=1m", "mode=700")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("level", ["async", "sync"])
def test_a_full_disk_stops_the_run_cleanly_and_it_goes_on_when_there_is_room(
    tmp_path: Path, small: Path, level: str
) -> None:
    few = "[schedule]\nitems_in_flight_max = 8"  # Many small tags.
    fleet = fleets.fleet(tmp_path, fleets.ECHO + few)
    items = fleets.items(tmp_path, COUNT, PAYLOAD)
    undisturbed = run(fleet, items, run_dir=tmp_path / "run")
    stopped = run(fleet, items, run_dir=small / "run", durability=level)
    assert (stopped.exit_code, stopped.summary["state"]) == (3, "stopped")
    assert "No space left on device; the run stops" in stopped.summary["reason"]
    # The reserve was given back for this.
    assert json.loads((small / "run/summary.json").read_bytes())["digest"] == stopped.digest
    assert not (small / "run/journal/reserve").exists()
    # What was acknowledged stands: no line without what led to it, and none is torn.
    recorded = list(read_journal(small / "run").bodies(journal_format.HISTORY))
    assert 0 < len(stopped.output) < COUNT and not ended(recorded)
    assert stopped.output == undisturbed.output[: len(stopped.output)]
    (small / "ballast").write_bytes(bytes(max(free(small) - RESERVE_BYTES // 2, 0)))
    with pytest.raises(UsageError, match=rf"its reserve needs {RESERVE_BYTES} bytes, \d+ are free"):
        resume(small / "run")
    mount(small, "remount", "size=16m")
    done = resume(small / "run")
    assert done.exit_code == 0
    assert (done.digest, done.output) == (undisturbed.digest, undisturbed.output)
    assert verify(small / "run").equal


def test_a_disk_without_room_for_a_run_is_a_usage_error_and_nothing_is_left(
    tmp_path: Path, small: Path
) -> None:
    (small / "ballast").write_bytes(bytes((1 << 20) - RESERVE_BYTES))
    fleet, items = fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 3)
    with pytest.raises(UsageError, match=rf"needs {RESERVE_BYTES} bytes, \d+ are free; it was rem"):
        run(fleet, items, run_dir=small / "run")
    assert [path.name for path in small.iterdir()] == ["ballast"]
