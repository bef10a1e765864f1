"""Whole runs with real processes: one history whatever the machine does meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fleets
import pytest
import wasmtime
from disorder import Disturber, hogs, one_core
from lives import processes_of
from living import kill

from lockstep.engine.compare import ended
from lockstep.engine.errors import Diverged, UsageError
from lockstep.engine.journal import format as journal_format
from lockstep.workers import Verification, run, verify, view
from lockstep.workers.identity import read_journal
from lockstep.workers.job import Job
from lockstep.workers.launch import ENVIRONMENT, Interrupted, launch


def job(folder: Path, text: str, count: int, name: str, **more: Any) -> Job:
    """A job over a fleet text and ``count`` items, in a run folder of its own."""
    return Job(
        fleet=str(fleets.fleet(folder, text)),
        base=str(folder),
        input=str(fleets.items(folder, count)),
        run_dir=str(folder / name),
        durability="memory",
        **more,
    )


@contextmanager
def hash_seed(seed: int) -> Iterator[None]:
    """PYTHONHASHSEED of what is started meanwhile."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def interrupting() -> Callable[[str, Any], None]:
    """Listener that presses Ctrl-C once, when the run has got going."""
    interrupted: list[int] = []

    def listen(what: str, value: Any) -> None:
        if what == "progress" and value["turns"] > 8 and not interrupted:
            interrupted.append(value["turns"])
            raise KeyboardInterrupt

    return listen


def test_twenty_perturbed_runs_give_one_digest(tmp_path: Path) -> None:
    undisturbed = launch(job(tmp_path, fleets.CHAIN, 9, "plain"))
    assert undisturbed["state"] == "finished" and undisturbed["items_out"] == 9
    digests = {undisturbed["digest"]}
    for number in range(1, 20):
        perturbed = job(tmp_path, fleets.CHAIN, 9, f"run{number}", perturb=number)
        with hash_seed(number):
            match number % 5:
                case 0:
                    with hogs(2):
                        summary = launch(perturbed)
                case 1:
                    with one_core():
                        summary = launch(perturbed)
                case 2:
                    with Disturber(random.Random(number), nice=True) as disturber:
                        summary = launch(perturbed, disturber)
                case 3:
                    with Disturber(random.Random(number), stop=True) as disturber:
                        summary = launch(perturbed, disturber)
                case _:
                    with one_core(), hogs(1), Disturber(random.Random(number), nice=True) as nice:
                        summary = launch(perturbed, nice)
        assert summary["state"] == "finished", summary["reason"]
        digests.add(summary["digest"])
    assert len(digests) == 1


def test_two_models_share_one_step_counter_and_answer_as_they_do_alone(tmp_path: Path) -> None:
    def outputs(text: str, name: str) -> dict[str, list[Any]]:
        done = run(fleets.fleet(tmp_path, text), fleets.items(tmp_path, 4), run_dir=tmp_path / name)
        assert done.exit_code == 0 and verify(done.folder).equal
        said: dict[str, list[Any]] = {}
        for line in done.output:
            said.setdefault(line["agent"], []).append(line["payload"])
        return said

    both = outputs(fleets.TWO_MODELS, "both")
    alone = outputs(fleets.TWO_MODELS.split("[models.qwen]")[0] + fleets.LLAMA_ASKER, "alone")
    assert both["llama"] == alone["llama"]
    assert both["llama"] != both["qwen"]


def test_a_changed_seed_question_or_module_changes_the_digest(tmp_path: Path) -> None:
    base = launch(job(tmp_path, fleets.CHAIN, 3, "base"))
    seed = launch(job(tmp_path, fleets.CHAIN, 3, "seed", seed=6))
    more = launch(job(tmp_path, fleets.CHAIN, 4, "more"))
    other = fleets.CHAIN.replace("GUESTS/echo.wasm", "GUESTS/echo_reactor.wasm")
    module = launch(job(tmp_path, other, 3, "module"))
    digests = [s["digest"] for s in (base, seed, more, module)]
    assert len(set(digests)) == 4
    assert base["digest_text"] != seed["digest_text"]
    assert base["digest_text"] == module["digest_text"]  # It says the same, by other code.


