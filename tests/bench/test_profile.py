"""What `bench profile` compares: the same fleet, once with tracks and once without."""

from pathlib import Path

from lockstep.bench.contestant import lockstep
from lockstep.bench.groups import profile
from lockstep.engine.fleet_file import parse


def test_both_fleets_have_sixteen_agents() -> None:
    for text in (profile.ring(), profile.asking(Path("model"))):
        assert len(parse(text.encode(), "fleet.toml").agents) == profile.AGENTS


def test_one_of_the_two_is_recorded_and_both_are_measured() -> None:
    with lockstep(profile.ring(), profiled=True) as ours, lockstep(profile.ring()) as theirs:
        maps = [Path(f"/proc/{line.pid}/maps").read_text() for line in (ours, theirs)]
        assert ["/profile/supervisor-0-" in text for text in maps] == [True, False]
        measured = list(profile._alternating(ours, theirs, 40, 2))
    assert all(cost.wall > 0 and cost.cpu > 0 for pair in measured for cost in pair)
