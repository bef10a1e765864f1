"""The committed modules are what their sources say."""

import hashlib
import importlib.util
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pytest

from lockstep.workers.agent.modules import describe


@pytest.fixture(scope="module")
def build(h: ModuleType) -> ModuleType:
    found = importlib.util.spec_from_file_location("lockstep_test_build", h.GUESTS / "build.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_guest_is_committed_as_it_was_built(build: ModuleType) -> None:
    notes = json.loads(build.NOTES.read_text())
    found = {
        source.stem: hashlib.sha256(source.with_suffix(".wasm").read_bytes()).hexdigest()
        for source in build.sources()
    }
    assert notes["sha256"] == found
    built = {source.stem: build.hash_of(source, flags) for source, flags in build.sources().items()}
    assert notes["sources"] == built, "build them anew: python tests/guests/build.py"
    assert set(notes["sha256"]) | {"lockstep"} >= {p.stem for p in build.HERE.glob("*.c")}


@pytest.mark.parametrize(
    "names", [("chat", "echo"), pytest.param(None, marks=pytest.mark.nightly)], ids=["two", "all"]
)
def test_sources_build_to_the_committed_modules(
    names: tuple[str, ...] | None, build: ModuleType, tmp_path: Path
) -> None:
    """Bytes are compared only where the compiler is the one they were built with.

    What has not changed since it was built need not be built with every commit.
    """
    try:
        installed = version("ziglang")
    except PackageNotFoundError:
        pytest.skip("ziglang is not installed")
    same = json.loads(build.NOTES.read_text())["ziglang"] == installed
    for source, flags in build.sources().items():
        if names is not None and source.stem not in names:
            continue
        target = tmp_path / f"{source.stem}.wasm"
        build.build(source, target, flags)
        fresh, kept = target.read_bytes(), source.with_suffix(".wasm").read_bytes()
        if same:
            assert fresh == kept, source.stem
        shown, expected = describe(fresh), describe(kept)
        assert (shown["form"], shown["entry"]) == (expected["form"], expected["entry"])
        assert set(shown["imports"]) <= set(expected["imports"]) or not same
