"""Graphs that grow their keys and values: tokens as expected, bits that no neighbour can change."""

import json
import random
from pathlib import Path
from typing import Any

import fleets
import numpy as np
import pytest
from killing import Plan, Stage, under

from lockstep.engine.errors import LockstepBug, UsageError
from lockstep.engine.plan import Chunk, Decode, ModelPlan
from lockstep.workers import verify
from lockstep.workers.inference.decoder import Decoder
from lockstep.workers.inference.greedy import Row, generate
from lockstep.workers.inference.growing import GrowingDecoder
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.job import Job
from lockstep.workers.launch import launch

STORIES = """
[fleet]
name = "stories"
seed = 11
[schedule]
policy = "dag"
items_in_flight_max = 4
[models.default]
path = "DATA/optimum-micro"
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
"""
CASES = json.loads((fleets.DATA / "optimum-micro" / "expected.json").read_text())["cases"]
PROMPTS = [tuple(case["prompt_ids"]) for case in CASES]
GREEDY = [tuple(case["greedy_ids"]) for case in CASES]
WHOLE = tuple(range(30, 70))


@pytest.fixture
def model() -> Path:
    return fleets.DATA / "optimum-micro"


def prefill(decoder: Any, slot: int, tokens: tuple[int, ...], sizes: list[int]) -> Any:
    """Logits of the last position, computed in chunks of these sizes."""
    start, out = 0, []
    for size in sizes:
        chunk = Chunk(9, slot, start, tokens[start : start + size], start + size == len(tokens))
        out = decoder.run(ModelPlan(0, chunks=(chunk,)))
        start += size
    return out[-1][-1].copy()


def step(decoder: Any, rows: dict[int, int], length: int) -> dict[int, bytes]:
    """Decode {slot: token} once, every slot holding ``length`` tokens; the bits of the logits."""
    decodes = tuple(Decode(slot, slot, length, token) for slot, token in sorted(rows.items()))
    lengths = (length,) * decoder.rows_max
    out = decoder.run(ModelPlan(0, decodes=decodes, lengths=lengths))
    return {row[0]: row[-1].tobytes() for row in out}


def greedy_in_traffic(decoder: Any, seed: int) -> list[list[int]]:
    """Every prompt twice: rows that join and leave by chance, prefilled in chunks of any size."""
    draw = random.Random(seed)
    waiting = [*range(len(PROMPTS))] * 2
    draw.shuffle(waiting)
    rows: dict[int, list[Any]] = {}  # Slot: [case, prompt tokens done, tokens made].
    answers = []
    while waiting or rows:
        for slot in range(decoder.rows_max):
            if waiting and slot not in rows and draw.random() < 0.5:
                rows[slot] = [waiting.pop(), 0, []]
        chunks, decodes, lengths = [], [], [0] * decoder.rows_max
        for slot, row in rows.items():
            case, done, made = row
            lengths[slot] = done + max(0, len(made) - 1)
            if made and draw.random() < 0.8:
                decodes.append(Decode(slot, slot, lengths[slot], made[-1]))
            elif not made:
                left = len(PROMPTS[case]) - done
                least = min(2 if done else 1, left)
                size = draw.choice([n for n in range(least, left + 1) if left - n != 1])
                tokens = PROMPTS[case][done : done + size]
                chunks.append(Chunk(slot, slot, done, tokens, size == left))
                row[1] = lengths[slot] = done + size
        plan = ModelPlan(0, chunks=tuple(chunks), decodes=tuple(sorted(decodes, key=_slot)),
                         lengths=tuple(lengths))  # fmt: skip
        for slot, logits in [(out[0], out[-1]) for out in decoder.run(plan)]:
            rows[slot][2].append(int(np.argmax(logits)))
            if len(rows[slot][2]) == len(GREEDY[rows[slot][0]]):
                answers.append((rows[slot][0], rows.pop(slot)[2]))
    return [made for _, made in sorted(answers)]


def _slot(row: Decode) -> int:
    return row.slot


def same(left: list[Row], right: list[Row]) -> bool:
    return all(a.same(b) for a, b in zip(left, right, strict=True))


def test_tokens_alone_are_as_expected(model: Path, decoder: Any) -> None:
    made = decoder(model, rows=3)
    assert isinstance(made, GrowingDecoder)
    for prompt, greedy in zip(PROMPTS, GREEDY, strict=True):
        assert generate(made, [prompt], len(greedy), slot=1)[0].tokens == greedy


@pytest.mark.parametrize("seed", range(6))
def test_tokens_are_as_expected_while_rows_join_and_leave(
    model: Path, decoder: Any, seed: int
) -> None:
    wanted = [list(greedy) for greedy in GREEDY for _ in range(2)]
    assert greedy_in_traffic(decoder(model, rows=3), seed) == wanted


def test_a_row_alone_has_the_bits_that_it_has_in_company(model: Path, decoder: Any) -> None:
    made = decoder(model)
    together = generate(made, PROMPTS, 12)
    assert same([generate(made, [prompt], 12, slot=2)[0] for prompt in PROMPTS], together)
    two_threads = decoder(model, threads=2)
    assert same(generate(two_threads, PROMPTS, 12), together)


