"""Runs that were profiled, for tests that only read them."""

from __future__ import annotations

import pytest
from profiled import Profiled, job

from lockstep.workers.launch import launch
from lockstep.workers.profile.tracks import read


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    """Agents that compute, agents that ask a model: profiled, and not."""
    folder = tmp_path_factory.mktemp("chain")
    summary = launch(job(folder, "run", profile="nodes"))
    plain = launch(job(folder, "plain"))
    return Profiled(folder / "run", summary, plain, read(folder / "run"))
