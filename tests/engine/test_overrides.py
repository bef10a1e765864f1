"""Keys of a fleet file with other values."""

import pytest

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import parse
from lockstep.engine.overrides import overridden, setting_of

FLEET = b"""
[fleet]
name = "small"   # A comment.
[models.default]
path = "model"
[agents.ask]
module = "ask.wasm"
replicas = 2
config = { temperature = 1, deep = { words = ["a"] } }
"""


def test_values_are_put_where_their_keys_say_and_the_rest_stays() -> None:
    settings = (
        *("seed=9", "schedule.lookahead=3", "agents.ask.replicas=4", "models.default.path=other"),
        *("agents.ask.config.temperature=0.5", 'agents.ask.config.deep.words=["x, y"]'),
    )
    fleet = parse(overridden(FLEET, settings, "fleet.toml"), "fleet.toml")
    assert (fleet.seed, fleet.schedule.lookahead, fleet.name) == (9, 3, "small")
    assert (fleet.models[0].path, fleet.groups[0].replicas) == ("other", 4)
    assert fleet.groups[0].config == {"temperature": 0.5, "deep": {"words": ["x, y"]}}


def test_without_settings_the_fleet_is_the_same() -> None:
    assert parse(overridden(FLEET, (), "f"), "f") == parse(FLEET, "f")


def test_the_same_setting_gives_the_same_text_however_it_was_typed() -> None:
    texts = ('fleet.name = "a"', "name=a", "fleet.name='a'", '"fleet".name="\\u0061"')
    assert {str(setting_of(text)) for text in texts} == {'fleet.name="a"'}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("seed", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("seed=", "expected KEY=VALUE"),
        ("seed=1\nname='x'", "is no value"),
        ("seed=a b", "is no value"),
        ("seed=007", "is no value"),
        ("a.b..c=1", "is no key"),
        ("x=1\ny=1", "is no value"),
        ("fleet=1", "\\[fleet\\]: unknown key 'fleet'"),
        ("models.default=1", "models.default is a table, expected a key of it"),
        ("shedule.lookahead=1", "no table \\[shedule\\]; did you mean 'schedule'"),
        ("agents.aks.delay=1", "\\[agents\\] has no table 'aks'; did you mean 'ask'"),
        ("agents.ask=1", "agents.ask is a table, expected a key of it"),
        ("agents.ask.delay.x=1", "\\[agents.ask\\] has no table 'delay'"),
        ("agents.ask.module.x=1", 'module is "ask.wasm", no table'),
        ("agents.ask.config.temprature=1", "no key 'temprature'; did you mean 'temperature'"),
    ],
)
def test_what_is_no_setting_of_this_fleet_is_refused_with_its_place(
    setting: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        parse(overridden(FLEET, (setting,), "fleet.toml"), "fleet.toml")


def test_a_key_that_is_set_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fleet.seed is set twice"):
        overridden(FLEET, ("seed=1", "fleet.seed=2"), "fleet.toml")


def test_a_value_that_the_key_does_not_take_is_refused_by_the_fleet_file() -> None:
    data = overridden(FLEET, ("schedule.lookahead=fast",), "fleet.toml")
    with pytest.raises(UsageError, match=r"lookahead.*fast"):
        parse(data, "fleet.toml")
