"""The harness of tests/guests, as a fixture; and both ways of running a guest."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lockstep.workers.agent.turn import TurnRecords

HARNESS = Path(__file__).resolve().parents[2] / "guests" / "harness.py"


@pytest.fixture(scope="session")
def h() -> ModuleType:
    """Module tests/guests/harness.py: loaded once, however many conftest files ask."""
    name = "lockstep_test_guests_harness"
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, HARNESS)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        found.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn takes the short lane: each seems to have written something before."""
    always = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(TurnRecords, "touched", always, raising=False)


@pytest.fixture(params=["direct", "paused", "direct-long", "paused-long"])
def crossings(
    h: ModuleType, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test runs for guests that publish their fuel and others, through both lanes."""
    crossing, _, long = request.param.partition("-")
    monkeypatch.setattr(h, "FUEL_PER_STEP", {"direct": 0, "paused": 777}[crossing])
    if long:
        request.getfixturevalue("long_way")
