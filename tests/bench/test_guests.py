"""Group `guests`: prices of a guest, each measured for real, in small."""

import pytest

from lockstep.bench.groups import agents, guests
from lockstep.bench.lone import turns_ns


def test_every_price_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "TURNS_QUICK", 50)
    monkeypatch.setattr(guests, "ROUNDS_QUICK", 2)
    monkeypatch.setattr(guests, "LOOPS", 1_000)
    monkeypatch.setattr(guests, "MANY", 3)
    monkeypatch.setattr(agents, "MANY", 3)
    told: list[str] = []
    report = guests.run(True, told.append)
    assert set(report.results) == {
        f"{what}_{form}_{unit}"
        for what, unit in (("turn", "us"), ("pss", "mb"), ("start", "ms"))
        for form in guests.FORMS
    } | {f"{what}_{load}" for what in ("fuel", "nan") for load in guests.LOADS}
    assert all(value > 0 for value, _ in report.results.values())
    assert report.ratios == {} and len(told) == 6


@pytest.mark.parametrize("guest", guests.FORMS.values())
def test_a_lone_guest_has_as_many_turns_as_it_is_asked_for(guest: str) -> None:
    found = turns_ns(guest, 20)
    assert len(found) == 20 and min(found) > 0
