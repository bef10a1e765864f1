"""`lockstep graph`: the topology of a fleet, or why it is refused, without starting anything."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

FLEET = """
[fleet]
name = "press"
[schedule]
policy = "dag"
[agents.writer]
module = "nowhere.wasm"
replicas = 2
[agents.critic]
module = "nowhere.wasm"
after = ["writer"]
back = ["writer"]
"""
TEXT = """press: policy dag, 3 agents

input: 64 items at once
  --> writer

writer x2: an item goes to each of them
  --> critic

critic: waits for all 2
  ~~> writer (back, once)
  --> output
"""


@pytest.fixture
def press(place: Any) -> Any:
    place.write("press.toml", FLEET)
    return place


def test_a_fleet_is_shown_as_text(press: Any) -> None:
    before = press.names()
    result = press.lockstep("graph", "press.toml")
    assert (result.code, result.out, result.err) == (0, TEXT, "")
    assert press.names() == before  # And the modules need not be there.


def test_the_object_is_the_last_line_and_the_text_goes_elsewhere(press: Any) -> None:
    result = press.lockstep("graph", "press.toml", "--json")
    assert (result.code, result.err) == (0, TEXT)
    assert result.out.count("\n") == 1
    assert sorted(result.json) == ["agents", "edges", "fleet", "nodes", "policy"]
    back = {"from": "agent:critic", "to": "agent:writer", "kind": "back", "may": True,
            "label": "once"}  # fmt: skip
    assert back in result.json["edges"]


@pytest.mark.parametrize(
    ("args", "head"),
    [
        (("--format", "mermaid"), "flowchart LR\n"),
        (("--format", "svg"), "<svg "),
        (("--output", "out.svg"), "<svg "),
        (("--output", "out.MMD"), "flowchart LR\n"),
        (("--output", "out.txt"), "press: "),
        (("--output", "out"), "press: "),
        (("--output", "out.png", "--format", "svg"), "<svg "),
        (("--output", "out.svg", "--format", "text"), "press: "),
    ],
)
def test_the_form_is_what_is_asked_for_or_how_the_file_is_called(
    press: Any, args: tuple[str, ...], head: str
) -> None:
    result = press.lockstep("graph", "press.toml", *args)
    assert (result.code, result.err) == (0, "")
    if "--output" in args:
        assert result.out == ""
        drawn = (press.path / args[1]).read_text(encoding="utf-8")
    else:
        drawn = result.out
    assert drawn.startswith(head)
    if head == "<svg ":
        ET.fromstring(drawn)


def test_a_file_and_the_object_go_together(press: Any) -> None:
    result = press.lockstep("graph", "press.toml", "--output", "out.svg", "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["fleet"] == "press"
    assert (press.path / "out.svg").exists()


REFUSED = {
    "no file": (("nowhere.toml",), "nowhere.toml: cannot read the fleet file: No such file"),
    "a cycle": (("cycle.toml",), "cycle.toml: after makes a cycle: a -> b -> a"),
    "a loop that leads nowhere": (("loop.toml",), "no path of after leads b -> ... -> a"),
    "a form that is none": (("press.toml", "--format", "png"), "'png' is not one of 'text'"),
    "an ending that is none": (
        ("press.toml", "--output", "out.png"),
        "out.png: no such form; known endings: .txt, .mmd, .mermaid, .svg (or say --format)",
    ),
    "no place for it": (
        ("press.toml", "--output", "nowhere/x.svg"),
        "nowhere/x.svg: cannot write the graph there: No such file or directory",
    ),
    "no fleet": ((), "Missing argument 'FLEET' (lockstep graph --help)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_line(press: Any, case: str) -> None:
    args, expected = REFUSED[case]
    dag = "[schedule]\npolicy = 'dag'\n[agents.a]\nmodule = 'x'\n{}\n[agents.b]\nmodule = 'x'\n{}"
    press.write("cycle.toml", dag.format("after = ['b']", "after = ['a']"))
    press.write("loop.toml", dag.format("back = ['b']", ""))
    before = press.names()
    result = press.lockstep("graph", *args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("lockstep: error: ") and result.err.count("\n") == 1
    assert expected in result.err
    assert press.names() == before


def test_names_from_the_file_cannot_speak_to_the_terminal(press: Any) -> None:
    press.write(
        "loud.toml",
        "[sources.s]\nkind = 'socket'\npath = \"\\u001b[31mred\\u0007\"\nto = ['a']\n"
        "[agents.a]\nmodule = 'x'\n",
    )
    for form in ("text", "mermaid"):
        result = press.lockstep("graph", "loud.toml", "--format", form)
        assert result.code == 0 and "\\x1b[31mred\\x07" in result.out
        assert "\x1b" not in result.out
