"""Fleet files: what may be said, what is refused and how it is told."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import AGENTS_MAX, Recovery
from lockstep.engine.fleet_file import parse
from lockstep.engine.record import TOPICS_MAX
from lockstep.engine.strict_json import dumps, loads
from lockstep.engine.version import KV_REUSE

MINIMAL = """
[agents.a]
module = "a.wasm"
"""
FULL = """
[fleet]
name = "vote"
seed = 7
frozen_date = "2024-02-29T12:00:00+02:00"
step_us = 10
[schedule]
policy = "dag"
lookahead = 0
[models.small]
path = "models/small"
require = "cpu"
[agents.solver]
module = "solver.wasm"
replicas = 3
config = { temperature = 0.5, names = ["x"] }
[agents.judge]
module = "judge.wasm"
after = ["solver"]
input = "deal"
"""
SERVED = """
[agents.a]
module = "a.wasm"
input = "deal"
[tools.grep]
command = ["grep", "-n", "-n"]
[sources.feed]
kind = "stdin"
[sources.door]
kind = "socket"
to = ["a"]
[sources.clock]
kind = "timer"
to = ["a"]
every_ms = 5
"""


def refused(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(UsageError) as error:
        parse(data, "f.toml")
    return str(error.value)


def with_keys(section: str, line: str) -> str:
    """A fleet file with one more line in a section."""
    sections = {
        "fleet": "",
        "schedule": "",
        "recovery": "",
        "models.m": 'path = "m"\n',
        "agents.a": 'module = "a.wasm"\n',
        "tools.t": 'command = ["t"]\n',
        "sources.s": 'kind = "timer"\nto = ["a"]\n',
    }
    if not line.startswith("every_ms"):
        sections["sources.s"] += "every_ms = 1\n"
    return "".join(
        f"[{name}]\n{lines}{line if name == section else ''}\n" for name, lines in sections.items()
    )


def test_a_minimal_fleet_gets_every_default() -> None:
    settings = parse(MINIMAL.encode(), "f.toml").settings()
    assert settings == {
        "name": "fleet",
        "seed": 0,
        "frozen_date": "2000-01-01T00:00:00Z",
        "step_us": 1000,
        "turns_max": 2**62,
        "messages_max": 2**62,
        "steps_max": 2**48,
        "record_bytes_max": 65_536,
        "module_bytes_max": 2**26,
        "schedule": {
            "policy": "events",
            "lookahead": 1,
            "fuel_per_step": 10_000_000,
            "items_in_flight_max": 64,
            "items_reordered_max": 1024,
            "rounds_max": 1,
            "priority_steps": 8,
            "credit": 4,
            "order": "strict",
            "topics": (),
            "item_steps_max": 0,
            "mailbox_cycle": "accept",
        },
        "models": (),
        "groups": (
            {
                "name": "a",
                "module": "a.wasm",
                "replicas": 0,
                "input": "",
                "after": (),
                "join": 0,
                "back": (),
                "passes_max": 1,
                "retries": 0,
                "topics": (),
                "tools": (),
                "may_cancel_run": False,
                "mailbox_max": 4096,
                "mailbox_full": "wait",
                "memory_bytes_max": 67_108_864,
                "table_elements_max": 100_000,
                "delay": 1,
                "turn_fuel_max": 10**10,
                "turn_out_bytes_max": 1_048_576,
                "log_lines_max": 1000,
                "log_bytes_max": 65_536,
                "canonical_nans": True,
                "config": {},
            },
        ),
        "agents": ({"name": "a", "index": 0, "replica": 0, "group": 0},),
        "tools": (),
        "sources": (),
    }


def test_a_tool_and_a_source_get_every_default() -> None:
    settings = parse(SERVED.encode(), "f.toml").settings()
    assert settings["tools"] == (
        {
            "name": "grep",
            "command": ("grep", "-n", "-n"),
            "timeout_ms": 10_000,
            "output_bytes_max": 32_768,
            "parallel_max": 4,
            "env": {},
        },
    )
    feed = {"name": "feed", "kind": "stdin", "to": (), "path": "", "every_ms": 0, "count": 0}
    assert settings["sources"] == (
        feed,
        feed | {"name": "door", "kind": "socket", "to": ("a",), "path": "door.sock"},
        feed | {"name": "clock", "kind": "timer", "to": ("a",), "every_ms": 5},
    )


def test_how_a_run_is_kept_alive_is_no_part_of_what_it_is() -> None:
    fleet = parse(with_keys("", "").encode(), "f.toml")
    assert fleet.recovery == Recovery(10, 60, 30, 1000, 67_108_864)
    for field in dataclasses.fields(Recovery):
        other = parse(with_keys("recovery", f"{field.name} = 5000").encode(), "f.toml")
        assert getattr(other.recovery, field.name) == 5000
        assert other.settings() == fleet.settings()


def test_keys_for_devices_are_part_of_a_run_where_they_are_set_and_falling_back_never_is() -> None:
    plain = parse(with_keys("", "").encode(), "f.toml")
    assert not {"fallback", "candidates", "cuda_graphs"} & {**plain.settings()["models"][0]}.keys()
    allowed = parse(with_keys("models.m", "fallback = true").encode(), "f.toml")
    assert allowed.models[0].fallback and allowed.settings() == plain.settings()
    keys = parse(with_keys("models.m", 'candidates = 5\ncuda_graphs = "auto"').encode(), "f.toml")
    model = keys.settings()["models"][0]
    assert (model["candidates"], model["cuda_graphs"]) == (5, "auto")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('providers = ["cpu"]\nfallback = true', "fallback is True, expected another of providers"),
        ('providers = ["cpu"]\ncuda_graphs = "on"', "cuda_graphs is 'on', expected providers that"),
        ('cuda_graphs = "of"', 'cuda_graphs is \'of\', expected "off" or "auto" or "on"'),
        ('kind = "tensors"\nfallback = true', "unknown key 'fallback'"),
    ],
)
def test_keys_for_devices_without_one_are_refused(keys: str, message: str) -> None:
    assert message in refused(with_keys("models.m", keys))


def test_as_many_rows_rest_as_compute_unless_the_file_says_otherwise() -> None:
    model = parse(with_keys("models.m", "rows_max = 5").encode(), "f.toml").models[0]
    assert (model.rows_kept, model.prefix_copies) == (5, True)
    text = with_keys("models.m", "rows_kept = 0\nprefix_copies = false")
    model = parse(text.encode(), "f.toml").models[0]
    assert (model.rows_kept, model.prefix_copies) == (0, False)


def test_a_fleet_of_older_rules_has_no_settings_that_came_later() -> None:
    now, then = (parse(with_keys("", "").encode(), "f.toml", flags) for flags in (KV_REUSE, 0))
    assert (then.models[0].rows_kept, then.models[0].prefix_copies) == (0, False)
    new, old = now.settings()["models"][0], then.settings()["models"][0]
    assert sorted({**new}.keys() - old.keys()) == ["prefix_copies", "rows_kept"]
    assert old.items() <= new.items()
    for key in ("rows_kept = 1", "prefix_copies = true"):
        with pytest.raises(UsageError, match="unknown key"):
            parse(with_keys("models.m", key).encode(), "f.toml", 0)


def test_replicas_are_numbered_side_by_side_in_file_order() -> None:
    fleet = parse(FULL.encode(), "f.toml")
    assert [(a.name, a.index, a.replica, a.group) for a in fleet.agents] == [
        ("solver.0", 0, 0, 0),
        ("solver.1", 1, 1, 0),
        ("solver.2", 2, 2, 0),
        ("judge", 3, 0, 1),
    ]
    assert fleet.models[0].providers == ("cpu",)
    assert fleet.groups[0].config == {"temperature": 0.5, "names": ["x"]}
    assert json.loads(json.dumps(fleet.settings()))["groups"][1]["after"] == ["solver"]


def test_no_replicas_at_all_are_refused_only_when_asked_for() -> None:
    assert [agent.name for agent in parse(MINIMAL.encode(), "f.toml").agents] == ["a"]
    assert refused(f"{MINIMAL}replicas = 0") == (
        "f.toml: [agents.a]: replicas is 0, expected a whole number from 1 to 10000"
    )


def test_one_replica_is_named_like_a_replica() -> None:
    fleet = parse(f"{MINIMAL}replicas = 1".encode(), "f.toml")
    assert [agent.name for agent in fleet.agents] == ["a.0"]


@pytest.mark.parametrize(
    ("date", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-01-01T00:00:00Z", 946_684_800_000_000),
        ("2024-02-29T12:00:00+02:00", 1_709_200_800_000_000),
        ("2000-01-01T00:00:00.000001+00:00", 946_684_800_000_001),
    ],
)
def test_the_frozen_date_is_exact_microseconds(date: str, us: int) -> None:
    fleet = parse(with_keys("fleet", f'frozen_date = "{date}"').encode(), "f.toml")
    assert fleet.frozen_epoch_us == us


@pytest.mark.parametrize(
    "date",
    [
        "2000-01-01T00:00:00",  # No zone.
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+14:00",  # Before 1970 in UTC.
        "2201-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2000-13-01T00:00:00Z",
        "yesterday",
        "2000-01-01T00:00:00ZZ",
    ],
)
def test_a_date_that_no_clock_could_show_is_refused(date: str) -> None:
    message = refused(with_keys("fleet", f'frozen_date = "{date}"'))
    assert f"f.toml: [fleet]: frozen_date is {date!r}, expected a time with zone" in message


def test_what_is_not_utf8_is_refused_with_its_place() -> None:
    assert refused(b"[fleet]\nname = '\xff'") == "f.toml: not UTF-8 at byte 16"


@pytest.mark.parametrize("text", ["[fleet", "a = ", "[a]\n[a]\n", "x = 1\nx = 2\n"])
def test_what_is_not_toml_is_refused(text: str) -> None:
    assert re.match(r"f\.toml: .*(line|document)", refused(text))


DEEP, HUGE = 5000, "0x" + "f" * 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a = {'[' * DEEP}{']' * DEEP}", "f.toml: nested too deeply to be read"),
        (f"a = {'{a=' * DEEP}1{'}' * DEEP}", "f.toml: nested too deeply to be read"),
        (
            with_keys("fleet", f"seed = {'1' * DEEP}"),
            "f.toml: a number has too many digits to be read",
        ),
        (
            with_keys("fleet", f"seed = {HUGE}"),
            "f.toml: [fleet]: seed is a value too large to show (int), expected a whole number",
        ),
        (
            with_keys("fleet", f"seed = [[{HUGE}]]"),
            "f.toml: [fleet]: seed is a value too large to show (list), expected a whole number",
        ),
        (
            with_keys("fleet", f"seed{'.a' * DEEP} = 1"),
            "f.toml: [fleet]: seed is a value too large to show (dict), expected a whole number",
        ),
    ],
)
def test_what_is_too_deep_or_too_long_is_refused_with_the_file_named(
    text: str, message: str
) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    "value",
    [
        HUGE,
        f"0x{'f' * 1000}",  # Our own JSON reader would refuse it in the identity.
        f"{'[' * 32}{']' * 32}",
        f"{{ a{'.a' * DEEP} = 1 }}",
    ],
)
def test_a_config_that_could_not_be_read_back_is_refused(value: str) -> None:
    message = refused(with_keys("agents.a", f"config.x = {value}"))
    assert message.startswith("f.toml: [agents.a]: config is ")
    assert "expected values that JSON has" in message


def test_a_config_as_deep_as_possible_can_be_read_back() -> None:
    text = with_keys("agents.a", f"config.x = {'[' * 31}{']' * 31}")
    settings = parse(text.encode(), "f.toml").settings()
    again = loads(dumps({"fleet": settings}))["fleet"]
    assert again["groups"][0]["config"] == settings["groups"][0]["config"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fleets]", "f.toml: unknown key 'fleets'; did you mean 'fleet'?"),
        (
            with_keys("fleet", "seeds = 1"),
            "f.toml: [fleet]: unknown key 'seeds'; did you mean 'seed'?",
        ),
        (
            with_keys("schedule", "look_ahead = 1"),
            "f.toml: [schedule]: unknown key 'look_ahead'; did you mean 'lookahead'?",
        ),
        (
            with_keys("recovery", "restart_max = 1"),
            "f.toml: [recovery]: unknown key 'restart_max'; did you mean 'restarts_max'?",
        ),
        (
            with_keys("models.m", "row_max = 1"),
            "f.toml: [models.m]: unknown key 'row_max'; did you mean 'rows_max'?",
        ),
        (
            with_keys("tools.t", "timeout = 1"),
            "f.toml: [tools.t]: unknown key 'timeout'; did you mean 'timeout_ms'?",
        ),
        (
            with_keys("sources.s", "counts = 1"),
            "f.toml: [sources.s]: unknown key 'counts'; did you mean 'count'?",
        ),
        (
            with_keys("agents.a", "replica = 1"),
            "f.toml: [agents.a]: unknown key 'replica'; did you mean 'replicas'?",
        ),
    ],
)
def test_an_unknown_key_names_its_section_and_the_nearest_known_one(
    text: str, message: str
) -> None:
    assert refused(text) == message


INTEGERS = [
    ("fleet", "seed", 0, 2**63 - 1),
    ("fleet", "step_us", 1, 10**9),
    ("fleet", "turns_max", 1, 2**62),
    ("fleet", "messages_max", 1, 2**62),
    ("fleet", "steps_max", 1, 2**48),
    ("fleet", "record_bytes_max", 1024, 2**26),
    ("fleet", "module_bytes_max", 8, 2**30),
    ("schedule", "lookahead", 0, 1000),
    ("schedule", "fuel_per_step", 1, 2**48),
    ("schedule", "items_in_flight_max", 1, 2**20),
    ("schedule", "items_reordered_max", 1, 2**24),
    ("schedule", "rounds_max", 1, 2**20),
    ("schedule", "priority_steps", 1, 2**20),
    ("schedule", "credit", 1, 2**20),
    ("schedule", "item_steps_max", 1, 2**40),
    ("recovery", "restarts_max", 0, 10**6),
    ("recovery", "window_s", 1, 10**6),
    ("recovery", "overdue_s", 0, 10**6),
    ("recovery", "step_s", 0, 10**6),
    ("recovery", "snapshot_turns", 0, 2**40),
    ("recovery", "segment_bytes_max", 1024, 2**40),
    ("models.m", "intra_op_threads", 1, 256),
    ("models.m", "rows_max", 1, 1024),
    ("models.m", "tokens_max", 4, 2**20),
    ("models.m", "prefill_tokens_per_step", 3, 2**20),
    ("models.m", "period", 1, 2**10),
    ("models.m", "rows_kept", 0, 16_384),
    ("models.m", "candidates", 1, 4096),
    ("agents.a", "replicas", 1, 10_000),
    ("agents.a", "retries", 0, 2**20),
    ("agents.a", "mailbox_max", 1, 2**20),
    ("agents.a", "memory_bytes_max", 65_536, 2**32),
    ("agents.a", "table_elements_max", 0, 10**7),
    ("agents.a", "delay", 1, 10**6),
    ("agents.a", "turn_fuel_max", 1, 2**62),
    ("agents.a", "turn_out_bytes_max", 64, 2**30),
    ("agents.a", "log_lines_max", 0, 10**7),
    ("agents.a", "log_bytes_max", 0, 2**26),
    ("tools.t", "timeout_ms", 1, 86_400_000),
    ("tools.t", "output_bytes_max", 0, 2**26),
    ("tools.t", "parallel_max", 1, 1024),
    ("sources.s", "every_ms", 1, 86_400_000),
    ("sources.s", "count", 1, 2**40),
]
OF_A_LOOP = [("agents.a", "join"), ("agents.a", "passes_max")]  # Below: they need a dag.


@pytest.mark.parametrize(("section", "key", "low", "high"), INTEGERS)
def test_every_number_has_its_bounds(section: str, key: str, low: int, high: int) -> None:
    for value in (low, high):
        parse(with_keys(section, f"{key} = {value}").encode(), "f.toml")
    expected = f"f.toml: [{section}]: {key} is {{}}, expected a whole number from {low} to {high}"
    for value, shown in [(low - 1, low - 1), (high + 1, high + 1), ('"1"', "'1'"), ("true", True)]:
        assert refused(with_keys(section, f"{key} = {value}")) == expected.format(shown)


def test_the_list_of_bounds_above_is_complete() -> None:
    fleet = parse(with_keys("", "").encode(), "f.toml")
    settings = fleet.settings()
    tables = {
        "fleet": settings,
        "schedule": settings["schedule"],
        "recovery": dataclasses.asdict(fleet.recovery),
        "models.m": dataclasses.asdict(fleet.models[0]),
        "agents.a": settings["groups"][0],
        "tools.t": settings["tools"][0],
        "sources.s": settings["sources"][0],
    }
    numbers = [
        (section, key)
        for section, table in tables.items()
        for key, value in table.items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    listed = [(section, key) for section, key, _, _ in INTEGERS]
    assert sorted(numbers) == sorted(listed + OF_A_LOOP)


def looping(line: str, replicas: int = 1) -> str:
    """A dag of ``a`` and, with one more line in its table, ``b`` that may send back to it."""
    return (
        '[schedule]\npolicy = "dag"\n'
        f"[agents.a]\nmodule = 'a'\nreplicas = {replicas}\n"
        f"[agents.b]\nmodule = 'b'\nafter = ['a']\nback = ['a']\n{line}\n"
    )


def test_passes_have_bounds() -> None:
    for value in (1, 2**20):
        group = parse(looping(f"passes_max = {value}").encode(), "f.toml").groups[1]
        assert (group.back, group.passes_max) == (("a",), value)
    for value in (0, 2**20 + 1, "true"):
        shown = str(value).capitalize()
        assert refused(looping(f"passes_max = {value}")) == (
            f"f.toml: [agents.b]: passes_max is {shown}, expected a whole number from 1 to 1048576"
        )


@pytest.mark.parametrize(
    ("line", "join"), [("", 0), ("'all'", 0), ("'any'", 1), ("1", 1), ("9999", 9999)]
)
def test_a_join_is_all_any_or_a_number(line: str, join: int) -> None:
    text = looping(line and f"join = {line}", replicas=9999)
    assert parse(text.encode(), "f.toml").groups[1].join == join


@pytest.mark.parametrize("value", ["0", "10001", "-1", "true", "'first'", "1.5", "['all']"])
def test_another_join_is_refused(value: str) -> None:
    message = refused(looping(f"join = {value}"))
    assert message.startswith("f.toml: [agents.b]: join is ")
    assert message.endswith('expected "all", "any" or a number from 1 to 10000')


def test_topics_keep_the_order_of_the_file() -> None:
    text = f"[schedule]\ntopics = ['z', 'a']\n{MINIMAL}topics = ['a', 'z']"
    fleet = parse(text.encode(), "f.toml")
    assert (fleet.schedule.topics, fleet.groups[0].topics) == (("z", "a"), ("a", "z"))


def test_more_topics_than_a_record_can_name_are_refused() -> None:
    names = [f"t{n}" for n in range(TOPICS_MAX + 1)]
    parse(f"[schedule]\ntopics = {names[1:]}\n{MINIMAL}".encode(), "f.toml")
    assert refused(f"[schedule]\ntopics = {names}\n{MINIMAL}") == (
        f"f.toml: [schedule]: topics is {TOPICS_MAX + 1}, expected at most {TOPICS_MAX}"
    )


def test_a_tool_is_given_its_whole_environment() -> None:
    text = with_keys("tools.t", 'env = { LANG = "C", EMPTY = "" }')
    assert parse(text.encode(), "f.toml").tools[0].env == {"LANG": "C", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tools.t]", "[tools.t]: command is missing"),
        ("[tools.t]\ncommand = 'ls'", "command is 'ls', expected a list of strings, the command"),
        ("[tools.t]\ncommand = []", "command is [], expected a list of strings, the command first"),
        ("[tools.t]\ncommand = ['']", "command is [''], expected a list of strings, the command"),
        ('[tools.t]\ncommand = ["a", "\\u0000"]', "expected a list of strings, the command first"),
        ("[tools.t]\ncommand = ['a']\nenv.'x=y' = ''", "env.x=y is '', expected a name without ="),
        ("[tools.t]\ncommand = ['a']\nenv.x = 1", "env.x is 1, expected a name without = and a"),
        ("[tools.'t t']\ncommand = ['a']", "name 't t', expected 1 to 48 of"),
        ("[sources.s]", "[sources.s]: kind is missing"),
        ("[sources.s]\nkind = 'http'", 'kind is \'http\', expected "stdin" or "socket" or "timer"'),
        ("[sources.s]\nkind = 'timer'\nto = ['a']", "[sources.s]: every_ms is missing"),
        ("[sources.s]\nkind = 'timer'\nevery_ms = 1", "to is [], expected the agents that a timer"),
        ("[sources.s]\nkind = 'stdin'\ncount = 1", "[sources.s]: unknown key 'count'"),
        ("[sources.s]\nkind = 'stdin'\npath = 'x'", "[sources.s]: unknown key 'path'"),
        ("[sources.s]\nkind = 'socket'\npath = '/tmp/x'", "path is '/tmp/x', expected a file name"),
        ("[sources.s]\nkind = 'socket'\nevery_ms = 1", "[sources.s]: unknown key 'every_ms'"),
    ],
)
def test_a_malformed_tool_or_source_is_refused(text: str, message: str) -> None:
    assert message in refused(f"{MINIMAL}{text}")


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ("fleet", "name = 1", "name is 1, expected a string that is not empty"),
        ("fleet", 'name = "a b"', "name 'a b', expected 1 to 48 of A-Z a-z 0-9 _ -"),
        ("schedule", 'policy = "x"', 'policy is \'x\', expected "events" or "round-robin" or'),
        ("schedule", 'order = "any"', 'order is \'any\', expected "strict" or "arrival"'),
        ("schedule", 'mailbox_cycle = "x"', 'mailbox_cycle is \'x\', expected "accept" or "stop"'),
        ("schedule", 'topics = ["a", "a"]', "topics is ['a', 'a'], expected no name twice"),
        ("schedule", 'topics = ["a b"]', "[schedule] topics: name 'a b', expected 1 to 48 of"),
        ("schedule", 'topics = "a"', "topics is 'a', expected a list of strings"),
        (
            "agents.a",
            'mailbox_full = "drop"',
            'mailbox_full is \'drop\', expected "wait" or "fail"',
        ),
        ("agents.a", "back = 1", "back is 1, expected a list of strings"),
        ("agents.a", "tools = ['t', 't']", "tools is ['t', 't'], expected no name twice"),
        ("agents.a", "topics = [1]", "topics is [1], expected a list of strings"),
        ("models.m", "providers = []", "providers is [], expected at least one provider"),
        ("models.m", 'providers = ["cpu", "cpu"]', "expected no name twice"),
        (
            "models.m",
            'providers = ["cpu"]\nrequire = "cuda"',
            "require is 'cuda', expected one of providers ('cpu',)",
        ),
        ("agents.a", 'input = "all"', 'input is \'all\', expected "broadcast" or "deal"'),
        ("agents.a", "canonical_nans = 1", "canonical_nans is 1, expected true or false"),
        ("agents.a", "after = 1", "after is 1, expected a list of strings"),
        ("agents.a", "config = 1", "config is 1, expected a table"),
        ("agents.a", "config = { d = 1979-05-27 }", "expected values that JSON has"),
        ("agents.a", "config = { x = [nan] }", "expected values that JSON has"),
        ("agents.a", "config = { x = -inf }", "expected values that JSON has"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(section: str, line: str, message: str) -> None:
    assert message in refused(with_keys(section, line))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.toml: no [agents.NAME] table, expected at least one agent"),
        ("[agents.a]", "f.toml: [agents.a]: module is missing"),
        ("[models.m]\n[agents.a]\nmodule = 'a'", "f.toml: [models.m]: path is missing"),
        ("agents = 1", "f.toml: agents is 1, expected a table"),
        ("fleet = 1\n[agents.a]\nmodule = 'a'", "f.toml: fleet is 1, expected a table"),
        ("[agents]\na = 1", "f.toml: [agents.a]: found 1, expected a table"),
        ("[models]\nm = 1\n[agents.a]\nmodule = 'a'", "f.toml: [models.m]: found 1, expected a"),
        ("[agents.'a.0']\nmodule = 'a'", "f.toml: name 'a.0', expected 1 to 48 of"),
        (f"[agents.{'x' * 49}]\nmodule = 'a'", "expected 1 to 48 of"),
        ("[agents.a]\nmodule = ''", "module is '', expected a string that is not empty"),
    ],
)
def test_a_missing_or_malformed_table_is_refused(text: str, message: str) -> None:
    assert message in refused(text)


def test_more_agents_than_possible_are_refused() -> None:
    half = AGENTS_MAX // 2
    text = "".join(f"[agents.{n}]\nmodule = 'a'\nreplicas = {half + 1}\n" for n in "ab")
    assert refused(text) == f"f.toml: {AGENTS_MAX + 2} agents, at most {AGENTS_MAX} are possible"


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_fleet_or_a_usage_error(data: bytes) -> None:
    try:
        parse(data, "f.toml")
    except UsageError:
        pass
