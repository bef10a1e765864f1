"""Train the small model of the vote example: three-digit addition, right most of the time.

Voting only shows something with a model that is sometimes wrong, and nobody should have to
download one. So this script trains a Llama-shaped model of 0.56 M parameters for a chosen number
of steps: fewer steps, more mistakes. It reads ``123+456=`` character by character and writes the
digits of the sum, lowest first (``975``), because carries run that way, then an end token.

What is asked is never trained on: a table of all pairs marks the problems of questions.jsonl and
their commuted twins (``456+123=``), and a training pair that hits the table is drawn again.

The committed folder ``model/`` came from this script (extra ``train``). The same seed, steps,
torch and CPU type give the same bytes; elsewhere sums round differently and a model of about the
same quality comes out, which is why the folder is committed.

    python train.py                      train, export to model/, measure
    python train.py --evaluate           measure the folder that is there
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # Read by onnxruntime at its import.

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
import torch.nn.functional as functional
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from lockstep.bench import decoder_folder, decoder_shape

Ids = npt.NDArray[np.int64]
Params = dict[str, torch.Tensor]

HERE = Path(__file__).parent
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")  # Ids 0 to 3.
PAD, BOS, EOS, UNK = range(len(SPECIALS))
ALPHABET = "0123456789+="  # Ids 4 to 15, in this order.
DIGIT_0 = len(SPECIALS)
PLUS, EQUALS = DIGIT_0 + 10, DIGIT_0 + 11
SHAPE = decoder_shape.DecoderShape(
    layers=3,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate=352,
    vocab=len(SPECIALS) + len(ALPHABET),
    context_tokens=64,
    rope_base=100.0,  # Texts of 13 tokens: with 10,000 most angles hardly move, learning is slow.
)
TERM_MIN, TERM_END = 100, 1000  # Three-digit terms; the sum has three or four digits.
PROMPT_TOKENS = 8  # abc+def=
ANSWER_TOKENS_MAX = 5  # Four digits and the end.
BATCH_ROWS = 256
LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
SCHEDULE_STEPS = 1200
INITIAL_SPREAD = 0.04
# Without these three the middle digits stay at chance for more than 600 steps.
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
GRADIENT_NORM_MAX = 1.0
# At 320 steps one sample is right 75 % of the time, a vote of five 82 %, greedy 84 %.
STEPS = 320
SEED = 1
TEMPERATURE = 1.0
REPLICAS = 5
SAMPLING_SEEDS = 10
LOGITS_TOLERANCE = 1e-4  # Between torch and the exported graph.


def encode(first: Ids, second: Ids) -> Ids:
    """Write problems with their answers as token ids.

    Args:
        first: int64 (rows,), terms from TERM_MIN to TERM_END - 1.
        second: int64 (rows,), likewise.

    Returns:
        int64 (rows, PROMPT_TOKENS + ANSWER_TOKENS_MAX): ``abc+def=``, the sum's digits lowest
        first, EOS, and PAD where the sum has three digits.
    """
    rows = np.full((len(first), PROMPT_TOKENS + ANSWER_TOKENS_MAX), PAD, dtype=np.int64)
    for column, power in enumerate((100, 10, 1)):
        rows[:, column] = DIGIT_0 + first // power % 10
        rows[:, 4 + column] = DIGIT_0 + second // power % 10
    rows[:, 3], rows[:, 7] = PLUS, EQUALS
    total = first + second
    for column in range(3):
        rows[:, PROMPT_TOKENS + column] = DIGIT_0 + total // 10**column % 10
    long = total >= 1000
    rows[:, PROMPT_TOKENS + 3] = np.where(long, DIGIT_0 + total // 1000, EOS)
    rows[:, PROMPT_TOKENS + 4] = np.where(long, EOS, PAD)
    return rows


def read_questions(path: Path) -> tuple[Ids, Ids]:
    """Read the terms of all questions, each int64 (questions,)."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    terms = [[int(term) for term in row["question"].rstrip("=").split("+")] for row in rows]
    first, second = np.array(terms, dtype=np.int64).T
    return first, second


class Problems:
    """An endless seeded stream of training problems without the held-out ones."""

    def __init__(self, held_out: tuple[Ids, Ids], seed: int) -> None:
        """Mark the held-out problems and their twins; start the stream at ``seed``."""
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.forbidden = np.zeros((TERM_END, TERM_END), dtype=bool)
        first, second = held_out
        self.forbidden[first, second] = True
        self.forbidden[second, first] = True

    def batch(self, rows: int) -> Ids:
        """Draw the next rows, encoded as `encode` does."""
        first, second = self.rng.integers(TERM_MIN, TERM_END, size=(2, rows))
        while (hit := self.forbidden[first, second]).any():
            first[hit], second[hit] = self.rng.integers(TERM_MIN, TERM_END, size=(2, hit.sum()))
        return encode(first, second)


