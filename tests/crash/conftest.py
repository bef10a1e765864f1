"""Runs to compare with, made once."""

from __future__ import annotations

import pytest
from scenes import Undisturbed


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Scenes that nobody disturbs."""
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))
