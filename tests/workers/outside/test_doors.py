"""Whole runs that something comes into: tools, sources, cancels, and their repetition."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fleets
import pytest

from lockstep.engine.errors import JournalCorrupt, RunStopped, UsageError
from lockstep.engine.journal import JournalWriter
from lockstep.engine.journal import format as journal_format
from lockstep.engine.outside import What, from_record
from lockstep.engine.record import Kind, decode
from lockstep.workers import run, verify
from lockstep.workers.folder import JOURNAL
from lockstep.workers.identity import kept_records, read_journal
from lockstep.workers.launch import Interrupted
from lockstep.workers.outside.ask import ask
from lockstep.workers.outside.lines import ShortPath

CALLER = """
[fleet]
name = "caller"
[agents.caller]
module = "GUESTS/caller.wasm"
input = "broadcast"
tools = ["tool"]
[tools.tool]
command = ["./tool.sh"]
timeout_ms = 60_000
"""
TICKER = """
[fleet]
name = "ticker"
[agents.ticker]
module = "GUESTS/ticker.wasm"
input = "broadcast"
"""
ENDLESS = "echo $$ >> pids; exec sleep infinity"


def tool(folder: Path, script: str) -> None:
    (folder / "tool.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "tool.sh").chmod(0o700)


def kept(folder: Path) -> list[What]:
    """What came into a run."""
    records = [next(decode(data)) for data in kept_records(read_journal(folder), folder)]
    return [What(from_record(r).what) for r in records if r.kind == Kind.OUTSIDE]


def payloads(folder: Path) -> list[Any]:
    lines = (folder / "output.jsonl").read_text().splitlines()
    return [json.loads(line).get("payload", json.loads(line).get("error")) for line in lines]


def again(folder: Path) -> bool:
    """Whether the run comes out again, from its record, with the figures it had."""
    found = verify(folder)
    summary = json.loads((folder / "summary.json").read_text())
    same = ("outside", "regenerative", "state", "items_out", "order")
    assert {k: found.again[k] for k in same} == {k: summary[k] for k in same}
    return found.equal and found.whole


@pytest.fixture
def meanwhile(tmp_path: Path) -> Iterator[Callable[[Callable[[], None]], Any]]:
    """A listener that begins something in a thread of its own once the run has its folder."""
    threads: list[threading.Thread] = []
    failed: list[BaseException] = []

    def make(act: Callable[[], None]) -> Any:
        def guarded() -> None:
            try:
                act()
            except BaseException as error:
                failed.append(error)

        def listen(what: str, value: Any) -> None:
            if what == "run":
                threads.append(threading.Thread(target=guarded))
                threads[-1].start()

        return listen

    yield make
    for thread in threads:
        thread.join()
    assert failed == []


def persist(act: Callable[[], Any]) -> Any:
    """Try until the run has got so far; the test's time-out bounds it."""
    while True:
        try:
            return act()
        except (UsageError, OSError) as error:
            assert "does not go on" not in str(error)


# -- tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["memory", "sync"])
def test_answers_of_tools_are_repeated_from_the_record_without_the_tool(
    tmp_path: Path, durability: str
) -> None:
    tool(tmp_path, "echo called >> calls; cat; printf ' at %s' $(pwd)")
    done = run(
        fleets.fleet(tmp_path, CALLER),
        fleets.items(tmp_path, 5),
        run_dir=tmp_path / "run",
        durability=durability,
    )
    assert done.exit_code == 0, done.summary
    assert [line["payload"].split(" at ")[1] for line in done.output] == [str(tmp_path)] * 5
    assert done.summary["regenerative"] is False
    assert done.summary["outside"] == ["5 answers of tools"]
    (tmp_path / "tool.sh").unlink()
    assert again(tmp_path / "run")
    assert (tmp_path / "calls").read_text() == "called\n" * 5
    # What the journal keeps of an event lies before the history in which it takes effect.
    kinds = [frame.kind for frame in read_journal(tmp_path / "run").frames[2:]]
    assert kinds.index(journal_format.KEPT) < len(kinds) - 1 and kinds[0] == journal_format.HISTORY


def test_a_run_in_which_tools_and_sources_kept_silent_says_that_they_might_not_have(
    tmp_path: Path,
) -> None:
    tool(tmp_path, ENDLESS)
    caller = CALLER.replace("[tools.tool]", "config = { cancel = 1 }\n[tools.tool]")
    clock = '[sources.clock]\nkind = "timer"\nevery_ms = 3_600_000\nto = ["caller"]\n'
    done = run(
        fleets.fleet(tmp_path, caller + clock),
        fleets.items(tmp_path, 2),
        run_dir=tmp_path / "run",
    )
    assert payloads(tmp_path / "run") == ["cancelled"] * 2
    assert done.summary["regenerative"] is False
    assert done.summary["outside"] == [
        "2 calls of tools without their answers",
        "1 source that brought nothing",
    ]
    assert again(tmp_path / "run")


