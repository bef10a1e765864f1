"""The small model of the benchmarks, built once for all tests that want it."""

from pathlib import Path

import pytest

from lockstep.bench import models


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests of a session share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small_model(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder; for this test it is the one that `models.small` finds."""
    pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    return models.small(lambda _: None)
