"""Selection: some records of a journal, by tag, agent and kind, as text for people."""

import json
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.engine.record import Kind
from lockstep.engine.settings import nearest
from lockstep.workers.api import tag_of
from lockstep.workers.export import Names, Object, export
from lockstep.workers.journal_view import frames

Place = tuple[int, float]  # A step's entry comes behind every tag of that step.

BEFORE: Place = (-1, 0)  # Of identity and environment.
SHOWN_CHARS = 120  # Of a payload.
# Kinds that a journal has: not what processes say to one another.
KINDS = [kind.name for kind in Kind if not Kind.END <= kind <= Kind.PROGRESS]
_NESTED = ("events", "records", "slots", "answers")


def select(
    run: Path,
    first: str | None = None,
    last: str | None = None,
    agent: str | None = None,
    kinds: Sequence[str] = (),
) -> Iterator[Object]:
    """Records as `export` gives them, in order.

    Args:
        run: A run folder.
        first: The first tag, ``STEP`` or ``STEP.MICROSTEP``; None: from the beginning.
        last: The last one; a bare step has everything of it. None: to the end.
        agent: Only records that say what this agent did or was given.
        kinds: Only records of these kinds, also inside others, of which the rest is left out.

    Raises:
        UsageError: there is no journal, no such agent or kind, or a tag that is none.
        JournalCorrupt, JournalVersion: it is damaged, or another version's.
    """
    start: Place = tag_of(first, "--from") if first is not None else BEFORE
    stop: Place = tag_of(last, "--to") if last is not None else (2**62, inf)
    if last is not None and "." not in last:
        stop = (stop[0], inf)
    if stop < start:
        raise UsageError(f"--from {first} is behind --to {last}: there is nothing between them")
    wanted = [_kind(kind) for kind in kinds]
    return _select(run, start, stop, agent, wanted)


def _select(
    run: Path, start: Place, stop: Place, agent: str | None, kinds: Sequence[str]
) -> Iterator[Object]:
    place = BEFORE
    for value in export(frames(run)):
        if value["kind"] == "IDENTITY" and agent is not None:
            _check_agent(run, agent, Names(value["identity"]))
        place = _place(value, place)
        if place > stop:
            return
        if place < start or (agent is not None and value.get("agent") != agent):
            continue
        found = _of_kinds(value, kinds) if kinds else value
        if found is not None:
            yield found


def _place(value: Object, before: Place) -> Place:
    """Where a record lies; what the journal keeps besides lies where the history was."""
    if value["kind"] == "STEP":
        return (value["step"], inf)
    if value["kind"] in ("IDENTITY", "ENVIRONMENT") or value["tag"] is None:
        return before
    step, _, micro = value["tag"].partition(".")
    return (int(step), int(micro))


def _check_agent(run: Path, agent: str, names: Names) -> None:
    if agent not in names.agents:
        raise UsageError(f"{run}: no agent {agent!r}{nearest(agent, names.agents)}")


def _kind(text: str) -> str:
    name = text.upper().replace("-", "_")
    if name not in KINDS:
        close = nearest(name, KINDS)
        raise UsageError(f"--kind is {text!r}, no kind of record{close}")
    return name


def _of_kinds(value: Object, kinds: Sequence[str]) -> Object | None:
    """The record, or of the records in it those of the kinds; None: it has none."""
    if value["kind"] in kinds:
        return value
    found = {
        key: [inner for inner in value[key] if inner.get("kind") in kinds]
        for key in _NESTED
        if isinstance(value.get(key), list)
    }
    return {**value, **found} if any(found.values()) else None


def text(value: Object) -> str:
    """A record as lines for a terminal: itself, and indented what is in it."""
    place = f"step {value['step']}" if value["kind"] == "STEP" else value["tag"] or ""
    head = f"{place:<10} {value['kind']:<9} {_fields(value)}"
    inner: list[Any] = [one for key in _NESTED for one in _list(value.get(key))]
    lines = [f"{'':<14} {one.get('kind') or one['op']} {_fields(one)}" for one in inner]
    return "\n".join([_safe(line).rstrip() for line in (head, *lines)])


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def _fields(value: Object) -> str:
    hidden = ("frame", "tag", "kind", "op", "step", *_NESTED)
    return " ".join(
        f"{key} {_short(one)}"
        for key, one in value.items()
        if one not in (None, "")
        and (key not in hidden or (key in _NESTED and isinstance(one, dict)))
    )


def _short(value: object) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}... ({len(shown)})"


def _safe(line: str) -> str:
    """Control characters would run in the terminal of whoever reads it."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
