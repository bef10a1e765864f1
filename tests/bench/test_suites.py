"""The suites for pytest-benchmark still run: once each, unmeasured."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("suite", sorted(p.name for p in (ROOT / "bench/suites").glob("test_*.py")))
def test_a_suite_passes(suite: str, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path}/tests", f"bench/suites/{suite}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