def test_what_a_tool_does_wrong_is_its_agents_to_know(tmp_path: Path) -> None:
    tool(tmp_path, "echo 'no such page' >&2; exit 7")
    done = run(fleets.fleet(tmp_path, CALLER), fleets.items(tmp_path, 1), run_dir=tmp_path / "run")
    assert done.exit_code == 3 and done.summary["items_failed"] == 1
    assert "ended with exit status 7" in payloads(tmp_path / "run")[0]
    assert "no such page" in payloads(tmp_path / "run")[0]
    assert again(tmp_path / "run")


def test_a_changed_answer_in_the_record_is_another_run(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for place, word in ((first, "yes"), (second, "no")):
        place.mkdir()
        tool(place, f"echo {word}")
        run(fleets.fleet(place, CALLER), fleets.items(place, 1), run_dir=place / "run")
    digests = [json.loads((p / "run/summary.json").read_text())["digest"] for p in (first, second)]
    assert digests[0] != digests[1]


def test_a_tool_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[tools.tool\]: command './tool.sh': no such file"):
        run(fleets.fleet(tmp_path, CALLER), fleets.items(tmp_path, 1), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def pids(folder: Path) -> list[int]:
    """Of the endless tools that have begun."""
    path = folder / "pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def test_an_interrupt_ends_the_tools_and_what_is_recorded_verifies(tmp_path: Path) -> None:
    tool(tmp_path, ENDLESS)

    pressed: list[str] = []

    def listen(what: str, value: Any) -> None:
        if what == "progress" and len(pids(tmp_path)) == 2 and not pressed:
            pressed.append("Ctrl-C")
            raise KeyboardInterrupt

    # A clock keeps progress lines coming.
    clock = '[sources.clock]\nkind = "timer"\nevery_ms = 10\nto = ["caller"]\n'
    with pytest.raises(Interrupted) as stopped:
        run(
            fleets.fleet(tmp_path, CALLER + clock),
            fleets.items(tmp_path, 2),
            run_dir=tmp_path / "run",
            listen=listen,
        )
    assert stopped.value.summary is not None
    assert stopped.value.summary["items_failed"] == 0
    for pid in pids(tmp_path):
        assert fleets.gone(pid)
    found = verify(tmp_path / "run")
    assert found.equal and not found.whole


def test_tools_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    tool(tmp_path, ENDLESS)
    killed: list[int] = []

    def listen(what: str, value: Any) -> None:
        if what == "progress" and len(pids(tmp_path)) == 2 and not killed:
            killed.append(fleets.supervisor_of(tmp_path / "run"))
            os.kill(killed[0], signal.SIGKILL)

    clock = '[sources.clock]\nkind = "timer"\nevery_ms = 10\nto = ["caller"]\n'
    with pytest.raises(Exception, match="ended with SIGKILL"):
        run(
            fleets.fleet(tmp_path, CALLER + clock),
            fleets.items(tmp_path, 2),
            run_dir=tmp_path / "run",
            listen=listen,
        )
    for pid in pids(tmp_path):
        while not fleets.gone(pid):
            pass
    found = verify(tmp_path / "run")
    assert found.equal and not found.whole


def rewritten(run: Path, to: Path, frames: list[tuple[int, bytes]]) -> Path:
    """A copy of a run that has other frames, with checksums that are right."""
    shutil.copytree(run, to)
    with open(to / JOURNAL, "wb") as file:
        writer = JournalWriter(file, read_journal(run).header.run_id)
        for kind, body in frames:
            writer.append(kind, body)
    (to / "summary.json").unlink()  # It names the digest of the journal that was closed.
    (to / "output.jsonl").write_bytes(b"")
    return to


def test_a_record_cut_anywhere_verifies_as_far_as_it_goes(tmp_path: Path) -> None:
    tool(tmp_path, "cat")
    clock = '[sources.clock]\nkind = "timer"\nevery_ms = 5\ncount = 2\nto = ["caller"]\n'
    run(
        fleets.fleet(tmp_path, CALLER + clock),
        fleets.items(tmp_path, 2),
        run_dir=tmp_path / "run",
    )
    frames = [(frame.kind, frame.body) for frame in read_journal(tmp_path / "run").frames]
    assert journal_format.KEPT in [kind for kind, _ in frames[3:]]
    near = [n for n, (kind, _) in enumerate(frames) if kind == journal_format.KEPT]
    for count in sorted({3, *near, *(n + 1 for n in near)}):
        found = verify(rewritten(tmp_path / "run", tmp_path / f"cut{count}", frames[:count]))
        assert (found.equal, found.whole) == (True, False), count


def test_a_record_that_lacks_what_came_in_neither_hangs_nor_verifies(tmp_path: Path) -> None:
    tool(tmp_path, "cat")
    run(fleets.fleet(tmp_path, CALLER), fleets.items(tmp_path, 1), run_dir=tmp_path / "run")
    frames = [(frame.kind, frame.body) for frame in read_journal(tmp_path / "run").frames]
    lacking = [frame for frame in frames if frame[0] != journal_format.KEPT]
    with pytest.raises(RunStopped, match="nothing more that came from outside"):
        verify(rewritten(tmp_path / "run", tmp_path / "lacking", lacking))
    changed = [
        (kind, body.replace(b"say 0", b"say 1") if kind == journal_format.KEPT else body)
        for kind, body in frames
    ]
    found = verify(rewritten(tmp_path / "run", tmp_path / "changed", changed))
    assert not found.equal and found.difference is not None
    assert "say 0" in found.difference.left and "say 1" in found.difference.right
    broken = [(kind, body[:-8] if kind == journal_format.KEPT else body) for kind, body in frames]
    with pytest.raises(JournalCorrupt, match="what the journal kept cannot be read"):
        verify(rewritten(tmp_path / "run", tmp_path / "broken", broken))


# -- sources -------------------------------------------------------------------------------------


def test_items_come_from_standard_input_while_the_run_goes_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    seen: list[int] = []

    def listen(what: str, value: Any) -> None:
        # The second line is sent when the first has been answered: nothing waits for the end.
        if what == "run":
            os.write(writing, b'{"id": "later"}\n')
        elif what == "progress" and value["items_done"] == 3 and not seen:
            seen.append(value["items_done"])
            os.write(writing, b'no item\n{"id": "last"}\n')
            os.close(writing)

    text = TICKER + '[sources.lines]\nkind = "stdin"\n'
    clock = '[sources.clock]\nkind = "timer"\nevery_ms = 10\nto = ["ticker"]\n'
    done = run(
        fleets.fleet(tmp_path, text + clock),
        fleets.items(tmp_path, 2),
        run_dir=tmp_path / "run",
        stdin=reading,
        listen=listen,
    )
    os.close(reading)
    assert [line["id"] for line in done.output] == [0, 1, "later", "last"]
    assert done.summary["lines_refused"] == 1 and done.exit_code == 3
    assert kept(tmp_path / "run").count(What.ITEM) == 2
    assert again(tmp_path / "run")


def test_a_source_of_standard_input_alone_needs_no_input_file(tmp_path: Path) -> None:
    notes: list[str] = []
    text = TICKER + '[sources.lines]\nkind = "stdin"\n'
    with open(fleets.items(tmp_path, 300)) as file:
        done = run(
            fleets.fleet(tmp_path, text),
            run_dir=tmp_path / "run",
            stdin=file.fileno(),
            listen=lambda what, value: notes.append(value) if what == "note" else None,
        )
    assert done.exit_code == 0 and notes == []
    assert [line["id"] for line in done.output] == list(range(300))
    assert done.summary["outside"] == ["300 events of sources", "1 end of a source"]
    assert again(tmp_path / "run")


def test_a_run_without_standard_input_ends_at_once(tmp_path: Path) -> None:
    text = TICKER + '[sources.lines]\nkind = "stdin"\n'
    done = run(fleets.fleet(tmp_path, text), run_dir=tmp_path / "run", stdin=None)
    assert (done.exit_code, done.output) == (0, [])
    assert again(tmp_path / "run")


def test_a_socket_feeds_agents_until_a_person_closes_it(
    tmp_path: Path, meanwhile: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"

    def talk() -> None:
        with socket.socket(socket.AF_UNIX) as client:

            def connect() -> None:
                with ShortPath(folder, "chat.sock") as path:
                    client.connect(path)

            persist(connect)
            client.sendall(b"one\ntwo\n")
            heard = b""
            while heard.count(b"\n") < 2:
                heard += client.recv(1000)
        assert [json.loads(line)["ok"] for line in heard.splitlines()] == [True, True]
        assert persist(lambda: ask(folder, {"do": "cancel", "source": "chat"}))["event"] == 3

    text = TICKER + '[sources.chat]\nkind = "socket"\nto = ["ticker"]\n'
    done = run(fleets.fleet(tmp_path, text), run_dir=folder, listen=meanwhile(talk))
    assert done.exit_code == 0
    log = (folder / "logs/ticker.log").read_text().splitlines()
    assert [line.split("log: ")[1] for line in log] == ["0 1 one", "0 2 two"]
    assert kept(folder) == [What.EVENT, What.EVENT, What.CLOSED]
    assert {path.name for path in folder.iterdir() if path.is_socket()} == set()
    assert again(folder)


def test_a_clock_wakes_its_agents(tmp_path: Path) -> None:
    clock = '[sources.clock]\nkind = "timer"\nevery_ms = 1\ncount = 20\nto = ["ticker"]\n'
    done = run(fleets.fleet(tmp_path, TICKER + clock), run_dir=tmp_path / "run")
    assert done.exit_code == 0
    log = (tmp_path / "run/logs/ticker.log").read_text().splitlines()
    assert [line.split("log: ")[1] for line in log] == [f"0 {n} " for n in range(1, 21)]
    assert again(tmp_path / "run")


# -- cancels -------------------------------------------------------------------------------------


def test_a_cancelled_item_ends_its_tool_and_the_rest_goes_on(
    tmp_path: Path, meanwhile: Callable[..., Any]
) -> None:
    tool(tmp_path, f"read line; case $line in *'\"id\": 1'*) {ENDLESS};; *) echo $line;; esac")
    folder = tmp_path / "run"

    def cancel() -> None:
        while not pids(tmp_path):
            pass
        assert persist(lambda: ask(folder, {"do": "cancel", "item": "1", "by": "ann"}))["ok"]

    done = run(
        fleets.fleet(tmp_path, CALLER),
        fleets.items(tmp_path, 3),
        run_dir=folder,
        listen=meanwhile(cancel),
    )
    assert done.exit_code == 3 and done.summary["items_failed"] == 1
    assert payloads(folder)[1] == "cancelled by ann"
    assert "1 cancel by a person" in done.summary["outside"]
    (pid,) = pids(tmp_path)
    assert fleets.gone(pid)
    assert again(folder)


def test_a_cancelled_run_stops_at_a_tag_and_verifies(
    tmp_path: Path, meanwhile: Callable[..., Any]
) -> None:
    tool(tmp_path, ENDLESS)
    folder = tmp_path / "run"

    def cancel() -> None:
        while len(pids(tmp_path)) < 2:
            pass
        with pytest.raises(UsageError, match='no item has the id "x"'):
            persist_alive(folder, {"do": "cancel", "item": "x"})
        persist(lambda: ask(folder, {"do": "cancel"}))

    done = run(
        fleets.fleet(tmp_path, CALLER),
        fleets.items(tmp_path, 2),
        run_dir=folder,
        listen=meanwhile(cancel),
    )
    assert (done.summary["state"], done.summary["reason"]) == ("stopped", "cancelled by a person")
    assert done.exit_code == 3 and done.summary["items_failed"] == 2
    assert all(fleets.gone(pid) for pid in pids(tmp_path))
    with pytest.raises(UsageError, match="the run does not go on any more"):
        ask(folder, {"do": "cancel"})
    assert again(folder)


def persist_alive(folder: Path, request: dict[str, Any]) -> Any:
    """`ask`, once the run listens."""
    while True:
        try:
            return ask(folder, request)
        except UsageError as error:
            if "still starting" not in str(error):
                raise


# -- arrival order -------------------------------------------------------------------------------


def test_a_run_in_arrival_order_is_repeated_from_its_record(tmp_path: Path) -> None:
    done = run(
        fleets.fleet(tmp_path, fleets.CHAIN),
        fleets.items(tmp_path, 9),
        run_dir=tmp_path / "run",
        order="arrival",
    )
    assert done.exit_code == 0 and done.summary["items_out"] == 9
    assert (done.summary["order"], done.summary["outside"]) == ("arrival", ["arrival order"])
    assert done.summary["regenerative"] is False
    identity = json.loads((tmp_path / "run/manifest.json").read_text())["identity"]
    assert identity["order"] == identity["fleet"]["schedule"]["order"] == "arrival"
    assert again(tmp_path / "run")


def test_an_order_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="order is 'any', expected strict or arrival"):
        run(fleets.fleet(tmp_path, TICKER), order="any")