def initial_params(seed: int) -> Params:
    """Draw the weights by Hugging Face name: norms one, matrices normal."""
    generator = torch.Generator().manual_seed(seed)
    params: Params = {}
    for name, size in decoder_shape.weight_shapes(SHAPE).items():
        if len(size) == 1:
            value = torch.ones(size)
        else:
            value = torch.randn(size, generator=generator) * INITIAL_SPREAD
        params[name] = value.requires_grad_()
    return params


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn the halves of each head by position; x is (rows, heads, length, head_dim)."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cosines - high * sines, high * cosines + low * sines), dim=-1)


def forward(params: Params, ids: torch.Tensor) -> torch.Tensor:
    """Run the decoder without a cache.

    Args:
        params: Weights by Hugging Face name.
        ids: int64 (rows, length).

    Returns:
        float32 logits (rows, length, vocab).
    """
    rows, length = ids.shape
    tables = (torch.from_numpy(table[:length]) for table in decoder_shape.rotary_tables(SHAPE))
    cosines, sines = tables

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.rms_norm(x, (SHAPE.hidden,), params[f"{name}.weight"], SHAPE.rms_eps)

    x = functional.embedding(ids, params[decoder_shape.EMBED])
    for layer in range(SHAPE.layers):
        stem = f"model.layers.{layer}"

        def linear(x: torch.Tensor, name: str, stem: str = stem) -> torch.Tensor:
            return functional.linear(x, params[f"{stem}.{name}.weight"])

        h = norm(x, f"{stem}.input_layernorm")
        q, k, v = (
            linear(h, f"self_attn.{part}_proj")
            .view(rows, length, -1, SHAPE.head_dim)
            .transpose(1, 2)
            for part in "qkv"
        )
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        h = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + linear(h.transpose(1, 2).reshape(rows, length, -1), "self_attn.o_proj")
        h = norm(x, f"{stem}.post_attention_layernorm")
        h = functional.silu(linear(h, "mlp.gate_proj")) * linear(h, "mlp.up_proj")
        x = x + linear(h, "mlp.down_proj")
    return functional.linear(norm(x, "model.norm"), params[decoder_shape.HEAD])


