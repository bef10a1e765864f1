"""Fleets: the TOML file, typed and checked. What a run is made from, without its bytes.

Parsing is pure: text in, a frozen `Fleet` out. Every default is resolved here, so that
`Fleet.settings()` names everything that the file could have said; it is part of the identity.
"""

import dataclasses
import datetime as dt
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.engine.planner import CHUNK_TOKENS_MIN
from lockstep.engine.settings import Section, nearest
from lockstep.engine.strict_json import dumps, loads

SEED_MAX = 2**63 - 1
AGENTS_MAX = 10_000  # Replicas included.
CONFIG_DEPTH_MAX = 32  # Of an agent's config; the identity nests it a little deeper.
POLICIES = ("events", "round-robin", "dag")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")
_UNLIMITED = 2**62
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DATE_END = dt.datetime(2201, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The [schedule] table. Steps are decode steps; fuel is wasmtime's unit."""

    policy: str
    lookahead: int  # Steps between taking effect and being admitted.
    fuel_per_step: int  # Guest work that costs one step of logical time.
    items_in_flight_max: int
    items_reordered_max: int  # Finished items that wait for an earlier one; stops admission.
    rounds_max: int  # Round-robin: passes of one conversation.
    priority_steps: int  # Steps that one level of priority costs in the queue.
    credit: int  # Steps that may be granted ahead of the next one (rule 8).


@dataclass(frozen=True, slots=True)
class Model:
    """One [models.NAME] table."""

    name: str
    path: str
    providers: tuple[str, ...]
    require: str
    intra_op_threads: int
    rows_max: int
    tokens_max: int
    prefill_tokens_per_step: int
    period: int


@dataclass(frozen=True, slots=True)
class AgentGroup:
    """One [agents.NAME] table: one agent, or ``replicas`` of it."""

    name: str
    module: str
    replicas: int  # 0: not given; the agent is named like the group.
    input: str  # "broadcast", "deal" or "" (gets no input, or by the policy's default).
    after: tuple[str, ...]
    memory_bytes_max: int
    table_elements_max: int
    delay: int
    turn_fuel_max: int
    turn_out_bytes_max: int
    log_lines_max: int
    log_bytes_max: int
    canonical_nans: bool
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent: a replica with its place in the fleet."""

    name: str
    index: int
    replica: int
    group: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """A whole fleet file after defaults."""

    name: str
    seed: int
    frozen_date: str
    step_us: int
    turns_max: int
    messages_max: int
    steps_max: int
    record_bytes_max: int
    module_bytes_max: int
    schedule: Schedule
    models: tuple[Model, ...]
    groups: tuple[AgentGroup, ...]
    agents: tuple[Agent, ...]

    def settings(self) -> dict[str, Any]:
        """Everything the file says or could have said, JSON-able (for the identity)."""
        return dataclasses.asdict(self)

    @property
    def frozen_epoch_us(self) -> int:
        """Microseconds since 1970 that the guests' clock shows at step 0."""
        return (_moment(self.frozen_date) - _EPOCH) // dt.timedelta(microseconds=1)


def parse(data: bytes, where: str) -> Fleet:
    """Read a fleet file.

    Args:
        data: The file's bytes.
        where: The file's name, for messages.

    Raises:
        UsageError: not UTF-8 or TOML, nested too deeply or with a number of too many digits to
            be read, an unknown key (the nearest known one is named), a value out of range, an
            unknown or cyclic ``after``.
    """
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: {error}") from None
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply to be read") from None
    except ValueError:  # Python's bound on the digits of a number: all that TOML lets through.
        raise UsageError(f"{where}: a number has too many digits to be read") from None
    top = Section(table, where)
    fleet, schedule = top.table("fleet"), top.table("schedule")
    models, agents = top.table("models"), top.table("agents")
    top.done()
    parsed = _fleet(fleet, _schedule(schedule, where), _models(models, where), agents, where)
    _check_topology(parsed, where)
    return parsed


def _fleet(
    table: dict[str, Any],
    schedule: Schedule,
    models: tuple[Model, ...],
    agents: dict[str, Any],
    where: str,
) -> Fleet:
    section = Section(table, f"{where}: [fleet]")
    groups = tuple(_group(name, values, where) for name, values in agents.items())
    if not groups:
        raise UsageError(f"{where}: no [agents.NAME] table, expected at least one agent")
    fleet = Fleet(
        name=_name(section.text("name", "fleet"), f"{where}: [fleet] name"),
        seed=section.integer("seed", 0, 0, SEED_MAX),
        frozen_date=_date(section, "frozen_date", "2000-01-01T00:00:00Z"),
        step_us=section.integer("step_us", 1000, 1, 10**9),
        turns_max=section.integer("turns_max", _UNLIMITED, 1, _UNLIMITED),
        messages_max=section.integer("messages_max", _UNLIMITED, 1, _UNLIMITED),
        steps_max=section.integer("steps_max", 2**48, 1, 2**48),
        record_bytes_max=section.integer("record_bytes_max", 65_536, 1024, 2**26),
        module_bytes_max=section.integer("module_bytes_max", 2**26, 8, 2**30),
        schedule=schedule,
        models=models,
        groups=groups,
        agents=_agents(groups, where),
    )
    section.done()
    return fleet


def _schedule(table: dict[str, Any], where: str) -> Schedule:
    section = Section(table, f"{where}: [schedule]")
    schedule = Schedule(
        policy=section.choice("policy", "events", POLICIES),
        lookahead=section.integer("lookahead", 1, 0, 1000),
        fuel_per_step=section.integer("fuel_per_step", 10_000_000, 1, 2**48),
        items_in_flight_max=section.integer("items_in_flight_max", 64, 1, 2**20),
        items_reordered_max=section.integer("items_reordered_max", 1024, 1, 2**24),
        rounds_max=section.integer("rounds_max", 1, 1, 2**20),
        priority_steps=section.integer("priority_steps", 8, 1, 2**20),
        credit=section.integer("credit", 4, 1, 2**20),
    )
    section.done()
    return schedule


def _models(tables: dict[str, Any], where: str) -> tuple[Model, ...]:
    models = []
    for name, values in tables.items():
        place = f"{where}: [models.{_name(name, where)}]"
        section = Section(values, place)
        require = section.text("require", "")
        model = Model(
            name=name,
            path=section.text("path", None),
            providers=section.texts("providers", (require,) if require else ("cuda", "cpu")),
            require=require,
            intra_op_threads=section.integer("intra_op_threads", 2, 1, 256),
            rows_max=section.integer("rows_max", 16, 1, 1024),
            tokens_max=section.integer("tokens_max", 256, 4, 2**20),
            prefill_tokens_per_step=section.integer(
                "prefill_tokens_per_step", 256, CHUNK_TOKENS_MIN, 2**20
            ),
            period=section.integer("period", 1, 1, 2**10),
        )
        section.done()
        if not model.providers:
            raise section.error("providers", [], "at least one provider")
        if model.require and model.require not in model.providers:
            raise section.error("require", model.require, f"one of providers {model.providers}")
        models.append(model)
    return tuple(models)


def _group(name: str, values: object, where: str) -> AgentGroup:
    section = Section(values, f"{where}: [agents.{_name(name, where)}]")
    group = AgentGroup(
        name=name,
        module=section.text("module", None),
        replicas=section.integer("replicas", 0, 1, AGENTS_MAX),
        input=section.choice("input", "", ("broadcast", "deal")),
        after=section.texts("after", ()),
        memory_bytes_max=section.integer("memory_bytes_max", 67_108_864, 65_536, 2**32),
        table_elements_max=section.integer("table_elements_max", 100_000, 0, 10**7),
        delay=section.integer("delay", 1, 1, 10**6),
        turn_fuel_max=section.integer("turn_fuel_max", 10_000_000_000, 1, 2**62),
        turn_out_bytes_max=section.integer("turn_out_bytes_max", 1_048_576, 64, 2**30),
        log_lines_max=section.integer("log_lines_max", 1000, 0, 10**7),
        log_bytes_max=section.integer("log_bytes_max", 65_536, 0, 2**26),
        canonical_nans=section.flag("canonical_nans", True),
        config=_config(section),
    )
    section.done()
    return group


def _agents(groups: tuple[AgentGroup, ...], where: str) -> tuple[Agent, ...]:
    agents: list[Agent] = []
    for number, group in enumerate(groups):
        if group.replicas == 0:
            agents.append(Agent(group.name, len(agents), 0, number))
        for replica in range(group.replicas):
            agents.append(Agent(f"{group.name}.{replica}", len(agents), replica, number))
    if len(agents) > AGENTS_MAX:
        raise UsageError(f"{where}: {len(agents)} agents, at most {AGENTS_MAX} are possible")
    return tuple(agents)


def _check_topology(fleet: Fleet, where: str) -> None:
    names = [group.name for group in fleet.groups]
    after = {group.name: group.after for group in fleet.groups}
    for group in fleet.groups:
        place = f"{where}: [agents.{group.name}]"
        if group.after and fleet.schedule.policy != "dag":
            raise UsageError(f'{place}: after needs [schedule] policy = "dag"')
        for name in group.after:
            if name not in names:
                raise UsageError(f"{place}: after names {name!r}, no such agent"
                                 f"{nearest(name, names)}")  # fmt: skip
    if fleet.schedule.policy == "round-robin":
        for group in fleet.groups:
            if group.input:
                raise UsageError(
                    f"{where}: [agents.{group.name}]: input is {group.input!r}, but round-robin "
                    "gives the input to the first agent"
                )
    _refuse_cycle(after, where)


def _refuse_cycle(after: dict[str, tuple[str, ...]], where: str) -> None:
    # Depth-first with marking, or a layered graph would be walked once per path; without
    # recursion, or a long chain would overflow Python's stack.
    clear: dict[str, None] = {}  # Everything before these was walked.
    for first in after:
        path: dict[str, Iterator[str]] = {first: iter(after[first])}
        while path:
            name, rest = next(reversed(path.items()))
            predecessor = next((p for p in rest if p not in clear), None)
            if predecessor is None:
                clear[name] = None
                del path[name]
            elif predecessor in path:
                names = list(path)
                cycle = [*names[names.index(predecessor) :], predecessor]
                raise UsageError(f"{where}: after makes a cycle: {' -> '.join(reversed(cycle))}")
            else:
                path[predecessor] = iter(after[predecessor])


def _name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: name {name!r}, expected 1 to 48 of A-Z a-z 0-9 _ -")
    return name


def _config(section: Section) -> dict[str, Any]:
    config = section.table("config")
    try:
        loads(dumps(config), CONFIG_DEPTH_MAX)
    except (TypeError, ValueError, RecursionError) as error:
        # TOML has dates, nan and inf; the agent gets its config as JSON, which has not. What is
        # too deep or too long for our own reader would not come back out of the identity either.
        raise section.error("config", config, f"values that JSON has ({error})") from None
    return config


def _date(section: Section, key: str, default: str) -> str:
    value = section.text(key, default)
    try:
        moment = _moment(value)
        good = moment.tzinfo is not None and _EPOCH <= moment < _DATE_END
    except ValueError:
        good = False
    if not good:
        raise section.error(
            key, value, "a time with zone from 1970 to 2200, such as 2000-01-01T00:00:00Z"
        )
    return value


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
