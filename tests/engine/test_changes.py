"""What a fork may change of a fleet, and what is said of the rest."""

import dataclasses

import pytest

from lockstep.engine.changes import MAY_CHANGE, WHY_NOT, Change, as_recorded, change
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet, Schedule
from lockstep.engine.fleet_file import parse

FILE = """
[fleet]
name = "f"
seed = 7
[schedule]
lookahead = 3
[models.default]
path = "m"
[agents.solver]
module = "solver.wasm"
input = "broadcast"
[tools.look]
command = ["look"]
[sources.lines]
kind = "stdin"
to = ["solver"]
"""
FLEET = parse(FILE.encode(), "fleet.toml")


def test_a_changed_fleet_differs_in_what_was_set_and_nothing_else() -> None:
    found, changes = change(FLEET, ["seed=8", "schedule.lookahead = 0x10"])
    assert changes == [Change("fleet.seed", 7, 8), Change("schedule.lookahead", 3, 16)]
    assert [str(one) for one in changes] == ["fleet.seed: 7 -> 8", "schedule.lookahead: 3 -> 16"]
    back = dataclasses.replace(
        found, seed=7, schedule=dataclasses.replace(found.schedule, lookahead=3)
    )
    assert back == FLEET and found != FLEET


def test_a_value_that_is_there_already_is_no_change() -> None:
    assert change(FLEET, ["fleet.seed=7"]) == (FLEET, [])
    assert change(FLEET, []) == (FLEET, [])


@pytest.mark.parametrize("key", MAY_CHANGE)
def test_every_key_that_may_change_takes_a_number(key: str) -> None:
    found, changes = change(FLEET, [f"{key}=12"])
    assert [one.key for one in changes] == [key] and changes[0].new == 12
    assert found != FLEET


def test_every_key_of_a_fleet_file_either_may_change_or_has_a_reason() -> None:
    inside = {"schedule", "models", "groups", "agents", "tools", "sources", "recovery"}
    names = [f"fleet.{field.name}" for field in dataclasses.fields(Fleet)]
    unlisted = inside | {"logic_flags"}  # Of no table: nobody says it.
    names = [name for name in names if name.partition(".")[2] not in unlisted]
    names += [f"schedule.{field.name}" for field in dataclasses.fields(Schedule)]
    assert sorted([*MAY_CHANGE, *(key for key in WHY_NOT if "." in key)]) == sorted(names)
    assert {key for key in WHY_NOT if "." not in key} == inside - {"schedule", "groups"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("schedule.lookahaed=2", "unknown key 'schedule.lookahaed'; did you mean 'schedule.looka"),
        ("sede=2", "unknown key 'fleet.sede'; did you mean 'fleet.seed'?"),
        ("agents.slover.delay=2", "unknown key 'agents.slover.delay'; known: fleet.messages_max, "),
        ("schedule.policy=dag", "schedule.policy cannot change in the middle of a run: items "),
        ("agents.solver.delay=2", "agents.solver.delay cannot change in the middle of a run: an "),
        ("models.default.rows_max=2", "cannot change in the middle of a run: the tokens "),
        ("tools.look.command=2", "cannot change in the middle of a run: calls of the past"),
        ("sources.lines.to=2", "cannot change in the middle of a run: events of the past"),
        ("recovery.window_s=2", "cannot change in the middle of a run: it is physical"),
        ("schedule.lookahead=1001", "[schedule]: lookahead is 1001, expected a whole number from"),
        ("schedule.lookahead=-1", "[schedule]: lookahead is -1, expected a whole number from 0"),
        ("seed=true", "fleet.seed is true, expected a whole number"),
        ("seed=1.5", "fleet.seed is 1.5, expected a whole number"),
        ("seed='x'", "fleet.seed is 'x', expected a whole number"),
        ("seed=1\nx = 2", "expected a whole number"),
        ("seed=" + "9" * 5000, "expected a whole number"),
        ("seed=0x" + "f" * 5000, "expected a whole number"),
        ("seed=" + "[" * 5000, "expected a whole number"),
        ("seed", "--set is 'seed', expected KEY=VALUE"),
        ("=3", "--set is '=3', expected KEY=VALUE"),
        ("seed=", "--set is 'seed=', expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_reason(setting: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        change(FLEET, [setting])
    assert expected in str(error.value)


def test_a_key_that_is_set_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fleet\.seed is set twice"):
        change(FLEET, ["seed=8", "fleet.seed=9"])


def test_a_forked_fleet_comes_out_of_its_file_and_its_identity() -> None:
    found, _ = change(FLEET, ["seed=8", "schedule.item_steps_max=9", "turns_max=77"])
    assert as_recorded(FLEET, found.settings()) == found
    assert as_recorded(FLEET, FLEET.settings()) == FLEET