def test_a_conversation_of_three_goes_round_and_verifies(tmp_path: Path) -> None:
    fleet, input = fleets.fleet(tmp_path, fleets.CONVERSATION), fleets.items(tmp_path, 4)
    done = run(fleet, input, run_dir=tmp_path / "run")
    assert done.exit_code == 0
    assert [line["agent"] for line in done.output] == ["cat"] * 4
    assert done.summary["requests"] == 4 * 3 * 2
    checked = verify(tmp_path / "run")
    assert checked.equal and checked.whole
    assert checked.recorded == done.digest == checked.again["digest"]


def test_a_module_exchanged_in_the_run_folder_does_not_verify(tmp_path: Path) -> None:
    fleet, input = fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 2)
    run(fleet, input, run_dir=tmp_path / "run")
    assert verify(tmp_path / "run").equal
    shutil.copy(fleets.GUESTS / "burner.wasm", tmp_path / "run/modules/echo.wasm")
    with pytest.raises(Diverged, match=r"groups\[0\]\.module"):
        verify(tmp_path / "run")


def test_a_model_that_changed_since_is_refused_with_both_hashes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(fleets.MODEL, model)
    fleet = fleets.fleet(tmp_path, fleets.CONVERSATION.replace("MODEL", str(model)))
    run(fleet, fleets.items(tmp_path, 1), run_dir=tmp_path / "run")
    with open(model / "tokenizer.json", "a") as file:
        file.write("\n")
    with pytest.raises(UsageError, match=r"tokenizer\.json: [0-9a-f.]+ -> [0-9a-f.]+"):
        verify(tmp_path / "run")


def test_a_damaged_history_is_refused_and_a_changed_one_is_named(tmp_path: Path) -> None:
    run(fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 2), run_dir=tmp_path / "run")
    (journal,) = (tmp_path / "run/journal").iterdir()
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    with pytest.raises(Exception, match="damage, not a torn write"):
        verify(tmp_path / "run")


def test_an_agent_that_traps_fails_its_item_and_the_others_go_on(tmp_path: Path) -> None:
    text = """
    [schedule]
    policy = "dag"
    items_in_flight_max = 1
    [agents.trapper]
    module = "GUESTS/trapper.wasm"
    config = { trap_item = 2 }
    [agents.echo]
    module = "GUESTS/echo.wasm"
    """
    done = run(fleets.fleet(tmp_path, text), fleets.items(tmp_path, 3), run_dir=tmp_path / "run")
    assert done.exit_code == 3
    assert done.summary["agents_failed"] == ["trapper"]
    first, *_, second, third = done.output
    assert first["id"] == 0 and "trapper" in second["error"] and "trapper" in third["error"]
    # The log of the turn that trapped was still in the guest's buffer.
    assert (tmp_path / "run/logs/trapper.log").read_text().count("got an item") == 1
    assert verify(tmp_path / "run").equal


def test_an_endless_agent_runs_out_of_fuel_at_the_same_place(tmp_path: Path) -> None:
    text = """
    [schedule]
    policy = "dag"
    [agents.looper]
    module = "GUESTS/looper.wasm"
    turn_fuel_max = 3_000_000
    [agents.echo]
    module = "GUESTS/echo.wasm"
    """
    done = run(fleets.fleet(tmp_path, text), fleets.items(tmp_path, 2), run_dir=tmp_path / "run")
    assert done.exit_code == 3
    assert done.summary["failures"][0].startswith("agent looper: out of fuel")
    assert verify(tmp_path / "run").equal


def test_a_process_that_may_not_be_started_again_stops_the_run_named_with_a_whole_journal(
    tmp_path: Path,
) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 500")
    text += "[recovery]\nrestarts_max = 0\n"
    state: dict[str, Any] = {}

    def listen(what: str, value: Any) -> None:
        state[what] = value
        if what != "progress" or "killed" in state or value["turns"] < 30:
            return
        pid = fleets.board_of(state["run"]).engine.pid
        kill(pid)
        state["killed"] = pid

    summary = launch(job(tmp_path, text, 4, "run"), listen)
    assert state["killed"]
    assert (summary["state"], summary["exit_code"]) == ("stopped", 3)
    assert "the inference process" in summary["reason"] and "SIGKILL" in summary["reason"]
    assert not ended(list(read_journal(tmp_path / "run").bodies(journal_format.HISTORY)))


