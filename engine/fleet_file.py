"""The fleet file: TOML in, a frozen and checked `Fleet` out. Pure."""

import datetime as dt
import re
import tomllib
from dataclasses import replace
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import (
    AGENTS_MAX,
    CALLS,
    EPOCH,
    JOIN_ALL,
    SEED_MAX,
    STEPS_MAX,
    TOKENS_MAX_LEAST,
    Agent,
    AgentGroup,
    Fleet,
    Model,
    Recovery,
    Schedule,
    Source,
    Tool,
    moment,
)
from lockstep.engine.planner import CHUNK_TOKENS_MIN
from lockstep.engine.record import TOPICS_MAX
from lockstep.engine.settings import Section
from lockstep.engine.strict_json import dumps, loads
from lockstep.engine.topology import check_topology
from lockstep.engine.version import KV_REUSE, LOGIC_FLAGS

ROWS_KEPT_MAX = 16_384  # Per model.
RECORD_BYTES_MAX = 65_536  # By default.
ITEMS_IN_FLIGHT_MAX = 64  # By default.
TOKENS_MAX = 256  # Of a slot, by default.
PREFILL_TOKENS = 256  # Of a step, by default.
KINDS = ("decoder", "tensors")
SPINS = ("auto", "on", "off")
CUDA_GRAPHS = ("off", "auto", "on")
CANDIDATES_MAX = 4096  # Per row.
CPU = "cpu"
CONFIG_DEPTH_MAX = 32  # Of an agent's config; the identity nests it a little deeper.
POLICIES = ("events", "round-robin", "dag")
ORDERS = ("strict", "arrival")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")
_UNLIMITED = 2**62
_DATE_END = dt.datetime(2201, 1, 1, tzinfo=dt.UTC)


