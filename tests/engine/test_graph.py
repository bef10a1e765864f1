"""The topology as people see it: nodes and edges, as text, Mermaid and SVG."""

import xml.etree.ElementTree as ET
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.engine.fleet_file import parse
from lockstep.engine.graph import Graph, graph_of
from lockstep.engine.graph_layout import place
from lockstep.engine.graph_svg import svg
from lockstep.engine.graph_text import mermaid, text
from lockstep.engine.strict_json import dumps, loads

PRESS = """
[fleet]
name = "press"
[schedule]
policy = "dag"
topics = ["news"]
[models.small]
path = "x"
[tools.grep]
command = ["grep"]
[sources.feed]
kind = "stdin"
[sources.clock]
kind = "timer"
every_ms = 500
count = 2
to = ["router"]
[agents.router]
module = "a"
[agents.writer]
module = "a"
replicas = 3
input = "deal"
retries = 1
tools = ["grep"]
after = ["router"]
[agents.critic]
module = "a"
replicas = 2
after = ["writer", "router"]
join = "any"
topics = ["news"]
back = ["writer"]
passes_max = 4
"""
TALK = (
    "[schedule]\npolicy = 'round-robin'\n{}[agents.ann]\nmodule = 'a'\n[agents.ben]\nmodule = 'a'"
)
MARKET = "{}[agents.broker]\nmodule = 'a'\n{}[agents.trader]\nmodule = 'a'\nreplicas = 9"


def drawn(fleet: str) -> Graph:
    return graph_of(parse(fleet.encode(), "f.toml"))


def ways(graph: Graph) -> list[str]:
    return [f"{e.start} {e.kind} {e.end}" + f" {e.label}" * bool(e.label) for e in graph.edges]


def test_a_dag_is_drawn_with_everything_that_the_file_says() -> None:
    graph = drawn(PRESS)
    assert ways(graph) == [
        "input item agent:router",
        "agent:router item agent:writer",
        "agent:writer item agent:critic",
        "agent:router item agent:critic",
        "agent:critic back agent:writer 4 times at most",
        "agent:critic item output",
        "source:feed event input",
        "source:clock event agent:router",
        "agent:writer tool tool:grep",
        "topic:news topic agent:critic",
    ]
    assert [(n.id, n.replicas, n.notes) for n in graph.nodes] == [
        ("input", 1, ("64 items at once",)),
        ("source:feed", 1, ("standard input",)),
        ("source:clock", 1, ("every 500 ms, twice",)),
        ("agent:router", 1, ()),
        ("agent:writer", 3, ("an item goes to one of them, in turn", "retries an item once")),
        ("agent:critic", 2, ("an item goes to each of them", "waits for the first of 2")),
        ("output", 1, ()),
        ("model:small", 1, ()),
        ("topic:news", 1, ()),
        ("tool:grep", 1, ()),
    ]


@pytest.mark.parametrize(
    ("join", "note"),
    [("'all'", "waits for all 3"), ("2", "waits for 2 of 3"), ("3", "waits for 3 of 3")],
)
def test_a_join_says_how_many_it_waits_for(join: str, note: str) -> None:
    graph = drawn(
        "[schedule]\npolicy = 'dag'\n[agents.a]\nmodule = 'a'\nreplicas = 3\n"
        f"[agents.b]\nmodule = 'a'\nafter = ['a']\njoin = {join}"
    )
    assert graph.of_kind("agent")[1].notes == (note,)


def test_round_robin_is_a_chain_and_a_way_back_to_its_head() -> None:
    chain = ["input item agent:ann", "agent:ann item agent:ben", "agent:ben item output"]
    assert ways(drawn(TALK.format(""))) == chain
    rounds = "agent:ben round agent:ann 3 rounds at most"
    assert ways(drawn(TALK.format("rounds_max = 3\n"))) == [*chain, rounds]


def test_with_events_anybody_may_answer() -> None:
    graph = drawn(MARKET.format("", "input = 'deal'\n"))
    assert ways(graph) == [
        "input item agent:broker",
        "agent:broker answer output",
        "agent:trader answer output",
    ]
    broker, trader = graph.of_kind("agent")
    assert (broker.notes, trader.notes) == ((), ("nothing in the file leads to it",))
    assert "trader x9: nothing in the file leads to it\n" in text(graph)


def test_without_anybody_who_takes_input_there_is_neither_input_nor_output() -> None:
    graph = drawn(MARKET.format("", ""))
    assert [node.id for node in graph.nodes] == ["agent:broker", "agent:trader"]
    assert graph.edges == ()


def test_the_json_of_a_graph_is_json() -> None:
    value: Any = loads(dumps(drawn(PRESS).as_json()))
    assert (value["fleet"], value["policy"], value["agents"]) == ("press", "dag", 6)
    back = {"from": "agent:critic", "to": "agent:writer", "kind": "back", "may": True,
            "label": "4 times at most"}  # fmt: skip
    assert back in value["edges"]
    assert value["nodes"][3] == {
        "id": "agent:router", "kind": "agent", "name": "router", "replicas": 1, "notes": [],
    }  # fmt: skip


