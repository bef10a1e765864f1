"""The Python API as a package: names that are functions, and nothing heavy before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers.api import fork, replay, resume, tag_of

HEAVY = ("numpy", "wasmtime", "onnxruntime")


def test_every_name_of_the_package_is_there_and_is_no_module() -> None:
    import lockstep.workers.comparison
    import lockstep.workers.verification

    for name in lockstep.workers.__all__:
        assert callable(getattr(lockstep.workers, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'verfy'"):
        _ = lockstep.workers.verfy


@pytest.mark.parametrize("module", ["launch", "api", "job"])
def test_starting_a_run_loads_nothing_heavy(module: str) -> None:
    # A child sets its environment first: what numpy reads when it is loaded must be there.
    code = (
        f"import sys, lockstep.workers.{module}\n"
        f"sys.exit(','.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "tag"), [("0", (0, 0)), ("12", (12, 0)), ("12.3", (12, 3)), ("7.255", (7, 255))]
)
def test_a_tag_is_read_as_it_is_printed(text: str, tag: tuple[int, int]) -> None:
    assert tag_of(text, "--until") == tag


@pytest.mark.parametrize("text", ["", "x", "1.", ".1", "-1", "1.2.3", "1e3", " 1", "9" * 19])
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--until is .*, expected STEP or STEP"):
        tag_of(text, "--until")


def test_a_folder_without_a_run_is_refused_by_all(tmp_path: Path) -> None:
    for call in (resume, replay, lambda run: fork(run, 3)):
        with pytest.raises(UsageError, match="no run in this folder"):
            call(tmp_path)
        with pytest.raises(UsageError, match="no such folder"):
            call(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
