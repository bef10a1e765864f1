"""Scenes: small fleets for killing, each with an undisturbed run to compare with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import fleets
from killing import Census, Plan, Stage
from lives import Lives, carry, live

from lockstep.workers.job import Job

VOTE = fleets.TESTS.parent / "examples" / "vote"

# Silent for a second is overdue: what these fleets do takes far less.
RECOVERY = """
[recovery]
overdue_s = 1
"""

# Messages (some of them wait for room), timers, joins, turns of several steps' work, no model.
PACED = """
[fleet]
name = "paced"
seed = 9
[schedule]
policy = "dag"
items_in_flight_max = 5
fuel_per_step = 20_000
[agents.left]
module = "GUESTS/pacer.wasm"
input = "broadcast"
config = { tell = "right", loops = 4000 }
mailbox_max = 2
[agents.right]
module = "GUESTS/pacer.wasm"
replicas = 2
input = "deal"
config = { tell = "left", wait = 5 }
[agents.join]
module = "GUESTS/pacer.wasm"
after = ["left", "right"]
config = { tell = "right.1" }
"""

# Prompts in chunks, more requests than slots, prefixes that are used again.
STORY = """
[fleet]
name = "story"
seed = 11
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.default]
path = "MODEL"
providers = ["cpu"]
rows_max = 3
tokens_max = 128
prefill_tokens_per_step = 12
[agents.ann]
module = "GUESTS/teller.wasm"
replicas = 2
[agents.ben]
module = "GUESTS/teller.wasm"
config = { tokens = 14, story = 60 }
input = "deal"
[agents.cat]
module = "GUESTS/pacer.wasm"
after = ["ann", "ben"]
config = { tell = "cat" }
"""

# More stories than rows, begun alike: rows rest and come back, are given up, prefixes are copied.
CROWD = """
[fleet]
name = "crowd"
seed = 12
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.default]
path = "MODEL"
providers = ["cpu"]
rows_max = 2
rows_kept = 3
tokens_max = 128
prefill_tokens_per_step = 12
[agents.ann]
module = "GUESTS/teller.wasm"
input = "broadcast"
replicas = 2
[agents.ben]
module = "GUESTS/teller.wasm"
config = { tokens = 14, story = 80 }
replicas = 4
input = "deal"
"""

VOTES = """
[fleet]
name = "votes"
seed = 7
[schedule]
policy = "dag"
items_in_flight_max = 3
[models.default]
path = "VOTE/model"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 5
tokens_max = 32
[agents.solver]
module = "VOTE/solver.wasm"
replicas = 3
input = "broadcast"
config = { temperature = 1.0 }
[agents.greedy]
module = "VOTE/solver.wasm"
config = { temperature = 0 }
[agents.judge]
module = "VOTE/judge.wasm"
after = ["solver", "greedy"]
"""


# A tool says which process it is and works a little; each item is one call.
TOOLED = """
[fleet]
name = "tooled"
seed = 4
[tools.upper]
command = ["/bin/sh", "-c", "echo $$ >> pids; tr a-z A-Z"]
parallel_max = 2
[agents.caller]
module = "GUESTS/caller.wasm"
input = "broadcast"
tools = ["upper"]
[agents.echo]
module = "GUESTS/echo.wasm"
input = "broadcast"
"""


@dataclass(frozen=True)
class Scene:
    """A fleet and its input."""

    fleet: str
    items: tuple[str, ...]

    def job(self, folder: Path, *, durability: str = "async", recovery: str = RECOVERY) -> Job:
        """A run of it in ``folder / "run"``; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "input.jsonl"
        path.write_text("\n".join(self.items) + "\n")
        text = (self.fleet + recovery).replace("VOTE", str(VOTE))
        return Job(
            fleet=str(fleets.fleet(folder, text)),
            base=str(folder),
            input=str(path),
            run_dir=str(folder / "run"),
            durability=durability,
        )


def _said(count: int, text: str = "say {}") -> tuple[str, ...]:
    return tuple(json.dumps({"id": n, "text": text.format(n)}) for n in range(count))


def _asked(count: int) -> tuple[str, ...]:
    return tuple((VOTE / "questions.jsonl").read_text().splitlines()[:count])


SCENES = {
    "paced": Scene(PACED, _said(12)),
    "story": Scene(STORY, _said(6)),
    "crowd": Scene(CROWD, _said(12, "{0}{0}{0} once upon a time in {0} houses")),
    "votes": Scene(VOTES, _asked(6)),
    "tooled": Scene(TOOLED, _said(8)),
}


class Undisturbed:
    """Scenes that nobody disturbs, each run once, and what was passed in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tries = 0
        self._done: dict[tuple[str, str], tuple[Lives, Census]] = {}

    def __call__(self, scene: str, durability: str = "async") -> tuple[Lives, Census]:
        """The finished run and its census."""
        key = scene, durability
        if key not in self._done:
            self._tries += 1
            folder = self._folder / f"{scene}-{self._tries}"
            job = SCENES[scene].job(folder, durability=durability)
            plan = Plan(str(folder), census=str(folder / "census"))
            done = live(job, plan)
            assert done.finished, (done.error, done.summary)
            self._done[key] = done, Census(plan.census)
        return self._done[key]


def killed(scene: str, folder: Path, *stages: Stage, durability: str = "async") -> Lives:
    """A scene to which the stages happen, all of them, carried to its end."""
    plan = Plan(str(folder), stages)
    done = carry(SCENES[scene].job(folder, durability=durability), plan)
    if plan.done < len(stages) and done.finished:
        # Not passed so often this time (waits, drains and writes depend on the machine).
        folder = folder / "first passing"
        folder.mkdir()
        stages = tuple(replace(stage, nth=1) for stage in stages)
        plan = Plan(str(folder), stages)
        done = carry(SCENES[scene].job(folder, durability=durability), plan)
    assert plan.done == len(stages), (plan.done, done.error, done.summary)
    return done