def parse(data: bytes, where: str, logic_flags: int = LOGIC_FLAGS) -> Fleet:
    """Read a fleet file.

    Args:
        data: The file's bytes.
        where: The file's name, for messages.
        logic_flags: Rules of the run that it is of; keys that came with a later rule are unknown.

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
    tools, sources = top.table("tools"), top.table("sources")
    recovery = top.table("recovery")
    top.done()
    parsed = _fleet(
        fleet,
        _schedule(schedule, where),
        _models(models, where, logic_flags),
        _tools(tools, where),
        _sources(sources, where),
        _recovery(recovery, where),
        agents,
        where,
        logic_flags,
    )
    check_topology(parsed, where)
    return parsed


def _fleet(
    table: dict[str, Any],
    schedule: Schedule,
    models: tuple[Model, ...],
    tools: tuple[Tool, ...],
    sources: tuple[Source, ...],
    recovery: Recovery,
    agents: dict[str, Any],
    where: str,
    logic_flags: int,
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
        steps_max=section.integer("steps_max", STEPS_MAX, 1, STEPS_MAX),
        record_bytes_max=section.integer("record_bytes_max", RECORD_BYTES_MAX, 1024, 2**26),
        module_bytes_max=section.integer("module_bytes_max", 2**26, 8, 2**30),
        schedule=schedule,
        models=models,
        groups=groups,
        agents=_agents(groups, where),
        tools=tools,
        sources=sources,
        recovery=recovery,
        logic_flags=logic_flags,
    )
    section.done()
    return fleet


def _schedule(table: dict[str, Any], where: str) -> Schedule:
    section = Section(table, f"{where}: [schedule]")
    schedule = Schedule(
        policy=section.choice("policy", "events", POLICIES),
        lookahead=section.integer("lookahead", 1, 0, 1000),
        fuel_per_step=section.integer("fuel_per_step", 10_000_000, 1, 2**48),
        items_in_flight_max=section.integer("items_in_flight_max", ITEMS_IN_FLIGHT_MAX, 1, 2**20),
        items_reordered_max=section.integer("items_reordered_max", 1024, 1, 2**24),
        rounds_max=section.integer("rounds_max", 1, 1, 2**20),
        priority_steps=section.integer("priority_steps", 8, 1, 2**20),
        credit=section.integer("credit", 4, 1, 2**20),
        order=section.choice("order", "strict", ORDERS),
        topics=section.texts("topics", ()),
        item_steps_max=section.integer("item_steps_max", 0, 1, 2**40),
        mailbox_cycle=section.choice("mailbox_cycle", "accept", ("accept", "stop")),
    )
    for topic in schedule.topics:
        _name(topic, f"{where}: [schedule] topics")
    if len(schedule.topics) > TOPICS_MAX:
        raise section.error("topics", len(schedule.topics), f"at most {TOPICS_MAX}")
    section.done()
    return schedule


def _models(tables: dict[str, Any], where: str, logic_flags: int) -> tuple[Model, ...]:
    models = []
    for name, values in tables.items():
        place = f"{where}: [models.{_name(name, where)}]"
        section = Section(values, place)
        require = section.text("require", "")
        kind = section.choice("kind", "decoder", KINDS)
        model = Model(
            name=name,
            path=section.text("path", None),
            providers=section.texts("providers", (require,) if require else ("cuda", "cpu")),
            require=require,
            intra_op_threads=section.integer("intra_op_threads", 2, 1, 256),
            rows_max=section.integer("rows_max", 16, 1, 1024),
            tokens_max=TOKENS_MAX,
            prefill_tokens_per_step=PREFILL_TOKENS,
            period=section.integer("period", 1, 1, 2**10),
            file=section.text("file", ""),
            kind=kind,
            spin=section.choice("spin", "auto", SPINS),
        )
        if kind == "decoder":
            model = _decoder(model, section, bool(logic_flags & KV_REUSE))
        section.done()
        if not model.providers:
            raise section.error("providers", [], "at least one provider")
        if model.require and model.require not in model.providers:
            raise section.error("require", model.require, f"one of providers {model.providers}")
        models.append(model)
    return tuple(models)


def _decoder(model: Model, section: Section, reuse: bool) -> Model:
    """A model with the sizes that only decoders have."""
    kept = section.integer("rows_kept", model.rows_max, 0, ROWS_KEPT_MAX) if reuse else 0
    return replace(
        model,
        tokens_max=section.integer("tokens_max", TOKENS_MAX, TOKENS_MAX_LEAST, 2**20),
        prefill_tokens_per_step=section.integer(
            "prefill_tokens_per_step", PREFILL_TOKENS, CHUNK_TOKENS_MIN, 2**20
        ),
        rows_kept=kept,
        prefix_copies=section.flag("prefix_copies", True) if reuse else False,
        fallback=_fallback(section, model),
        candidates=section.integer("candidates", 0, 1, CANDIDATES_MAX),
        cuda_graphs=_cuda_graphs(section, model),
    )


def _fallback(section: Section, model: Model) -> bool:
    allowed = section.flag("fallback", False)
    if allowed and model.providers == (CPU,):
        raise section.error("fallback", True, "another of providers than cpu, to fall back from")
    return allowed


def _cuda_graphs(section: Section, model: Model) -> str:
    value = section.choice("cuda_graphs", "off", CUDA_GRAPHS)
    if value == "on" and model.providers[:1] != ("cuda",):
        raise section.error("cuda_graphs", value, 'providers that begin with "cuda", or "auto"')
    return value


def _tools(tables: dict[str, Any], where: str) -> tuple[Tool, ...]:
    tools = []
    for name, values in tables.items():
        section = Section(values, f"{where}: [tools.{_name(name, where)}]")
        tool = Tool(
            name=name,
            command=section.words("command"),
            timeout_ms=section.integer("timeout_ms", 10_000, 1, 86_400_000),
            output_bytes_max=section.integer("output_bytes_max", 32_768, 0, 2**26),
            parallel_max=section.integer("parallel_max", 4, 1, 1024),
            env=section.text_table("env"),
        )
        section.done()
        tools.append(tool)
    return tuple(tools)


def _sources(tables: dict[str, Any], where: str) -> tuple[Source, ...]:
    sources = []
    for name, values in tables.items():
        section = Section(values, f"{where}: [sources.{_name(name, where)}]")
        kind = section.choice("kind", None, ("stdin", "socket", "timer"))
        source = Source(
            name=name,
            kind=kind,
            to=section.texts("to", ()),
            path=section.text("path", f"{name}.sock") if kind == "socket" else "",
            every_ms=section.integer("every_ms", None, 1, 86_400_000) if kind == "timer" else 0,
            count=section.integer("count", 0, 1, 2**40) if kind == "timer" else 0,
        )
        section.done()
        if "/" in source.path:
            raise section.error("path", source.path, "a file name: it lies in the run folder")
        if kind == "timer" and not source.to:
            raise section.error("to", [], "the agents that a timer wakes")
        sources.append(source)
    return tuple(sources)


def _recovery(table: dict[str, Any], where: str) -> Recovery:
    section = Section(table, f"{where}: [recovery]")
    default = Recovery()
    recovery = Recovery(
        restarts_max=section.integer("restarts_max", default.restarts_max, 0, 10**6),
        window_s=section.integer("window_s", default.window_s, 1, 10**6),
        overdue_s=section.integer("overdue_s", default.overdue_s, 0, 10**6),
        step_s=section.integer("step_s", default.step_s, 0, 10**6),
        snapshot_turns=section.integer("snapshot_turns", default.snapshot_turns, 0, 2**40),
        segment_bytes_max=section.integer(
            "segment_bytes_max", default.segment_bytes_max, 1024, 2**40
        ),
    )
    section.done()
    return recovery


def _group(name: str, values: object, where: str) -> AgentGroup:
    section = Section(values, f"{where}: [agents.{_name(name, where)}]")
    group = AgentGroup(
        name=name,
        module=section.text("module", None),
        replicas=section.integer("replicas", 0, 1, AGENTS_MAX),
        input=section.choice("input", "", ("broadcast", "deal", CALLS)),
        after=section.texts("after", ()),
        join=_join(section),
        back=section.texts("back", ()),
        passes_max=section.integer("passes_max", 1, 1, 2**20),
        retries=section.integer("retries", 0, 0, 2**20),
        topics=section.texts("topics", ()),
        tools=section.texts("tools", ()),
        may_cancel_run=section.flag("may_cancel_run", False),
        mailbox_max=section.integer("mailbox_max", 4096, 1, 2**20),
        mailbox_full=section.choice("mailbox_full", "wait", ("wait", "fail")),
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


def _join(section: Section) -> int:
    value = section.any("join", "all")
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= AGENTS_MAX:
        return value
    if value not in ("all", "any"):
        raise section.error("join", value, f'"all", "any" or a number from 1 to {AGENTS_MAX}')
    return JOIN_ALL if value == "all" else 1


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
        date = moment(value)
        good = date.tzinfo is not None and EPOCH <= date < _DATE_END
    except ValueError:
        good = False
    if not good:
        raise section.error(
            key, value, "a time with zone from 1970 to 2200, such as 2000-01-01T00:00:00Z"
        )
    return value
