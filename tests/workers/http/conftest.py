"""One service for tests of a file that only ask; what they did is then run again and compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from web import Web

from lockstep.workers import verify


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    with Web(folder).start() as service:
        yield service
        assert service.drain() == 0
    (run,) = (folder / "state" / "runs").iterdir()
    assert verify(run).equal
