"""Topology: names and edges that cannot work are refused before anything starts, path named."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.fleet_file import parse
from lockstep.engine.topology import unreached


def fleet(agents: Mapping[str, str], schedule: str = "policy = 'dag'", more: str = "") -> Fleet:
    """A fleet of agents, each with lines of its own."""
    tables = [f"[agents.{name}]\nmodule = 'a'\n{lines}\n" for name, lines in agents.items()]
    return parse(f"[schedule]\n{schedule}\n{''.join(tables)}\n{more}".encode(), "f.toml")


def refused(agents: Mapping[str, str], schedule: str = "policy = 'dag'", more: str = "") -> str:
    with pytest.raises(UsageError) as error:
        fleet(agents, schedule, more)
    message = str(error.value)
    assert message.startswith("f.toml: ")
    return message.removeprefix("f.toml: ")


LOOP = {"writer": "", "editor": "after = ['writer']", "critic": "after = ['editor']"}


@pytest.mark.parametrize("key", ["after = ['a']", "join = 'any'", "back = ['a']", "passes_max = 2"])
@pytest.mark.parametrize("policy", ["events", "round-robin"])
def test_keys_of_a_dag_are_refused_elsewhere(key: str, policy: str) -> None:
    name = key.split()[0]
    assert refused({"a": "", "b": key}, f"policy = '{policy}'") == (
        f'[agents.b]: {name} needs [schedule] policy = "dag"'
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("after = ['writr']", "after names 'writr', no such agent; did you mean 'writer'?"),
        (
            "after = ['writer']\nback = ['writr']",
            "back names 'writr', no such agent; did you mean 'writer'?",
        ),
        (
            "topics = ['nws']",
            "topics names 'nws', no such topic in [schedule] topics; did you mean 'news'?",
        ),
        ("tools = ['gerp']", "tools names 'gerp', no such [tools.NAME]; did you mean 'grep'?"),
        ("tools = ['x']", "tools names 'x', no such [tools.NAME]; known: grep"),
    ],
)
def test_an_unknown_name_tells_the_nearest_one(lines: str, message: str) -> None:
    more = "[tools.grep]\ncommand = ['grep']"
    agents = {"writer": "topics = ['news']\ntools = ['grep']"}
    schedule = "policy = 'dag'\ntopics = ['news']"
    fleet(agents, schedule, more)
    assert refused(agents | {"judge": lines}, schedule, more) == f"[agents.judge]: {message}"


def test_a_tool_needs_its_table() -> None:
    assert (
        refused({"a": "tools = ['grep']"}) == "[agents.a]: tools names 'grep', no such [tools.NAME]"
    )


def test_a_source_goes_to_agents_that_exist() -> None:
    more = "[sources.clock]\nkind = 'timer'\nevery_ms = 5\nto = ['{}']"
    fleet({"solver": ""}, more=more.format("solver"))
    assert refused({"solver": ""}, more=more.format("solvers")) == (
        "[sources.clock]: to names 'solvers', no such agent; did you mean 'solver'?"
    )


def test_lines_that_are_items_need_somebody_who_takes_items() -> None:
    more = "[sources.feed]\nkind = 'stdin'"
    message = (
        "[sources.feed]: without to each of its lines is an item, "
        'but no [agents.NAME] has input = "broadcast" or "deal"'
    )
    assert refused({"a": ""}, "", more) == message
    fleet({"a": "input = 'deal'"}, "", more)
    fleet({"a": ""}, "", f"{more}\nto = ['a']")
    for policy in ("dag", "round-robin"):
        fleet({"a": ""}, f"policy = '{policy}'", more)


def test_no_agent_is_refused_for_being_lonely() -> None:
    # Each has a turn at the start: it may set timers, ask a model, and be written to.
    fleet({"a": "input = 'deal'", "b": "", "c": ""}, "")
    fleet({"a": ""}, "")


@pytest.mark.parametrize(
    "leads",
    [
        "[agents.b]\nmodule = 'a'\ninput = 'deal'",
        "[agents.b]\nmodule = 'a'\ntopics = ['news']",
        "[agents.b]\nmodule = 'a'\n[sources.s]\nkind = 'stdin'\nto = ['b']",
        "[agents.b]\nmodule = 'a'\n[agents.a.config]\npeers = [{ to = 'b' }]",
        "[agents.b]\nmodule = 'a'\nreplicas = 2\n[agents.a.config]\n'b.1' = 3",
    ],
)
def test_agents_that_something_in_the_file_leads_to_are_not_alone(leads: str) -> None:
    schedule = "topics = ['news']"
    assert unreached(fleet({"a": "input = 'deal'"}, schedule, leads)) == []


def test_agents_that_nothing_in_the_file_leads_to_are_told() -> None:
    agents = {"a": "input = 'deal'", "b": "config = { me = 'b' }", "c": "replicas = 3"}
    assert unreached(fleet(agents, "")) == ["b", "c"]
    assert unreached(fleet({"a": ""}, "")) == ["a"]
    for policy in ("dag", "round-robin"):
        assert unreached(fleet({"a": "", "b": ""}, f"policy = '{policy}'")) == []


@pytest.mark.parametrize(
    ("before", "join", "most", "ways"),
    [
        ("", 2, 1, "solver -> judge (1)"),
        ("replicas = 3", 4, 3, "solver -> judge (3)"),
        ("replicas = 3\ninput = 'deal'", 2, 1, "solver -> judge (1)"),
    ],
)
def test_a_join_of_more_emits_than_there_can_be_names_its_edges(
    before: str, join: int, most: int, ways: str
) -> None:
    agents = {"solver": before, "judge": f"after = ['solver']\njoin = {join}"}
    assert refused(agents) == (
        f"[agents.judge]: join is {join}, but an item gets it at most {most} EMITs: {ways}"
    )
    fleet(agents | {"judge": f"after = ['solver']\njoin = {most}"})


def test_a_join_counts_all_that_come_before() -> None:
    agents = {
        "a": "replicas = 2",
        "b": "replicas = 5\ninput = 'deal'",
        "c": "after = ['b', 'a']\njoin = 4",
    }
    assert refused(agents).endswith("at most 3 EMITs: b -> c (1), a -> c (2)")


def test_a_join_without_anything_to_join_is_refused() -> None:
    assert refused({"a": "join = 'any'"}) == (
        "[agents.a]: join is given, but no after: nothing is joined"
    )


def test_passes_without_a_loop_are_refused() -> None:
    assert refused({"a": "", "b": "after = ['a']\npasses_max = 2"}) == (
        "[agents.b]: passes_max is given, but no back: nothing is sent back"
    )


def test_a_loop_leads_back_along_after() -> None:
    fleet(LOOP | {"critic": "after = ['editor']\nback = ['writer', 'editor']\npasses_max = 3"})


@pytest.mark.parametrize("target", ["critic", "other", "later"])
def test_a_loop_to_who_is_not_before_is_refused(target: str) -> None:
    agents = LOOP | {
        "critic": f"after = ['editor']\nback = ['{target}']",
        "other": "",
        "later": "after = ['critic']",
    }
    assert refused(agents) == (
        f"[agents.critic]: back names '{target}', but no path of after leads "
        f"{target} -> ... -> critic; before it: editor, writer"
    )


def test_a_cycle_is_told_before_a_loop_through_it() -> None:
    assert refused({"a": "after = ['b']\nback = ['b']", "b": "after = ['a']"}) == (
        "after makes a cycle: a -> b -> a"
    )


@given(
    st.dictionaries(st.sampled_from("bcdef"), st.sets(st.sampled_from("abcdef"))),
    st.sampled_from("abcdef"),
    st.sampled_from("abcdef"),
)
def test_a_loop_is_good_exactly_when_its_end_leads_to_its_beginning(
    after: dict[str, set[str]], start: str, end: str
) -> None:
    # Only edges in alphabetical order, so that there is no cycle.
    graph = {name: sorted(b for b in after.get(name, ()) if b < name) for name in "abcdef"}
    before = set(graph[start])
    for name in reversed("abcdef"):
        if name in before:
            before |= set(graph[name])
    agents = {name: f"after = {names}" for name, names in graph.items()}
    agents[start] += f"\nback = ['{end}']"
    if end in before:
        fleet(agents)
    else:
        assert f"no path of after leads {end} -> ... -> {start}" in refused(agents)


def dag(after: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: f"after = {list(names)}" for name, names in after.items()}


@pytest.mark.parametrize(
    ("after", "path"),
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"x": [], "a": ["x", "c"], "b": ["a"], "c": ["b"]}, "a -> b -> c -> a"),
        ({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["b"]}, "b -> c -> b"),
    ],
)
def test_a_cycle_is_refused_with_its_path(after: dict[str, list[str]], path: str) -> None:
    assert refused(dag(after)) == f"after makes a cycle: {path}"


def test_a_deep_and_wide_graph_is_walked_once() -> None:
    # Once per path it would be 2^200 walks; by recursion it would end Python's stack.
    layers = {f"{side}{n}": [f"a{n - 1}", f"b{n - 1}"] for n in range(1, 200) for side in "ab"}
    fleet(dag({"a0": [], "b0": [], **layers}) | {"end": "after = ['a199']\nback = ['b0']"})
    chain = {f"c{n}": [f"c{n - 1}"] for n in range(3000, 0, -1)}
    fleet(dag({**chain, "c0": []}) | {"end": "after = ['c3000']\nback = ['c0']"})


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef"))))
def test_a_graph_is_refused_exactly_when_it_has_a_cycle(after: dict[str, set[str]]) -> None:
    graph = {name: sorted(after.get(name, ())) for name in "abcdef"}
    left = dict(graph)
    while ready := [n for n, before in left.items() if not any(b in left for b in before)]:
        for name in ready:
            del left[name]
    if left:
        assert "after makes a cycle" in refused(dag(graph))
    else:
        fleet(dag(graph))


def test_round_robin_gives_the_input_itself() -> None:
    assert refused({"a": "", "b": "input = 'deal'"}, "policy = 'round-robin'") == (
        "[agents.b]: input is 'deal', but round-robin gives the input to the first agent"
    )
