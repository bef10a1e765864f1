"""Topology: the edges of a fleet, checked before anything starts. Errors name the path.

Unreachable agents: in a dag nobody is, once there is no cycle, nobody waits for more EMITs than
there can be, and every loop leads to whom it began with; nor is anybody in a round. With `events`
every agent has a turn at the start, and whoever has a turn may set timers and write to all whose
names it knows: so nobody is refused, and those that nothing in the file leads to are told.
"""

from collections.abc import Iterator, Mapping, Sequence

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import CALLS, JOIN_ALL, AgentGroup, Fleet
from lockstep.engine.settings import nearest


def check_topology(fleet: Fleet, where: str) -> None:
    """Refuse a fleet whose names or edges cannot work.

    Raises:
        UsageError: an unknown name (the nearest known one is told), a cycle (its path), a join of
            more EMITs than there can be, a loop that leads nowhere, a key that means nothing
            under the policy, a source that nobody listens to.
    """
    by_name = {group.name: group for group in fleet.groups}
    topics = dict.fromkeys(fleet.schedule.topics)
    tools = {tool.name: None for tool in fleet.tools}
    _check_caller(fleet, where)
    for group in fleet.groups:
        place = f"{where}: [agents.{group.name}]"
        _check_keys(group, fleet.schedule.policy, place)
        _known(group.after, by_name, f"{place}: after", "agent")
        _known(group.back, by_name, f"{place}: back", "agent")
        _known(group.topics, topics, f"{place}: topics", "topic in [schedule] topics")
        _known(group.tools, tools, f"{place}: tools", "[tools.NAME]")
    _refuse_cycle({group.name: group.after for group in fleet.groups}, where)
    for group in fleet.groups:
        place = f"{where}: [agents.{group.name}]"
        _check_join(group, by_name, place)
        _check_back(group, by_name, place)
    _check_sources(fleet, by_name, where)


def _check_keys(group: AgentGroup, policy: str, place: str) -> None:
    for key, given in (
        ("after", bool(group.after)),
        ("join", group.join != JOIN_ALL),
        ("back", bool(group.back)),
        ("passes_max", group.passes_max != 1),
    ):
        if given and policy != "dag":
            raise UsageError(f'{place}: {key} needs [schedule] policy = "dag"')
    if group.join != JOIN_ALL and not group.after:
        raise UsageError(f"{place}: join is given, but no after: nothing is joined")
    if group.passes_max != 1 and not group.back:
        raise UsageError(f"{place}: passes_max is given, but no back: nothing is sent back")
    if group.input not in ("", CALLS) and policy == "round-robin":
        raise UsageError(
            f"{place}: input is {group.input!r}, but round-robin gives the input to the first agent"
        )


def _check_caller(fleet: Fleet, where: str) -> None:
    """Who takes calls is one agent, outside of the graph: its name is part of what seeds give."""
    for group in fleet.groups:
        place = f"{where}: [agents.{group.name}]"
        if group.input == CALLS and group is not fleet.groups[-1]:
            raise UsageError(f'{place}: input is "calls", expected of the last agent alone')
        if group.input == CALLS and (group.replicas or group.after or group.back):
            raise UsageError(f'{place}: input is "calls", expected no replicas, after or back')
    caller = fleet.caller
    if caller is None:
        return
    for group in fleet.groups:
        if caller.name in (*group.after, *group.back):
            raise UsageError(
                f"{where}: [agents.{group.name}] names {caller.name!r}, which takes calls alone"
            )
    if fleet.schedule.policy != "events" and len(fleet.groups) == 1:
        raise UsageError(
            f"{where}: [schedule] policy is {fleet.schedule.policy!r}, but there is no agent "
            "besides the one that takes calls"
        )


def _known(names: Sequence[str], known: Mapping[str, object], key: str, what: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{key} names {name!r}, no such {what}{nearest(name, list(known))}")


def _check_join(group: AgentGroup, by_name: dict[str, AgentGroup], place: str) -> None:
    counts = {name: emits(by_name[name]) for name in group.after}
    if group.join > sum(counts.values()):
        ways = ", ".join(f"{name} -> {group.name} ({count})" for name, count in counts.items())
        raise UsageError(
            f"{place}: join is {group.join}, but an item gets it at most "
            f"{sum(counts.values())} EMITs: {ways}"
        )


def unreached(fleet: Fleet) -> list[str]:
    """Names of the groups that nothing in the file leads to: they may be meant so.

    Input, topics, sources and items of others lead to an agent, and so does its name in the config
    of another group.
    """
    if fleet.schedule.policy != "events":
        return []
    led = {name: None for source in fleet.sources for name in source.to}
    for group in fleet.groups:
        words = {word.partition(".")[0]: None for word in _words(group.config)}
        led |= {
            other.name: None for other in fleet.groups if other.name in words and other != group
        }
        if group.input or group.topics:
            led[group.name] = None
    return [group.name for group in fleet.groups if group.name not in led]


def _words(value: object) -> Iterator[str]:
    """Every text in a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *_words(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def emits(group: AgentGroup) -> int:
    """How many agents of a group get an item, so how often it is emitted for at most."""
    return 1 if group.input == "deal" else max(group.replicas, 1)


def _check_back(group: AgentGroup, by_name: dict[str, AgentGroup], place: str) -> None:
    if not group.back:
        return
    before: dict[str, None] = {}
    queue = list(group.after)
    for name in queue:
        if name not in before:
            before[name] = None
            queue += by_name[name].after
    for name in group.back:
        if name not in before:
            known = f"before it: {', '.join(sorted(before)) or 'nobody'}"
            raise UsageError(
                f"{place}: back names {name!r}, but no path of after leads "
                f"{name} -> ... -> {group.name}; {known}"
            )


def _check_sources(fleet: Fleet, by_name: dict[str, AgentGroup], where: str) -> None:
    for source in fleet.sources:
        place = f"{where}: [sources.{source.name}]"
        _known(source.to, by_name, f"{place}: to", "agent")
        taken = fleet.schedule.policy != "events" or any(group.input for group in by_name.values())
        if not source.to and not taken:
            raise UsageError(
                f"{place}: without to each of its lines is an item, "
                'but no [agents.NAME] has input = "broadcast" or "deal"'
            )


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
