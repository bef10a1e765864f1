"""The crossing into a guest and out of it, turn by turn. No ring, no supervisor."""

from typing import Any

import pytest

from lockstep.bench.groups.guests import FORMS
from lockstep.bench.lone import spec, turns_ns

TURNS = 1_000


@pytest.mark.parametrize("guest", FORMS.values(), ids=FORMS.keys())
def test_turns_with_one_message_in_and_one_out(benchmark: Any, guest: str) -> None:
    spec(guest)  # Compiled before the watch runs.
    assert len(benchmark(turns_ns, guest, TURNS)) == TURNS
