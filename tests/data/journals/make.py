"""Makes the golden journals: run by hand when the journal's format or its logic flags change.

    python tests/data/journals/make.py FOLDER

Journals that are here already are never made again: they must replay for ever, under the rules
that they were written with. FOLDER is a scratch folder; its path ends up in the journals.

``agents``    topics, broadcasts, calls and senders that wait, in several segments; no model
``model``     agents that share the micro model: conversations rest and are given up, beginnings of
              prompts are copied
``requests``  an agent that asks for all that a request may
``diverged``  ``agents``, with one more unit of fuel in one effect of its record
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lockstep.engine.journal import Frame, JournalWriter
from lockstep.engine.journal import format as fmt
from lockstep.engine.record import Kind, decode, encode_record
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS
from lockstep.workers import run
from lockstep.workers.journal_reading import read_journal

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1]
NAME = f"format{JOURNAL_FORMAT}-flags{LOGIC_FLAGS}"

AGENTS = """
[fleet]
name = "agents"
seed = 3
[schedule]
topics = ["news"]
[recovery]
segment_bytes_max = 4096
[agents.editor]
module = "chat.wasm"
input = "broadcast"
config = { publish = "news", broadcast = 1 }
[agents.reader]
module = "chat.wasm"
replicas = 2
topics = ["news"]
mailbox_max = 1
[agents.asker]
module = "chat.wasm"
input = "broadcast"
config = { call = "oracle" }
[agents.oracle]
module = "chat.wasm"
config = { hold = 2 }
"""

MODEL = """
[fleet]
name = "model"
seed = 5
[schedule]
policy = "dag"
items_in_flight_max = 3
fuel_per_step = 20_000
[models.default]
path = "genai-micro-fp32"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 2
rows_kept = 2
tokens_max = 128
prefill_tokens_per_step = 16
[agents.burner]
module = "burner.wasm"
config = { loops = 9000 }
[agents.asker]
module = "asker.wasm"
after = ["burner"]
replicas = 2
input = "deal"
config = { tokens = 6, temperature = 0.9 }
[agents.teller]
module = "teller.wasm"
input = "broadcast"
config = { tokens = 5 }
[agents.echo]
module = "echo.wasm"
after = ["asker"]
"""

REQUESTS = """
[fleet]
name = "requests"
seed = 3
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.default]
path = "genai-micro-fp32"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 3
rows_kept = 2
tokens_max = 96
prefill_tokens_per_step = 16
[agents.poser]
module = "poser.wasm"
"""
ASKED: list[dict[str, object]] = [
    {"prompt": "one two three four five", "max_tokens": 9, "temperature": 1.2, "n": 4,
     "logprobs": 2, "top_p": 0.95},
    {"prompt": "one two three four five", "max_tokens": 20, "temperature": 0.9, "top_k": 40,
     "stop": ["e", "th"], "min_tokens": 3, "n": 2},
    {"prompt": "say it again", "max_tokens": 12, "repetition_penalty": 1.4,
     "frequency_penalty": 0.3, "presence_penalty": 0.2, "logprobs": True, "ignore_eos": True},
    {"prompt": "seeded", "max_tokens": 9, "temperature": 1, "min_p": 0.05, "seed": 8},
    {"prompt": "x", "tools": []},
    {"prompt": "x", "max_tokens": True},
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3},
]  # fmt: skip


def make(scratch: Path, name: str, fleet: str, items: Sequence[object]) -> Path:
    """Run a fleet on some items and put its run folder here."""
    target = HERE / f"{NAME}-{name}"
    folder = scratch / name
    folder.mkdir(parents=True)
    for wasm in (TESTS / "guests").glob("*.wasm"):
        shutil.copy(wasm, folder)
    shutil.copytree(TESTS / "data/genai-micro-fp32", folder / "genai-micro-fp32")
    (folder / "fleet.toml").write_text(fleet.lstrip())
    lines = [json.dumps(item) + "\n" for item in items]
    (folder / "input.jsonl").write_text("".join(lines))
    done = run(folder / "fleet.toml", folder / "input.jsonl", run_dir=target)
    if done.exit_code:
        raise SystemExit(f"{name}: {done.summary['reason'] or done.summary['failures']}")
    (target / "run.lock").unlink()
    summary = json.loads((target / "summary.json").read_bytes())
    summary |= {"run": target.name, "output": f"{target.name}/output.jsonl"}  # Wherever it lies.
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return target


def changed(frame: Frame) -> bytes:
    """A frame's body with one unit of fuel more in its first effect."""
    records = list(decode(frame.body))
    place = next(n for n, record in enumerate(records) if record.kind == Kind.EFFECT)
    records[place] = records[place]._replace(item=records[place].item + 1)
    print(f"an effect at {records[0].id}.{records[0].peer} has one unit of fuel more")
    return b"".join(encode_record(record) for record in records)


def has_effect(frame: Frame) -> bool:
    """Whether a frame's body has an effect."""
    return frame.kind == fmt.HISTORY and any(r.kind == Kind.EFFECT for r in decode(frame.body))


def diverge(folder: Path) -> None:
    """Change one effect of a copy; its checksums, its chain and its closing digest fit."""
    target = HERE / f"{NAME}-diverged"
    shutil.copytree(folder, target)
    journal = read_journal(folder)
    for segment in (target / "journal").iterdir():
        segment.unlink()
    behind = journal.frames[len(journal.frames) // 2 :]
    chosen = next(frame.number for frame in behind if has_effect(frame))
    total = hashlib.sha256()
    with open(target / "journal/00000000.journal", "wb") as file:
        writer = JournalWriter(file, journal.header.run_id)
        for frame in journal.frames:
            body = changed(frame) if frame.number == chosen else frame.body
            if frame.kind in (fmt.IDENTITY, fmt.HISTORY):
                total.update(body)
            writer.append(frame.kind, body)
    summary = json.loads((target / "summary.json").read_bytes())
    summary["digest"] = total.hexdigest()
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def texts(text: str, count: int) -> list[object]:
    """Items with a text each."""
    return [{"id": n, "text": text.format(n)} for n in range(count)]


def main() -> None:
    """As the module says."""
    if any(HERE.glob(f"{NAME}-*")):
        raise SystemExit(f"{NAME}: is here already, and stays as it is")
    scratch = Path(sys.argv[1])
    diverge(make(scratch, "agents", AGENTS, texts("say {}", 3)))
    make(scratch, "model", MODEL, texts("once upon a time there was a {} of three", 4))
    make(scratch, "requests", REQUESTS, ASKED)


if __name__ == "__main__":
    main()
