"""Mishaps of typing: one line that says what was meant, exit code 2, and nothing is changed."""

from typing import Any

import pytest

RUN = "runs/small-1"
TYPED: dict[str, tuple[tuple[str, ...], str]] = {
    "a fleet file without a verb": (
        ("fleet.toml",),
        "unknown verb 'fleet.toml'; did you mean lockstep run fleet.toml?",
    ),
    "a run without a verb": ((RUN,), f"did you mean lockstep resume {RUN}, or verify"),
    "a verb misspelt": (("vreify", RUN), "unknown verb 'vreify'; did you mean 'verify'?"),
    "a verb of a verb misspelt": (("journal", "exprot", RUN), "did you mean 'export'?"),
    "help for a verb misspelt": (("help", "reusme"), "did you mean 'resume'?"),
    "help for what has no verbs": (("help", "run", "fast"), "lockstep run has no verbs"),
    "an option before the verb": (
        ("--seed", "7", "run", "fleet.toml"),
        "options follow the verb (lockstep --help)",
    ),
    "an option misspelt": (("run", "fleet.toml", "--sed", "7"), "--seed"),
    "a choice misspelt": (("run", "fleet.toml", "--order", "strcit"), "'strict', 'arrival'"),
    "a shell misspelt": (("completion", "basch"), "'bash', 'zsh', 'fish'"),
    "no number": (("run", "fleet.toml", "--seed", "seven"), "'seven' is not a valid integer"),
    "nothing behind an option": (("run", "fleet.toml", "--input"), "requires an argument"),
    "no fleet": (("run", "--input", "items.jsonl"), "Missing argument 'FLEET'"),
    "a fleet misspelt": (("run", "fleet.tml"), "no such file; did you mean fleet.toml?"),
    "a run for a fleet": (("run", RUN), f"a run, not a fleet file; lockstep resume {RUN}"),
    "a fleet for a run": (
        ("verify", "fleet.toml"),
        "not a folder; lockstep run fleet.toml makes a run",
    ),
    "a run misspelt": (("verify", "runs/smal-1"), f"no such folder; did you mean {RUN}?"),
    "a run without its folder": (("resume", "small-1"), f"did you mean {RUN}?"),
    "the folder of all runs": (("replay", "runs"), f"no run in this folder, but below it: {RUN}"),
    "the folder of that folder": (("diff", RUN, "."), f"but below it: {RUN}"),
    "an input misspelt": (("run", "fleet.toml", "--input", "itmes.jsonl"), "itmes.jsonl: "),
    "an input that is none": (
        ("run", "fleet.toml", "--input", "fleet.toml"),
        "fleet.toml:2: not valid JSON",
    ),
    "the output of a run as the output": (
        ("run", "fleet.toml", "--input", "items.jsonl", "--output", f"{RUN}/output.jsonl"),
        "lies in the folder of a run; nothing was touched",
    ),
    "a run folder that is taken": (
        ("run", "fleet.toml", "--run-dir", RUN),
        "holds a run already; nothing was touched",
    ),
    "an agent misspelt": (("replay", RUN, "--agent", "ehco"), "did you mean 'echo'?"),
    "a tag misspelt": (("replay", RUN, "--until", "12,3"), "expected STEP or STEP.MICROSTEP"),
    "a step behind the end": (("fork", RUN, "--at", "100000"), "there is no step 100000"),
    "a setting misspelt": (("fork", RUN, "--at", "1", "--set", "sead=3"), "did you mean"),
    "a run that is over": (("cancel", RUN), "the run does not go on any more"),
    "a folder for a module": (("agent", "check", "."), "cannot read the module: Is a directory"),
}


@pytest.mark.parametrize("case", TYPED)
def test_what_was_meant_is_said_in_one_line(done: Any, case: str) -> None:
    place, args, expected = done[0], *TYPED[case]
    before = sorted((path, path.stat().st_mtime_ns) for path in place.path.rglob("*"))
    result = place.lockstep(*args)
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("lockstep: error: ") and result.err.count("\n") == 1, result.err
    assert expected in result.err
    assert before == sorted((path, path.stat().st_mtime_ns) for path in place.path.rglob("*"))