def test_tokens_are_those_of_the_same_model_on_the_fixed_slab(
    model: Path, fp32: Path, decoder: Any
) -> None:
    prompts = [tuple(range(3 + n, 40 + 7 * n)) for n in range(4)]
    grown, fixed = (generate(decoder(path), prompts, 20) for path in (model, fp32))
    assert [row.tokens for row in grown] == [row.tokens for row in fixed]


def test_a_new_process_goes_on_from_the_slab_with_the_same_bits(model: Path, decoder: Any) -> None:
    folder = ModelFolder.open(model)
    memory = memoryview(bytearray(KvSlab.bytes_needed(folder.facts, 3, 64)))
    folder.close()
    first = decoder(model, rows=3, tokens=64, kv_buffer=memory)
    prefill(first, 1, WHOLE, [40])
    step(first, {1: 50}, 40)
    done = step(first, {1: 51}, 41)
    second = decoder(model, rows=3, tokens=64, kv_buffer=memory)
    # The step was not acknowledged: it is done again, over what is already there.
    assert step(second, {1: 51}, 41) == done


def test_a_copied_prefix_goes_on_as_its_source_does(model: Path, decoder: Any) -> None:
    made = decoder(model)
    prefill(made, 0, WHOLE, [40])
    # Slot 2 has held another row of that length.
    prefill(made, 2, tuple(range(100, 139)), [39])
    step(made, {2: 9}, 39)
    made.slab.array[:, :, 2, :, :40] = made.slab.array[:, :, 0, :, :40]
    out = step(made, {0: 50, 2: 50}, 40)
    assert out[0] == out[2]


def test_a_row_that_waited_goes_on_with_the_same_bits(model: Path, decoder: Any) -> None:
    made = decoder(model)
    prefill(made, 0, WHOLE, [40])
    wanted = step(made, {0: 50}, 40)
    prefill(made, 0, WHOLE, [40])
    prefill(made, 1, PROMPTS[2], [17])
    assert step(made, {0: 50}, 40) == wanted


def test_stale_nan_in_a_reused_slot_does_not_leak(model: Path, decoder: Any) -> None:
    made = decoder(model)
    clean = generate(made, [PROMPTS[2]], 8, slot=1)[0]
    made.slab.array[:] = np.nan
    assert generate(made, [PROMPTS[2]], 8, slot=1)[0].same(clean)


def test_a_full_slot_is_filled_to_its_last_place(model: Path, decoder: Any) -> None:
    made = decoder(model, rows=2, tokens=41)
    prefill(made, 0, WHOLE, [40])
    last = step(made, {0: 50}, 40)[0]
    wide = decoder(model, rows=2, tokens=64)
    prefill(wide, 0, WHOLE, [40])
    assert step(wide, {0: 50}, 40)[0] == last
    with pytest.raises(LockstepBug, match="plan: "):
        step(made, {0: 50}, 41)


@pytest.mark.parametrize("sizes", [[17, 23], [2, 38], [38, 2], [10, 10, 10, 10], [1, 2, 37]])
def test_prefill_in_chunks_gives_the_logits_of_one_pass(
    model: Path, decoder: Any, sizes: list[int]
) -> None:
    made = decoder(model)
    whole, chunked = prefill(made, 0, WHOLE, [40]), prefill(made, 2, WHOLE, sizes)
    assert np.abs(whole - chunked).max() < 1e-5
    assert chunked.tobytes() == prefill(made, 1, WHOLE, sizes).tobytes()


def test_the_price_is_told_when_it_is_loaded(model: Path, fp32: Path, decoder: Any) -> None:
    lines = decoder(model).report.lines()
    assert lines and "no GroupQueryAttention" in lines[0] and "costs throughput" in lines[0]
    assert type(decoder(fp32)) is Decoder and decoder(fp32).report.lines() == []


def test_sizes_out_of_range_are_refused(model: Path, decoder: Any) -> None:
    with pytest.raises(UsageError, match="expected 4 to 512"):
        decoder(model, tokens=513)


def test_a_run_killed_anywhere_has_the_digest_of_the_undisturbed_one(tmp_path: Path) -> None:
    digests = []
    for name, point in [
        ("undisturbed", ""),
        ("prefill", "inference: after a chunk of prefill"),
        ("step", "inference: before a step"),
    ]:
        folder = tmp_path / name
        (folder / "marks").mkdir(parents=True)
        made = fleets.fleet(folder, STORIES)
        items = fleets.items(folder, 4)
        job = Job(str(made), str(folder), str(items), run_dir=str(folder / "run"))
        stages = (Stage(point, "inference", 7),) if point else ()
        with under(Plan(str(folder / "marks"), stages)):
            summary = launch(job)
        assert (summary["state"], summary["restarts"]) == ("finished", len(stages))
        digests.append(summary["digest"])
    assert len(set(digests)) == 1
    assert verify(folder / "run").equal
