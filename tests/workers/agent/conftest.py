"""The harness of tests/guests, as a fixture; and both ways of running a guest."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.fixture(params=[0, 777], ids=["direct", "paused"])
def crossings(
    h: ModuleType, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test runs twice: with guests that publish their fuel, and with guests that do not."""
    monkeypatch.setattr(h, "FUEL_PER_STEP", request.param)