def test_the_text_is_for_reading() -> None:
    assert (
        text(drawn(PRESS))
        == """press: policy dag, 6 agents

input: 64 items at once
  --> router

source feed: standard input
  --> input

source clock: every 500 ms, twice
  --> router

router
  --> writer
  --> critic

writer x3: an item goes to one of them, in turn, retries an item once
  --> critic
  may call grep

critic x2: an item goes to each of them, waits for the first of 2
  ~~> writer (back, 4 times at most)
  --> output

topic news
  --> critic

models: small
tools: grep
"""
    )


def test_mermaid_has_a_line_for_each_node_and_edge() -> None:
    graph = drawn(PRESS)
    head, *lines = mermaid(graph).splitlines()
    assert head == "flowchart LR"
    assert len(lines) == len(graph.nodes) + len(graph.edges)
    assert (
        '  n4["writer x3<br/>an item goes to one of them, in turn<br/>retries an item once"]'
        in lines
    )
    assert '  n5 -.->|"back, 4 times at most"| n4' in lines
    assert "  n4 --- n9" in lines and '  n8{{"news"}}' in lines


HOSTILE = '"<&>]#'


def test_names_from_the_file_cannot_break_a_picture() -> None:
    path = f"[sources.s]\nkind = 'socket'\npath = '''{HOSTILE}'''\nto = ['a']\n"
    graph = drawn(f"{path}[agents.a]\nmodule = 'a'\ninput = 'deal'")
    assert mermaid(graph).count('"') == 2 * (len(graph.nodes) + 2)  # And two edges with labels.
    assert "'#quot;#lt;#amp;>]#35;" in mermaid(graph)
    ET.fromstring(svg(graph))


@pytest.mark.parametrize("fleet", [PRESS, TALK.format("rounds_max = 2\n"), MARKET.format("", "")])
def test_an_svg_is_whole_in_itself(fleet: str) -> None:
    picture = svg(drawn(fleet))
    root = ET.fromstring(picture)
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = (int(rect.attrib.get(key, 0)) for key in "xy")
        assert x >= 0 and x + int(rect.attrib["width"]) <= width
        assert y >= 0 and y + int(rect.attrib["height"]) <= height
    assert picture.isascii()  # Whatever a stream can say, it can say this.
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in picture and "@import" not in picture and "prefers-color" in picture


def test_an_svg_names_every_agent_and_dashes_what_may_happen() -> None:
    root = ET.fromstring(svg(drawn(PRESS)))
    words = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("press", "router", "writer \u00d73", "critic \u00d72", "calls grep", "hears news"):
        assert name in words
    kinds = [p.attrib["class"].split() for p in root.iter("{http://www.w3.org/2000/svg}path")]
    assert kinds.count(["e", "may"]) == 1 and kinds.count(["e", "event"]) == 2


def test_the_same_fleet_gives_the_same_picture() -> None:
    assert svg(drawn(PRESS)) == svg(drawn(PRESS))


@st.composite
def layered(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    count = draw(st.integers(1, 12))
    heights = draw(st.lists(st.integers(20, 90), min_size=count, max_size=count))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    lines = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []
    return heights, lines


@settings(max_examples=200)
@given(layered())
def test_boxes_never_overlap_and_lines_only_go_right(
    case: tuple[list[int], list[tuple[int, int]]],
) -> None:
    heights, lines = case
    placed = place(heights, lines, [])
    by_column: dict[int, list[tuple[int, int]]] = {}
    for least, (column, y, height) in zip(heights, placed.boxes, strict=True):
        assert height >= least and 0 <= column < placed.columns
        assert y >= 0 and y + height <= placed.height + 1
        by_column.setdefault(column, []).append((y, y + height))
    for spans in by_column.values():
        assert all(upper[1] < lower[0] for upper, lower in pairwise(sorted(spans)))
    for (start, end), way in zip(lines, placed.lines, strict=True):
        columns = [column for column, _ in way]
        assert columns == list(range(placed.boxes[start][0], placed.boxes[end][0] + 1))
        for box, (_, y) in ((start, way[0]), (end, way[-1])):
            _, top, height = placed.boxes[box]
            assert top <= y <= top + height
        for column, y in way[1:-1]:
            assert not any(top <= y <= bottom for top, bottom in by_column.get(column, []))


def test_lines_do_not_cross_where_they_need_not() -> None:
    # Boxes 2 and 3 are written the wrong way round for 0 and 1.
    placed = place([40] * 4, [(0, 3), (1, 2)], [])
    ends = [way[-1][1] for way in placed.lines]
    starts = [way[0][1] for way in placed.lines]
    assert (starts[0] < starts[1]) == (ends[0] < ends[1])


def test_a_box_that_may_be_late_stands_before_who_follows() -> None:
    lines = [(0, 1), (1, 2), (3, 2)]
    assert place([40] * 4, lines, []).boxes[3][0] == 0
    assert place([40] * 4, lines, [3]).boxes[3][0] == 1


def test_a_large_fleet_is_drawn_all_the_same() -> None:
    agents = ["[agents.a0]\nmodule = 'a'"]
    for n in range(1, 400):
        after = sorted({f"a{n - 1}", f"a{n // 2}"})
        agents.append(f"[agents.a{n}]\nmodule = 'a'\nafter = {after}")
    graph = drawn("[schedule]\npolicy = 'dag'\n" + "\n".join(agents))
    root = ET.fromstring(svg(graph))
    assert len(root.findall(".//{http://www.w3.org/2000/svg}g")) == 402
    assert len(root.findall("{http://www.w3.org/2000/svg}path")) == len(graph.edges)