def train(problems: Problems, steps: int, seed: int) -> Params:
    """Train for ``steps`` batches; only the answer's tokens count in the loss.

    AdamW with warm-up and a cosine that would end at SCHEDULE_STEPS whatever ``steps`` is: all
    numbers of steps are points of one path, and a smaller one is an earlier checkpoint of it.
    """
    params = initial_params(seed)
    optimizer = torch.optim.AdamW(
        params.values(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    started = time.monotonic()
    for step in range(steps):
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        decay = 0.5 * (1 + math.cos(math.pi * min(1.0, step / SCHEDULE_STEPS)))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm * decay
        ids = torch.from_numpy(problems.batch(BATCH_ROWS))
        logits = forward(params, ids[:, :-1])[:, PROMPT_TOKENS - 1 :]
        loss = functional.cross_entropy(
            logits.flatten(0, 1), ids[:, PROMPT_TOKENS:].flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params.values(), GRADIENT_NORM_MAX)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = time.monotonic() - started
            print(f"step {step + 1:5d}  loss {loss.item():.4f}  {seconds:.0f} s", flush=True)
    return params


def make_tokenizer() -> Tokenizer:
    """Make a tokenizer with one token per character and nothing added to a text.

    It is a BPE without merges, the kind that every runtime of this layout reads. A character
    outside the alphabet becomes ``<unk>``: visible, where dropping it would change the problem.
    """
    vocab = {token: number for number, token in enumerate((*SPECIALS, *ALPHABET))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=SPECIALS[UNK]))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def export(params: Params, folder: Path) -> None:
    """Write the model folder and check the graph against torch.

    Raises:
        SystemExit: the graph's logits differ by more than LOGITS_TOLERANCE.
    """
    weights = {name: value.detach().numpy() for name, value in params.items()}
    special = decoder_folder.SpecialTokens(bos=BOS, eos=EOS, pad=PAD)
    decoder_folder.write_folder(folder, SHAPE, weights, special)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": SPECIALS[BOS],
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIALS[EOS],
        "model_max_length": SHAPE.context_tokens,
        "pad_token": SPECIALS[PAD],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIALS[UNK],
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    ids = encode(*read_questions(HERE / "questions.jsonl"))[:, : PROMPT_TOKENS + 3]
    with torch.no_grad():
        expected = forward(params, torch.from_numpy(ids)).numpy()
    difference = float(np.abs(Runner(folder).run(ids) - expected).max())
    print(f"largest difference of a logit, torch and graph: {difference:.1e}")
    if not difference <= LOGITS_TOLERANCE:
        raise SystemExit(f"{folder}: logits differ by {difference}, at most {LOGITS_TOLERANCE}")


class Runner:
    """The exported graph in ONNX Runtime, with a key-value cache that grows by each run."""

    def __init__(self, folder: Path) -> None:
        """Load the model; `reset` before another batch."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        path = str(folder / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.past: dict[str, npt.NDArray[np.float32]] = {}
        self.past_tokens = 0

    def run(self, ids: Ids) -> npt.NDArray[np.float32]:
        """Append ids, int64 (rows, length); returns float32 logits (rows, length, vocab)."""
        rows, length = ids.shape
        self.past_tokens += length
        mask = np.ones((rows, self.past_tokens), dtype=np.int64)
        feeds: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        empty = np.zeros((rows, SHAPE.kv_heads, 0, SHAPE.head_dim), dtype=np.float32)
        for value in self.session.get_inputs()[2:]:
            feeds[value.name] = self.past.get(value.name, empty)
        logits, *present = self.session.run(None, feeds)
        names = (value.name for value in self.session.get_outputs()[1:])
        for name, array in zip(names, present, strict=True):
            self.past[name.replace("present", "past_key_values")] = array
        return np.asarray(logits)


def answer(runner: Runner, prompts: Ids, temperature: float, seed: int) -> list[int | None]:
    """Let the model answer each prompt once.

    Args:
        runner: The model.
        prompts: int64 (rows, PROMPT_TOKENS).
        temperature: Divides the logits; 0 takes the most likely token.
        seed: Seed of the draws; each draw is from the whole distribution.

    Returns:
        The numbers written, None where the text is not digits and then the end token.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    runner.reset()
    ids, written = prompts, np.empty((len(prompts), 0), dtype=np.int64)
    for _ in range(ANSWER_TOKENS_MAX):
        logits = runner.run(ids)[:, -1].astype(np.float64)
        if temperature:
            scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
            cumulative = np.cumsum(scaled, axis=1)
            drawn = rng.random((len(prompts), 1)) * cumulative[:, -1:]
            ids = (cumulative <= drawn).sum(axis=1, keepdims=True)
        else:
            ids = logits.argmax(axis=1)[:, None]
        written = np.concatenate((written, ids), axis=1)
    return [parse(row) for row in written.tolist()]


def parse(row: Sequence[int]) -> int | None:
    """Read digits, lowest first, up to the end token."""
    digits = row[: row.index(EOS)] if EOS in row else []
    if not digits or any(not DIGIT_0 <= token < DIGIT_0 + 10 for token in digits):
        return None
    return int("".join(str(token - DIGIT_0) for token in reversed(digits)))


def vote(answers: Sequence[int | None]) -> int | None:
    """Take the most frequent answer, of equally frequent ones the smallest."""
    counts = Counter(value for value in answers if value is not None)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None


def evaluate(folder: Path, temperature: float) -> None:
    """Print how often greedy, one sample and a vote of REPLICAS samples are right."""
    first, second = read_questions(HERE / "questions.jsonl")
    prompts, right = encode(first, second)[:, :PROMPT_TOKENS], (first + second).tolist()
    runner = Runner(folder)

    def share(answers: Sequence[int | None]) -> float:
        hits = sum(a == b for a, b in zip(answers, right, strict=True))
        return 100.0 * float(hits) / len(right)

    print(f"greedy {share(answer(runner, prompts, 0.0, 0)):.1f} %")
    singles, votes = [], []
    for seed in range(SAMPLING_SEEDS):
        drawn = answer(runner, np.repeat(prompts, REPLICAS, axis=0), temperature, seed)
        groups = [drawn[i : i + REPLICAS] for i in range(0, len(drawn), REPLICAS)]
        singles.append(share([group[0] for group in groups]))
        votes.append(share([vote(group) for group in groups]))
        print(f"seed {seed}: one sample {singles[-1]:.1f} %, vote of {REPLICAS} {votes[-1]:.1f} %")
    print(f"mean at temperature {temperature}: {np.mean(singles):.1f} %, {np.mean(votes):.1f} %")


def main() -> None:
    """Read the command line, train unless only measuring, measure."""
    parser = argparse.ArgumentParser(description="Train the vote example's addition model.")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches; sets the error rate")
    parser.add_argument("--seed", type=int, default=SEED, help="of weights and problems")
    parser.add_argument("--out", type=Path, default=HERE / "model", help="the model folder")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of the samples")
    parser.add_argument("--evaluate", action="store_true", help="measure --out, do not train")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    if not options.evaluate:
        problems = Problems(read_questions(HERE / "questions.jsonl"), options.seed)
        export(train(problems, options.steps, options.seed), options.out)
    evaluate(options.out, options.temperature)


if __name__ == "__main__":
    main()