def test_what_was_changed_in_a_closed_folder_is_found(tmp_path: Path) -> None:
    def again(name: str, change: Callable[[Path], object]) -> Verification:
        copy = tmp_path / name
        shutil.copytree(tmp_path / "run", copy)
        change(copy)
        return verify(copy)

    run(fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 3), run_dir=tmp_path / "run")
    assert again("same", lambda _: None).equal
    frames = read_journal(tmp_path / "run").frames
    journal, output = "journal/00000000.journal", "output.jsonl"
    with pytest.raises(Diverged, match="frames are missing at its end"):
        again("cut", lambda run: os.truncate(run / journal, frames[-1].offset))
    with pytest.raises(Diverged, match="is not the file that was run"):
        again("seed", lambda run: (run / "fleet.toml").write_text("[fleet]\nseed = 9\n"))
    with pytest.raises(Diverged, match="input: "):
        again("input", lambda run: (run / "input.jsonl").write_text('{"q": 0}\n'))
    forged = again("forged", lambda run: (run / output).write_text("forged\n"))
    assert not forged.equal and forged.difference is not None
    assert forged.difference.tag == "line 1 of output.jsonl"

    def tear(folder: Path) -> None:
        with open(folder / journal, "ab") as file:
            file.write(b"torn")

    torn = again("torn", tear)
    assert torn.equal and "4 bytes of a torn frame" in torn.notes[-1]

    def empty(folder: Path) -> None:
        os.truncate(folder / journal, frames[2].offset)
        (folder / "summary.json").unlink()

    with pytest.raises(UsageError, match="nothing to verify"):
        again("empty", empty)


def test_a_refusal_that_repeats_what_the_guest_wrote_still_fits_its_record(
    tmp_path: Path,
) -> None:
    # The name is escaped in the refusal, so it is several times as long there.
    item = tmp_path / "input.jsonl"
    item.write_text(json.dumps({"text": "x" * 400}) + "\n")
    text = fleets.CONVERSATION.replace("seed = 11", "seed = 11\nrecord_bytes_max = 1024").replace(
        "tokens_max = 384", "tokens_max = 16"
    )
    done = run(fleets.fleet(tmp_path, text), item, run_dir=tmp_path / "run")
    assert done.exit_code == 0 and "16" in done.output[0]["payload"]


def test_output_with_line_separators_inside_is_read_line_by_line(tmp_path: Path) -> None:
    item = tmp_path / "input.jsonl"
    item.write_text('{"t": "a\u2028b\u0085c"}\n', encoding="utf-8")
    done = run(fleets.fleet(tmp_path, fleets.ECHO), item, run_dir=tmp_path / "run")
    assert done.output[0]["payload"] == {"t": "a\u2028b\u0085c"}


