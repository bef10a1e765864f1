"""For all tests: a cache of their own; hypothesis without a clock.

Without a clock a slow machine never fails a run.
"""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from lockstep.engine.compiled import is_compiled

# Derandomised: one commit gives one answer. No database: a test run leaves nothing behind.
settings.register_profile(
    "lockstep",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lockstep")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what only the interpreted form allows, where the tests run against the other."""
    if not is_compiled():
        return
    for item in items:
        if item.get_closest_marker("interpreted"):
            item.add_marker(pytest.mark.skip("the modules are compiled (docs/install.md)"))


@pytest.fixture(scope="session", autouse=True)
def cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep for later ones is kept for this session, not for the person.

    So is the bytecode of the many processes that tests start, where Python is told to keep none
    beside the sources: each would compile all of its modules anew, a third of what it costs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            folder = tmp_path_factory.getbasetemp()
            if "PYTEST_XDIST_WORKER" in os.environ:
                folder = folder.parent  # Workers have it together: files come into it whole.
            patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        yield
