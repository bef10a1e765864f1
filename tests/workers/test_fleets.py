"""Whole runs of what a fleet can be: topics, calls, routes, loops, tools, arrival order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.workers import verify
from lockstep.workers.job import Job
from lockstep.workers.launch import launch

CHAT = """
[fleet]
name = "chat"
seed = 3
[schedule]
topics = ["news"]
[agents.editor]
module = "GUESTS/chat.wasm"
input = "broadcast"
config = { publish = "news", broadcast = 1 }
[agents.reader]
module = "GUESTS/chat.wasm"
replicas = 2
topics = ["news"]
mailbox_max = 1
[agents.asker]
module = "GUESTS/chat.wasm"
input = "broadcast"
config = { call = "oracle" }
[agents.oracle]
module = "GUESTS/chat.wasm"
config = { hold = 2 }
"""

ROUTES = """
[fleet]
name = "routes"
[schedule]
policy = "dag"
[agents.writer]
module = "GUESTS/router.wasm"
retries = 2
[agents.critic]
module = "GUESTS/router.wasm"
after = ["writer"]
back = ["writer"]
passes_max = 3
retries = 2
config = { routes = 1 }
[agents.left]
module = "GUESTS/echo.wasm"
after = ["critic"]
[agents.right]
module = "GUESTS/echo.wasm"
after = ["critic"]
"""

TOOLS = """
[fleet]
name = "tools"
seed = 4
[models.default]
path = "MODEL"
providers = ["cpu"]
rows_max = 4
[tools.upper]
command = ["/bin/sh", "-c", "tr a-z A-Z"]
[tools.random]
command = ["/bin/sh", "-c", "od -An -N8 -tx8 /dev/urandom"]
[agents.caller]
module = "GUESTS/caller.wasm"
input = "broadcast"
tools = ["TOOL"]
config = { tool = "TOOL" }
[agents.asker]
module = "GUESTS/asker.wasm"
config = { tokens = 4 }
"""


def job(folder: Path, text: str, lines: list[Any], name: str, **more: Any) -> Job:
    path = folder / "input.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Job(
        fleet=str(fleets.fleet(folder, text)),
        base=str(folder),
        input=str(path),
        run_dir=str(folder / name),
        durability="memory",
        **more,
    )


def output(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / name / "output.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def log(folder: Path, name: str, agent: str) -> list[str]:
    """An agent's log lines without tag and level."""
    lines = (folder / name / "logs" / f"{agent}.log").read_text().splitlines()
    return [line.split(": ", 1)[1] for line in lines]


def repeats(folder: Path, name: str, first: dict[str, Any]) -> None:
    """The run comes out again, every entry of it."""
    second = verify(folder / name)
    assert second.equal and second.whole
    assert second.again["digest"] == first["digest"]


def test_topics_broadcasts_and_calls_of_a_run(tmp_path: Path) -> None:
    items = [{"id": n, "text": f"t{n}"} for n in range(4)]
    summary = launch(job(tmp_path, CHAT, items, "one"))
    assert (summary["state"], summary["items_out"]) == ("finished", 4)
    for reader in ("reader.0", "reader.1"):
        heard = log(tmp_path, "one", reader)
        # The mailbox has room for one: the editor waits for each, nothing is lost.
        assert sorted(heard) == sorted(
            [f"topic 0:{json.dumps(item)}" for item in items]
            + [f"from 0:{json.dumps(item)}" for item in items]
        )
    disturbed = launch(job(tmp_path, CHAT, items, "two", perturb=5))
    assert disturbed["digest"] == summary["digest"]
    repeats(tmp_path, "one", summary)


def test_an_item_is_given_up_sent_back_and_routed(tmp_path: Path) -> None:
    items = [
        {"id": "plain"},
        {"id": "left", "to": "left"},
        {"id": "right", "to": "right"},
        {"id": "again", "to": "writer", "loops": 2},
        {"id": "tired", "fails": 2},
        {"id": "hopeless", "fails": 99},
        {"id": "endless", "to": "writer"},
    ]
    summary = launch(job(tmp_path, ROUTES, items, "one"))
    by_id: dict[str, list[dict[str, Any]]] = {}
    for line in output(tmp_path, "one"):
        by_id.setdefault(line["id"], []).append(line)
    assert [line["agent"] for line in by_id["plain"]] == ["left", "right"]
    assert [line["agent"] for line in by_id["left"]] == ["left"]
    assert [line["agent"] for line in by_id["right"]] == ["right"]
    assert [line["agent"] for line in by_id["again"]] == ["left", "right"]
    assert [line["agent"] for line in by_id["tired"]] == ["left", "right"]
    assert by_id["hopeless"][0]["error"] == "agent writer gave it up: told to fail"
    assert by_id["endless"][0]["error"] == (
        "agent critic sent it back to writer more than passes_max = 3 times"
    )
    assert summary["agents_failed"] == []
    assert summary["exit_code"] == 3
    repeats(tmp_path, "one", summary)


def test_a_run_with_a_tool_repeats_without_running_it(tmp_path: Path) -> None:
    items = [{"id": n, "text": f"t{n}"} for n in range(6)]
    summary = launch(job(tmp_path, TOOLS.replace("TOOL", "upper"), items, "one"))
    assert (summary["state"], summary["items_out"]) == ("finished", 6)
    assert summary["regenerative"] is False
    assert [line["payload"] for line in output(tmp_path, "one")] == [
        {"ID": n, "TEXT": f"T{n}"} for n in range(6)
    ]
    repeats(tmp_path, "one", summary)


def test_a_tool_that_says_another_thing_each_time_is_repeated_from_the_record(
    tmp_path: Path,
) -> None:
    text = TOOLS.replace("TOOL", "random")
    first = launch(job(tmp_path, text, [{"id": 1}], "one"))
    other = launch(job(tmp_path, text, [{"id": 1}], "two"))
    assert first["digest"] != other["digest"]
    repeats(tmp_path, "one", first)
    repeats(tmp_path, "two", other)


@pytest.mark.parametrize("text", [CHAT, fleets.CHAIN, TOOLS.replace("TOOL", "upper")])
def test_a_run_in_arrival_order_repeats_as_it_came(tmp_path: Path, text: str) -> None:
    items = [{"id": n, "text": f"t{n}"} for n in range(8)]
    summary = launch(job(tmp_path, text, items, "one", order="arrival", perturb=3))
    assert summary["items_out"] == 8
    assert (summary["order"], summary["regenerative"]) == ("arrival", False)
    repeats(tmp_path, "one", summary)


def test_arrival_order_gives_the_same_answers_where_agents_do_not_depend_on_order(
    tmp_path: Path,
) -> None:
    items = [{"id": n, "text": f"t{n}"} for n in range(8)]
    strict = launch(job(tmp_path, fleets.CHAIN, items, "strict"))
    arrival = launch(job(tmp_path, fleets.CHAIN, items, "arrival", order="arrival"))
    assert strict["digest"] != arrival["digest"]

    def said(name: str) -> list[tuple[Any, Any]]:
        return [(line["id"], line["payload"]) for line in output(tmp_path, name)]

    assert said("strict") == said("arrival")


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(50))
def test_fifty_disturbed_runs_with_a_tool_repeat_each_by_its_record(
    tmp_path: Path, number: int
) -> None:
    text = TOOLS.replace("TOOL", "random")
    order = "arrival" if number % 3 == 0 else "strict"
    items = [{"id": n, "text": f"t{n}"} for n in range(12)]
    first = launch(job(tmp_path, text, items, "one", perturb=number + 1, order=order))
    assert first["items_out"] == 12
    repeats(tmp_path, "one", first)