def test_an_output_path_that_is_no_file_is_refused_and_a_link_is_followed(tmp_path: Path) -> None:
    fleet, input = fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 1)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="no regular file; nothing was touched"):
        run(fleet, input, output=tmp_path / "fifo", run_dir=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    run(fleet, input, output=tmp_path / "link", run_dir=tmp_path / "run")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == (tmp_path / "run/output.jsonl").read_bytes()


def test_the_output_never_replaces_what_a_run_is_made_from(tmp_path: Path) -> None:
    fleet, input = fleets.fleet(tmp_path, fleets.ECHO), fleets.items(tmp_path, 1)
    before = fleet.read_bytes(), input.read_bytes()
    for target in (fleet, input):
        with pytest.raises(UsageError, match="would replace what the run is made from"):
            run(fleet, input, output=target, run_dir=tmp_path / "refused")
    assert (fleet.read_bytes(), input.read_bytes()) == before
    run(fleet, input, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match="lies in the folder of a run"):
        run(fleet, input, output=tmp_path / "run/output.jsonl", run_dir=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_requests_that_failed_are_counted_and_the_first_reason_is_told(tmp_path: Path) -> None:
    text = fleets.TWO_MODELS.replace("tokens_max = 64", "tokens_max = 8")
    done = run(fleets.fleet(tmp_path, text), fleets.items(tmp_path, 2), run_dir=tmp_path / "run")
    summary = done.summary
    assert summary["requests_failed"] == summary["requests"] == 4
    assert "the model is set to at most 8" in summary["request_failure"]


def test_an_interrupted_run_is_raised_with_its_summary(tmp_path: Path) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 1_000_000")
    fleet, input = fleets.fleet(tmp_path, text), fleets.items(tmp_path, 2)
    with pytest.raises(Interrupted) as caught:
        run(fleet, input, run_dir=tmp_path / "run", listen=interrupting())
    assert caught.value.summary is not None and caught.value.summary["state"] == "stopped"


@pytest.mark.parametrize("seed", [1.5, True, -1, 2**63])
def test_a_seed_that_is_no_whole_number_in_range_is_refused(tmp_path: Path, seed: Any) -> None:
    with pytest.raises(UsageError, match=r"seed is .*, expected a whole number"):
        run(fleets.fleet(tmp_path, fleets.ECHO), run_dir=tmp_path / "run", seed=seed)


def test_no_input_is_noted_where_somebody_would_take_it(tmp_path: Path) -> None:
    notes: list[str] = []
    fleet = fleets.fleet(tmp_path, fleets.ECHO)
    run(fleet, run_dir=tmp_path / "run", listen=lambda what, v: notes.append(f"{what} {v}"))
    assert any("no input was given" in note for note in notes)


def test_a_signal_while_modules_are_compiled_is_heard(tmp_path: Path) -> None:
    # A body of many loops compiles for minutes; the process is told to stop in the middle of it.
    body = "(loop (br_if 0 (i32.const 0)))" * 60_000
    funcs = "".join(f"(func $f{n} {body})" for n in range(6))
    wat = f'(module (memory (export "memory") 1) {funcs} (func (export "main")))'
    (tmp_path / "slow.wasm").write_bytes(wasmtime.wat2wasm(wat))
    text = '[agents.slow]\nmodule = "slow.wasm"\ninput = "deal"\n'
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lockstep.workers.supervisor"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
    )
    assert process.stdin is not None and process.stdout is not None
    asked = job(tmp_path, text, 1, "run")
    process.stdin.write(asked.to_json().encode() + b"\n")
    process.stdin.flush()
    assert b"started" in process.stdout.readline()
    while not fleets.children_of(process.pid):  # Until the compiling child is there.
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = json.loads(process.stdout.readline())
    assert said == {"error": {"message": "interrupted; there was no run yet", "exit_code": 130}}
    process.communicate()
    assert process.returncode == 130 and not (tmp_path / "run").exists()


def test_an_interrupted_run_verifies_as_far_as_it_came(tmp_path: Path) -> None:
    # Too long to be over before the interrupt, short enough to be run again as a whole.
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 8")
    summary = launch(job(tmp_path, text, 20, "run"), interrupting())
    assert (summary["state"], summary["exit_code"]) == ("stopped", 130)
    checked = verify(tmp_path / "run")
    assert checked.equal and not checked.whole


def test_an_endless_run_that_was_interrupted_verifies_and_ends(tmp_path: Path) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 1_000_000")
    launch(job(tmp_path, text, 2, "run"), interrupting())
    checked = verify(tmp_path / "run")
    assert checked.equal and not checked.whole


def test_a_second_execution_that_is_interrupted_is_no_divergence(tmp_path: Path) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 8")
    launch(job(tmp_path, text, 20, "run"))

    def listen(what: str, value: Any) -> None:
        if what == "run":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the second execution stopped: interrupted"):
        verify(tmp_path / "run", listen=listen)


def test_a_run_folder_may_have_any_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff \xc3\xa9")
    summary = launch(job(tmp_path, fleets.ECHO, 1, name))
    assert summary["state"] == "finished" and (tmp_path / name / "output.jsonl").exists()


def test_a_killed_supervisor_takes_everybody_along_and_its_segment_is_swept(
    tmp_path: Path,
) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 500")
    seen: dict[str, Any] = {}

    def listen(what: str, value: Any) -> None:
        seen[what] = value
        if what == "progress" and "pids" not in seen and value["turns"] > 10:
            supervisor = fleets.supervisor_of(tmp_path / "run")
            seen["pids"] = [supervisor, *fleets.children_of(supervisor)]
            kill(supervisor)

    with pytest.raises(Exception, match="SIGKILL"):
        launch(job(tmp_path, text, 4, "run"), listen)
    assert len(seen["pids"]) == 5
    while not all(fleets.gone(pid) for pid in seen["pids"]):
        pass  # The parent-death signal is on its way; the test's own time-out ends a failure.
    again = launch(job(tmp_path, fleets.ECHO, 1, "again"))
    assert again["state"] == "finished"
    assert fleets.segments_of(seen["pids"][0]) == []


def test_a_run_leaves_no_process_and_no_segment(tmp_path: Path) -> None:
    launch(job(tmp_path, fleets.CHAIN, 2, "run"))
    supervisor = fleets.supervisor_of(tmp_path / "run")
    assert processes_of(supervisor) == [] == fleets.segments_of(supervisor)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["fleet.toml", "input.jsonl", "journal", "logs", "manifest.json", "modules",
                     "output.jsonl", "run.lock", "summary.json"]  # fmt: skip


def test_an_agent_process_maps_and_opens_its_own_only(tmp_path: Path) -> None:
    text = fleets.CONVERSATION.replace("rounds_max = 2", "rounds_max = 300")
    seen: dict[str, Any] = {}

    def listen(what: str, value: Any) -> None:
        seen[what] = value
        if what != "progress" or "maps" in seen or value["turns"] < 10:
            return
        pids = [agent.pid for agent in fleets.board_of(seen["run"]).agents]
        seen["maps"] = [Path(f"/proc/{p}/maps").read_text().splitlines() for p in pids]
        seen["open"] = [
            sorted(str(fd.readlink()) for fd in Path(f"/proc/{p}/fd").iterdir()) for p in pids
        ]
        raise KeyboardInterrupt  # Enough seen.

    summary = launch(job(tmp_path, text, 2, "run"), listen)
    assert (summary["reason"], summary["exit_code"]) == ("interrupted", 130)
    ranges = []
    for lines in seen["maps"]:
        ours = [line.split()[0] for line in lines if "lockstep" in line and "rw-s" in line]
        assert len(ours) == 1, ours
        ranges += ours
    assert len(set(ranges)) == len(ranges)
    for files in seen["open"]:
        # Its own bell, and the writing end of the supervisor's: nobody's ring can be taken away.
        assert sum("eventfd" in name for name in files) == 1
        assert sum("pipe" in name for name in files) == 1
        assert not any("journal" in name or "output" in name for name in files)


def test_a_run_folder_in_use_is_refused_and_untouched(tmp_path: Path) -> None:
    launch(job(tmp_path, fleets.ECHO, 1, "run"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    with pytest.raises(UsageError, match="holds a run already; nothing was touched"):
        launch(job(tmp_path, fleets.ECHO, 1, "run"))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_an_agent_in_its_first_turn_is_shown_as_running(tmp_path: Path) -> None:
    # It loops before its first call, so turn 0 is all it ever has.
    wat = '(module (memory (export "memory") 1) (func (export "main") (loop (br 0))))'
    (tmp_path / "spin.wasm").write_bytes(wasmtime.wat2wasm(wat))
    text = '[agents.spin]\nmodule = "spin.wasm"\nturn_fuel_max = 1_000_000_000_000_000\n'
    asked = Job(
        fleet=str(fleets.fleet(tmp_path, text)), base=str(tmp_path), run_dir=str(tmp_path / "run")
    )
    states: list[int] = []

    def listen(what: str, _value: Any) -> None:
        if what == "run":
            # The board follows within its period; the test's own time-out ends a failure.
            while not states or states[-1] != view.RUNNING:
                states.append(fleets.board_of(tmp_path / "run").agents[0].state)
            raise KeyboardInterrupt

    assert launch(asked, listen)["exit_code"] == 130
    assert states[-1] == view.RUNNING
