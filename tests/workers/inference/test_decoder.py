"""The decoder against expected tokens, and its bits against each other."""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.engine.plan import Chunk, Decode, ModelPlan
from lockstep.workers.inference import decoder as decoder_module
from lockstep.workers.inference import slab_file
from lockstep.workers.inference.greedy import generate
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.sampler import finite

BAD_TOKEN = 400  # Its embedding becomes NaN in the damaged copy.


def cases(path: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    found = json.loads((path / "expected.json").read_text())["cases"]
    return [(tuple(case["prompt_ids"]), tuple(case["greedy_ids"])) for case in found]


def prefill(decoder: Any, slot: int, tokens: tuple[int, ...], sizes: list[int]) -> Any:
    """Logits of the last position, computed in chunks of these sizes."""
    start = 0
    for size in sizes:
        last = start + size == len(tokens)
        chunk = Chunk(9, slot, start, tokens[start : start + size], last)
        start += size
        out = decoder.run(ModelPlan(0, chunks=(chunk,), lengths=()))
    assert start == len(tokens)
    return out[0][1]


def step(
    decoder: Any, rows: dict[int, tuple[int, int]], lengths: tuple[int, ...]
) -> dict[int, Any]:
    """Decode {slot: (past, token)} once; logits by slot, copied."""
    decodes = tuple(Decode(slot, slot, past, token) for slot, (past, token) in sorted(rows.items()))
    out = decoder.run(ModelPlan(0, decodes=decodes, lengths=lengths))
    return {slot: logits.copy() for slot, logits in out}


class Traffic:
    """Rows that join and leave by a seed, prefilled in random legal chunks; one case each."""

    def __init__(self, decoder: Any, jobs: list[Any], seed: int) -> None:
        self.decoder, self.random = decoder, random.Random(seed)
        self.waiting = list(enumerate(jobs))
        self.random.shuffle(self.waiting)
        self.rows: dict[int, list[Any]] = {}  # slot: [job, prompt, goal, done, tokens]
        self.kept: dict[int, int] = {}  # Slots that are idle but hold a conversation.
        self.answers: dict[int, tuple[int, ...]] = {}

    def chunk_size(self, left: int, done: int) -> int:
        """Any size that rule 1 allows: no later chunk of 1 token, none that would leave 1."""
        sizes = range(2 if done else 1, left + 1)
        return self.random.choice([size for size in sizes if left - size != 1])

    def admit(self) -> None:
        free = [slot for slot in range(self.decoder.rows_max) if slot not in self.rows]
        while free and self.waiting and self.random.random() < 0.5:
            slot = free.pop(self.random.randrange(len(free)))
            self.kept.pop(slot, None)
            job, (prompt, goal) = self.waiting.pop()
            self.rows[slot] = [job, prompt, goal, 0, []]

    def plan(self) -> ModelPlan:
        chunks, decodes = [], []
        lengths = [self.kept.get(slot, 0) for slot in range(self.decoder.rows_max)]
        for slot, (job, prompt, _goal, done, tokens) in sorted(self.rows.items()):
            lengths[slot] = done + max(0, len(tokens) - 1)
            if tokens:
                decodes.append(Decode(job, slot, lengths[slot], tokens[-1]))
            elif self.random.random() < 0.7:
                size = self.chunk_size(len(prompt) - done, done)
                part = prompt[done : done + size]
                last = done + size == len(prompt)
                chunks.append(Chunk(job, slot, done, part, last))
                self.rows[slot][3] = lengths[slot] = done + size
        self.random.shuffle(chunks)
        decodes = [row for row in decodes if self.random.random() < 0.8]
        return ModelPlan(0, chunks=tuple(chunks), decodes=tuple(decodes), lengths=tuple(lengths))

    def run(self) -> dict[int, tuple[int, ...]]:
        while self.waiting or self.rows:
            self.admit()
            for slot, logits in self.decoder.run(self.plan()):
                job, prompt, goal, _, tokens = self.rows[slot]
                tokens.append(int(np.argmax(logits)))
                if len(tokens) == len(goal):
                    self.answers[job] = tuple(tokens)
                    self.kept[slot] = len(prompt) + len(tokens) - 1
                    del self.rows[slot]
        return self.answers


def test_greedy_tokens_alone_are_as_expected(any_model: Path, decoder: Any) -> None:
    made = decoder(any_model, rows=3)
    for prompt, greedy in cases(any_model):
        assert generate(made, [prompt], len(greedy), slot=1)[0].tokens == greedy


@pytest.mark.parametrize("seed", range(6))
def test_greedy_tokens_are_as_expected_while_rows_join_and_leave_around_them(
    any_model: Path, decoder: Any, seed: int
) -> None:
    jobs = cases(any_model) * 3
    answers = Traffic(decoder(any_model, rows=5), jobs, seed).run()
    assert answers == {job: greedy for job, (_, greedy) in enumerate(jobs)}


@pytest.mark.parametrize("sizes", [[17, 23], [2, 38], [38, 2], [10, 10, 10, 10], [1, 2, 37]])
def test_prefill_in_chunks_is_bit_equal_to_one_pass(
    any_model: Path, decoder: Any, sizes: list[int]
) -> None:
    prompt, _ = cases(any_model)[3]
    made = decoder(any_model)
    whole = prefill(made, 0, prompt, [40])
    kept = made.slab.array[:, :, 0, :, :40].copy()
    chunked = prefill(made, 2, prompt, sizes)
    assert chunked.tobytes() == whole.tobytes()
    assert made.slab.array[:, :, 2, :, :40].tobytes() == kept.tobytes()


def test_idle_row_between_active_ones_keeps_its_kv_and_goes_on_bit_equal(
    any_model: Path, decoder: Any
) -> None:
    prompts = [prompt for prompt, _ in cases(any_model)]
    made = decoder(any_model, rows=3)
    for slot in range(3):
        prefill(made, slot, prompts[slot + 1], [len(prompts[slot + 1])])
    lengths = tuple(len(prompts[slot + 1]) for slot in range(3))
    undisturbed = step(made, {1: (lengths[1], 7)}, lengths)[1]
    before = made.slab.array[:, :, 1, :, : lengths[1]].copy()
    grown = list(lengths)
    for token in range(20, 30):
        step(made, {0: (grown[0], token), 2: (grown[2], token)}, tuple(grown))
        grown[0] += 1
        grown[2] += 1
    assert made.slab.array[:, :, 1, :, : lengths[1]].tobytes() == before.tobytes()
    assert step(made, {1: (lengths[1], 7)}, tuple(grown))[1].tobytes() == undisturbed.tobytes()


def test_full_idle_row_is_stepped_around_and_loses_nothing(fp32: Path, decoder: Any) -> None:
    made = decoder(fp32, rows=5, tokens=24)
    tokens = tuple(range(30, 54))
    for slot in range(5):
        prefill(made, slot, tokens[: 24 if slot == 2 else 10], [24 if slot == 2 else 10])
    lengths = (10, 10, 24, 10, 10)
    alone = {slot: step(made, {slot: (10, 99 + slot)}, lengths)[slot] for slot in (0, 1, 4)}
    before = made.slab.array[:, :, 2].copy()
    together = step(made, {0: (10, 99), 1: (10, 100), 4: (10, 103)}, lengths)
    assert made.slab.array[:, :, 2].tobytes() == before.tobytes()
    assert {slot: row.tobytes() for slot, row in together.items()} == {
        slot: row.tobytes() for slot, row in alone.items()
    }


def test_stale_nan_in_a_reused_slot_does_not_leak(any_model: Path, decoder: Any) -> None:
    prompt, greedy = cases(any_model)[2]
    made = decoder(any_model)
    clean = generate(made, [prompt], len(greedy), slot=1)[0]
    made.slab.array[:] = np.nan
    assert generate(made, [prompt], len(greedy), slot=1)[0].same(clean)


def test_row_with_nan_is_seen_and_the_others_are_bit_equal(copy: Path, decoder: Any) -> None:
    prompts = [(3, 4, 5), (6, BAD_TOKEN, 7), (8, 9, 10)]
    good = generate(decoder(copy), [prompts[0], prompts[2]], 6)
    weights = copy / "model.onnx.data"
    data = bytearray(weights.read_bytes())
    at = BAD_TOKEN * 64 * 4  # The embedding is the first tensor of the file.
    data[at : at + 256] = np.full(64, np.nan, np.float32).tobytes()
    weights.write_bytes(data)
    rows = generate(decoder(copy), prompts, 6)
    assert [finite(row.logits) for row in rows] == [True, False, True]
    assert rows[0].same(good[0])
    assert rows[2].same(good[1])


def test_bits_are_equal_with_one_and_two_threads(any_model: Path, decoder: Any) -> None:
    prompts = [prompt for prompt, _ in cases(any_model)]
    one = generate(decoder(any_model, threads=1), prompts, 8)
    two = generate(decoder(any_model, threads=2), prompts, 8)
    assert all(a.same(b) for a, b in zip(one, two, strict=True))


def test_a_new_decoder_goes_on_in_shared_memory_with_the_same_bits(
    fp32: Path, decoder: Any
) -> None:
    folder = ModelFolder.open(fp32)
    size = KvSlab.bytes_needed(folder.facts, 3, 64)
    folder.close()
    memory = memoryview(bytearray(size))
    first = decoder(fp32, rows=3, tokens=64, kv_buffer=memory)
    prefill(first, 1, (3, 4, 5, 6), [4])
    lengths = (0, 4, 0)
    done = step(first, {1: (4, 50)}, lengths)[1]
    second = decoder(fp32, rows=3, tokens=64, kv_buffer=memory)
    # The step was not acknowledged: it is done again, over what is already there.
    assert step(second, {1: (4, 50)}, lengths)[1].tobytes() == done.tobytes()


def test_longer_chunk_than_any_before_leaves_older_bindings_right(fp32: Path, decoder: Any) -> None:
    made = decoder(fp32, rows=2)
    prefill(made, 0, (3, 4, 5), [3])
    before = step(made, {0: (3, 9)}, (3, 0))[0]
    prefill(made, 1, tuple(range(10, 90)), [80])
    assert step(made, {0: (3, 9)}, (3, 80))[0].tobytes() == before.tobytes()


def test_ranges_beyond_the_cache_of_bindings_are_bound_again(
    fp32: Path, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = decoder(fp32, rows=4)
    prompts = [prompt for prompt, _ in cases(fp32)]
    wide = generate(made, prompts, 8)
    monkeypatch.setattr(decoder_module, "BINDINGS_MAX", 1)
    narrow = generate(decoder(fp32, rows=4), prompts, 8)
    assert all(a.same(b) for a, b in zip(wide, narrow, strict=True))


def test_results_are_chunks_in_order_then_decodes_in_slot_order(fp32: Path, decoder: Any) -> None:
    made = decoder(fp32)
    prefill(made, 1, (3, 4), [2])
    chunks = (
        Chunk(31, 3, 0, (5, 6), True),
        Chunk(30, 2, 0, (5, 6), False),
        Chunk(29, 0, 0, (5, 6), True),
    )
    plan = ModelPlan(0, chunks=chunks, decodes=(Decode(50, 1, 2, 8),), lengths=(2, 2, 2, 2))
    out = made.run(plan)
    assert [slot for slot, _ in out] == [3, 0, 1]
    assert {(row.dtype.name, row.shape) for _, row in out} == {("float32", (512,))}
    assert made.run(ModelPlan(0)) == []


@pytest.mark.parametrize(
    "plan",
    [
        ModelPlan(0, decodes=(Decode(1, 0, 0, 512),), lengths=(0,)),
        ModelPlan(0, decodes=(Decode(1, 0, 0, -1),), lengths=(0,)),
        ModelPlan(0, decodes=(Decode(1, 0, 1, 5),), lengths=(0,)),
        ModelPlan(0, decodes=(Decode(1, 0, 8, 5),), lengths=(8,)),
        ModelPlan(0, decodes=(Decode(1, 1, 0, 5), Decode(2, 0, 0, 5)), lengths=(0, 0)),
        ModelPlan(0, decodes=(Decode(1, 0, 0, 5), Decode(2, 0, 0, 5)), lengths=(0, 0)),
        ModelPlan(0, decodes=(Decode(1, 1, 0, 5),), lengths=(0,)),
        ModelPlan(0, decodes=(Decode(1, 0, 0, 5),), lengths=(0, 0, 0)),
        ModelPlan(0, decodes=(Decode(1, 0, 0, 5),), lengths=(0, 9)),
        ModelPlan(0, decodes=(Decode(1, 0, 0, 5),), lengths=(0, -1)),
        ModelPlan(0, chunks=(Chunk(1, 2, 0, (5,), True),)),
        ModelPlan(0, chunks=(Chunk(1, -1, 0, (5,), True),)),
        ModelPlan(0, chunks=(Chunk(1, 0, 0, (), True),)),
        ModelPlan(0, chunks=(Chunk(1, 0, 7, (5, 6), True),)),
        ModelPlan(0, chunks=(Chunk(1, 0, -1, (5, 6), True),)),
        ModelPlan(0, chunks=(Chunk(1, 0, 0, (5, 512), True),)),
        ModelPlan(0, chunks=(Chunk(1, 0, 3, (5,), True),)),
    ],
)
def test_plan_that_no_planner_may_make_is_refused_before_anything_runs(
    fp32: Path, decoder: Any, plan: ModelPlan
) -> None:
    made = decoder(fp32, rows=2, tokens=8)
    with pytest.raises(LockstepBug, match="plan: "):
        made.run(plan)
    assert not made.slab.array.any()


def test_slots_that_the_machine_has_no_memory_for_are_refused_with_the_arithmetic(
    fp32: Path, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slab_file, "free_memory", lambda: (1_000_000, "here"))
    file = slab_file.create("large")
    wanted = r"1970176 bytes of memory, \(4 \+ 36\) rows of 96 tokens, there are 1000000 bytes \(h"
    with pytest.raises(UsageError, match=wanted):
        decoder(fp32, rows_kept=36, kv_file=file)
    decoder(fp32, rows_kept=12, kv_file=file)
    os.close(file)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"rows": 0}, r"rows_max = 0, expected 1 to \d+"),
        ({"tokens": 513}, "tokens_max = 513, expected 4 to 512 for this model"),
        ({"tokens": 3}, "tokens_max = 3, expected 4 to 512"),
        ({"threads": 0}, r"intra_op_threads = 0, expected 1 to \d+"),
    ],
    ids=str,
)
def test_sizes_out_of_range_are_refused(
    fp32: Path, decoder: Any, sizes: dict[str, int], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        decoder(fp32, **sizes)
