"""Changes in the middle of a run: what `lockstep fork --set KEY=VALUE` may say, and why not more.

A key may change when nothing that the past holds was decided by it for the time after the cut:
agents keep what they were started with, tokens what they were computed by. Pure.
"""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import AgentGroup, Fleet, Model, Recovery, Schedule, Source, Tool
from lockstep.engine.fleet_file import parse
from lockstep.engine.settings import nearest

# Keys that a fork may change: read anew at every tag, and whole numbers all of them.
MAY_CHANGE = (
    "fleet.seed",
    "fleet.turns_max",
    "fleet.messages_max",
    "fleet.steps_max",
    "schedule.items_in_flight_max",
    "schedule.fuel_per_step",
    "schedule.lookahead",
    "schedule.items_reordered_max",
    "schedule.credit",
    "schedule.item_steps_max",
)
# Why the others may not. A table's own line is for every key of it that has none.
WHY_NOT = {
    "fleet.name": "it names the run and changes nothing in it",
    "fleet.frozen_date": "the guests' clock would jump, and they have read it",
    "fleet.step_us": "the guests' clock would jump, and they have read it",
    "fleet.record_bytes_max": "rings and mailboxes of the past are cut to it",
    "fleet.module_bytes_max": "the modules are the past's",
    "schedule.policy": "items that are on their way have no place in another policy",
    "schedule.rounds_max": "conversations that are under way were begun with it",
    "schedule.priority_steps": "requests that wait were put in line by it",
    "schedule.order": "the order of the past decides where its turns take effect",
    "schedule.topics": "messages of the past carry the numbers of the topics",
    "schedule.mailbox_cycle": "senders of the past may be parked by it",
    "models": "the tokens of the past, and the keys and values in its rows, were computed with it",
    "agents": "an agent keeps what it was started with, and its past must come out again",
    "tools": "calls of the past may be on their way",
    "sources": "events of the past came from them",
    "recovery": "it is physical and no part of a run",
}
_TABLES: dict[str, Any] = {
    "fleet": Fleet,
    "schedule": Schedule,
    "models": Model,
    "agents": AgentGroup,
    "tools": Tool,
    "sources": Source,
    "recovery": Recovery,
}
SETTING_CHARS_MAX = 200  # No key with a whole number is longer.
_INSIDE = (  # Of Fleet: no keys.
    *("schedule", "models", "groups", "agents", "tools", "sources", "recovery", "logic_flags"),
)
_REST = '\n[agents.any]\nmodule = "any"\ninput = "broadcast"\n'  # What a fleet file needs at least.


class Change(NamedTuple):
    """One key that is another from the cut on."""

    key: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def change(fleet: Fleet, settings: Sequence[str]) -> tuple[Fleet, list[Change]]:
    """The fleet as it goes on.

    Args:
        fleet: Of the past.
        settings: ``key=value`` each: a dotted key of the fleet file (a bare one is of [fleet]) and
            a value as it stands there.

    Returns:
        The fleet after the cut, and what changed: a value that was there already is no change.

    Raises:
        UsageError: no ``=``; an unknown key (the nearest one that may change is named), one that
            cannot change in the middle of a run (with the reason), one that is given twice, or a
            value that the fleet file would not take.
    """
    changes, seen = [], dict[str, None]()
    for setting in settings:
        key, value = _read(fleet, setting[:SETTING_CHARS_MAX])
        if key in seen:
            raise UsageError(f"--set {setting}: {key} is set twice")
        seen[key] = None
        table, _, name = key.partition(".")
        part = fleet if table == "fleet" else fleet.schedule
        old = int(getattr(part, name))
        if value != old:
            changes.append(Change(key, old, value))
            fleet = _with(fleet, table, {name: value})
    return fleet, changes


def as_recorded(fleet: Fleet, settings: Mapping[str, Any]) -> Fleet:
    """The fleet of a run that was forked: that of its file, with what was changed since.

    Args:
        fleet: As the file says.
        settings: The ``fleet`` of the run's identity.
    """
    new = []
    for key in MAY_CHANGE:
        table, _, name = key.partition(".")
        part, then = (fleet, settings) if table == "fleet" else (fleet.schedule, settings[table])
        if getattr(part, name) != then[name]:
            new.append(f"{key}={then[name]}")
    return change(fleet, new)[0]


def _with(fleet: Fleet, table: str, new: dict[str, Any]) -> Fleet:
    if table == "fleet":
        return dataclasses.replace(fleet, **new)
    return dataclasses.replace(fleet, schedule=dataclasses.replace(fleet.schedule, **new))


def _read(fleet: Fleet, setting: str) -> tuple[str, int]:
    key, equals, text = setting.partition("=")
    key, text = key.strip(), text.strip()
    if not (key and equals and text):
        raise UsageError(f"--set is {setting!r}, expected KEY=VALUE, such as schedule.lookahead=2")
    if "." not in key:
        key = f"fleet.{key}"
    if key not in MAY_CHANGE:
        raise _refused(fleet, key, setting)
    return key, _value(key, text, f"--set {setting}")


def _value(key: str, text: str, where: str) -> int:
    """The value, by the fleet file's own rules: in a file that says nothing else."""
    try:
        table = tomllib.loads(f"value = {text}")
        value = table.pop("value")
        if table or isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        shown = str(value)
    except (ValueError, RecursionError):
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise UsageError(f"{where}: {key} is {shown}, expected a whole number") from None
    section, _, name = key.partition(".")
    parsed = parse(f"[{section}]\n{name} = {shown}\n{_REST}".encode(), where)
    return int(getattr(parsed if section == "fleet" else parsed.schedule, name))


def _refused(fleet: Fleet, key: str, setting: str) -> UsageError:
    if key not in _known(fleet):
        close = nearest(key, MAY_CHANGE)
        return UsageError(f"--set {setting}: unknown key {key!r}{close}")
    why = WHY_NOT.get(key) or WHY_NOT[key.partition(".")[0]]
    return UsageError(f"--set {setting}: {key} cannot change in the middle of a run: {why}")


def _known(fleet: Fleet) -> dict[str, None]:
    """Every dotted key that this fleet's file has or could have."""
    groups: dict[str, Sequence[Model | AgentGroup | Tool | Source]] = {
        "models": fleet.models,
        "agents": fleet.groups,
        "tools": fleet.tools,
        "sources": fleet.sources,
    }
    known: dict[str, None] = {}
    for table, kind in _TABLES.items():
        fields = [field.name for field in dataclasses.fields(kind)]
        heads = [f"{table}.{part.name}" for part in groups[table]] if table in groups else [table]
        for name in fields:
            if not (kind is Fleet and name in _INSIDE):
                known.update(dict.fromkeys(f"{head}.{name}" for head in heads))
    return known
