"""The decoder graph computes what a Llama computes, and its bytes depend on its input alone.

The reference below shares no code with the graph builder: it is the forward pass from the paper's
formulas in float64, one sequence at a time, without a cache.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # Read by onnxruntime at its import.
pytest.importorskip("onnx")

import onnxruntime as ort

from lockstep.bench import decoder_folder, decoder_graph, decoder_shape, int4
from lockstep.bench.decoder_folder import SpecialTokens
from lockstep.bench.decoder_shape import DecoderShape

TOKENS_MAX = 24
SPECIAL = SpecialTokens(bos=0, eos=2, pad=1)
TINY = DecoderShape(
    layers=2,
    hidden=24,
    heads=6,
    kv_heads=2,
    head_dim=16,  # Six heads of 16 are wider than hidden: no size stands in for another.
    intermediate=40,
    vocab=37,
    context_tokens=32,
    rope_base=500.0,
    rms_eps=1e-3,
)
TIED = dataclasses.replace(TINY, tied_embeddings=True)
PROMPTS = ([3, 14, 15, 9, 26], [5], [35, 8, 9, 7, 9, 32, 3, 8, 4])


class Slab:
    """A session whose rows of fixed-size keys and values are past and present at once."""

    def __init__(self, shape: DecoderShape, model: bytes, rows: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.shape = shape
        size = (shape.layers, 2, rows, shape.kv_heads, TOKENS_MAX, shape.head_dim)
        self.kv = np.full(size, np.nan, np.float32)  # What a stale slot may hold at worst.
        self.past = np.zeros(rows, np.int64)

    def run(self, row: int, tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        """Append tokens to the rows from ``row`` on; returns logits (rows, length, vocab)."""
        ids = np.array(tokens, np.int64)
        rows, length = ids.shape
        self.past[row : row + rows] += length
        mask = np.zeros((rows, TOKENS_MAX), np.int64)
        mask[:, 0] = self.past[row : row + rows]  # Only the row sum and the width count.
        logits = np.zeros((rows, length, self.shape.vocab), np.float32)
        binding = self.session.io_binding()
        for name, array in (("input_ids", ids), ("attention_mask", mask)):
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for layer in range(self.shape.layers):
            for part, name in enumerate(("key", "value")):
                view = self.kv[layer, part, row : row + rows]
                place = ("cpu", 0, np.float32, view.shape, view.ctypes.data)
                binding.bind_input(f"past_key_values.{layer}.{name}", *place)
                binding.bind_output(f"present.{layer}.{name}", *place)
        self.session.run_with_iobinding(binding)
        return logits


def reference_logits(
    shape: DecoderShape, weights: dict[str, npt.NDArray[np.float32]], tokens: list[int]
) -> npt.NDArray[np.float64]:
    """Compute float64 logits (length, vocab) of one sequence."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    length, half = len(tokens), shape.head_dim // 2
    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(shape.layers):
        stem = f"model.layers.{layer}"
        h = _rms_norm(x, w[f"{stem}.input_layernorm.weight"], shape.rms_eps)
        q, k, v = (
            (h @ w[f"{stem}.self_attn.{part}_proj.weight"].T).reshape(length, -1, shape.head_dim)
            for part in "qkv"
        )
        heads = np.zeros((length, shape.heads, shape.head_dim))
        for position in range(length):
            for pair in range(half):
                angle = position * shape.rope_base ** (-2 * pair / shape.head_dim)
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                columns = [pair, pair + half]
                for turned in (q, k):
                    turned[position][:, columns] = turned[position][:, columns] @ turn.T
        for position in range(length):
            for head in range(shape.heads):
                group = head // (shape.heads // shape.kv_heads)
                scores = k[: position + 1, group] @ q[position, head] / np.sqrt(shape.head_dim)
                share = np.exp(scores - scores.max())
                heads[position, head] = share / share.sum() @ v[: position + 1, group]
        x = x + heads.reshape(length, -1) @ w[f"{stem}.self_attn.o_proj.weight"].T
        h = _rms_norm(x, w[f"{stem}.post_attention_layernorm.weight"], shape.rms_eps)
        gate = h @ w[f"{stem}.mlp.gate_proj.weight"].T
        up = h @ w[f"{stem}.mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{stem}.mlp.down_proj.weight"].T
    table = "model.embed_tokens.weight" if shape.tied_embeddings else "lm_head.weight"
    return np.asarray(_rms_norm(x, w["model.norm.weight"], shape.rms_eps) @ w[table].T)


def _rms_norm(x: Any, scale: Any, eps: float) -> Any:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def _built(shape: DecoderShape, seed: int = 0) -> bytes:
    model = decoder_graph.build(shape, decoder_shape.random_weights(shape, seed))
    return bytes(model.SerializeToString(deterministic=True))


@pytest.mark.parametrize("shape", [TINY, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_prefill_and_decode_on_one_buffer_equal_the_reference(
    shape: DecoderShape, prompt: list[int]
) -> None:
    expected = reference_logits(shape, decoder_shape.random_weights(shape, 0), [*prompt, 7, 36, 0])
    slab = Slab(shape, _built(shape), rows=1)
    parts = [slab.run(0, [prompt])[0]] + [slab.run(0, [[token]])[0] for token in (7, 36, 0)]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.3, "logits without spread would hide a mistake"


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_four_bit_matrices_compute_what_the_rounded_ones_do(tied: bool) -> None:
    shape = dataclasses.replace(TINY, hidden=32, intermediate=64, tied_embeddings=tied)
    weights = decoder_shape.random_weights(shape, 0)
    rounded = {
        name: int4.restore(*int4.quantise(w)) if w.ndim == 2 else w for name, w in weights.items()
    }
    head = rounded[decoder_shape.EMBED if tied else decoder_shape.HEAD]
    # The embedding itself is looked up, not multiplied with: it keeps its bits.
    exact = dataclasses.replace(shape, tied_embeddings=False)
    rounded |= {decoder_shape.EMBED: weights[decoder_shape.EMBED], decoder_shape.HEAD: head}
    expected = reference_logits(exact, rounded, PROMPTS[2])
    bits = dataclasses.replace(shape, weight_bits=4)
    found = Slab(bits, _built(bits), rows=1).run(0, [PROMPTS[2]])[0]
    # Activations are rounded to 8 bits on the way (accuracy_level 4).
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1)
    assert expected.std() > 0.3


def test_packed_weights_lie_within_half_a_step_of_the_exact_ones() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    matrix[2, 32:64] = 0
    packed, scales = int4.quantise(matrix)
    assert (packed.shape, scales.shape) == ((5, 3, 16), (5, 3))
    steps = np.repeat(scales, int4.BLOCK, axis=1)
    assert (np.abs(int4.restore(packed, scales) - matrix) <= steps * 0.5001).all()
    with pytest.raises(ValueError, match="33 inputs, expected a multiple of 32"):
        int4.quantise(np.zeros((1, 33)))


def test_row_in_a_ragged_batch_equals_the_row_alone_bit_for_bit() -> None:
    model = _built(TINY)
    together = Slab(TINY, model, rows=len(PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        together.run(row, [prompt])
    steps = [[[4 * step + row] for row in range(len(PROMPTS))] for step in range(6)]
    batched = np.stack([together.run(0, tokens) for tokens in steps])
    for row, prompt in enumerate(PROMPTS):
        alone = Slab(TINY, model, rows=1)
        alone.run(0, [prompt])
        single = np.stack([alone.run(0, [tokens[row]])[0] for tokens in steps])
        assert single.tobytes() == batched[:, row].tobytes(), f"row {row} depends on its company"


def test_same_input_gives_the_same_bytes_and_another_seed_others() -> None:
    assert _built(TINY) == _built(TINY)
    assert _built(TINY) != _built(TINY, seed=1)


def test_folder_written_twice_is_equal_and_external_weights_compute_the_same(
    tmp_path: Path,
) -> None:
    weights = decoder_shape.random_weights(TIED, 0)
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    decoder_folder.write_folder(inside, TIED, weights, SPECIAL, external_bytes_min=1)
    decoder_folder.write_folder(inside, TIED, weights, SPECIAL)
    for _ in range(2):  # The second time over the first one's files.
        written = decoder_folder.write_folder(outside, TIED, weights, SPECIAL, external_bytes_min=1)
        names = ["model.onnx", "model.onnx.data", "genai_config.json"]
        assert [path.name for path in written] == names
        first = [path.read_bytes() for path in written]
    again = tmp_path / "again"
    written = decoder_folder.write_folder(again, TIED, weights, SPECIAL, external_bytes_min=1)
    assert first == [path.read_bytes() for path in written]
    assert sorted(path.name for path in inside.iterdir()) == ["genai_config.json", "model.onnx"]

    ids = np.array([PROMPTS[0]], np.int64)
    feeds: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for layer in range(TIED.layers):
        for part in ("key", "value"):
            empty = np.zeros((1, TIED.kv_heads, 0, TIED.head_dim), np.float32)
            feeds[f"past_key_values.{layer}.{part}"] = empty
    results = []
    for folder in (inside, outside):
        path = str(folder / "model.onnx")
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        results.append(session.run(["logits"], feeds)[0].tobytes())
    assert results[0] == results[1]


def test_genai_config_names_the_shape_and_the_special_tokens() -> None:
    config = json.loads(json.dumps(decoder_folder.genai_config(TINY, SPECIAL)))
    model, decoder = config["model"], config["model"]["decoder"]
    ids = (model["bos_token_id"], model["eos_token_id"], model["pad_token_id"])
    assert ids == (0, 2, 1)
    assert (model["vocab_size"], model["context_length"], model["type"]) == (37, 32, "llama")
    sizes = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_size")
    assert [decoder[size] for size in sizes] == [2, 6, 2, 16]
    assert decoder["inputs"]["past_key_names"] % 1 == "past_key_values.1.key"
    assert decoder["outputs"]["present_value_names"] % 0 == "present.0.value"
    assert config["search"]["past_present_share_buffer"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 4}, "kv_heads 4 does not divide heads 6"),
        ({"head_dim": 8}, "head_dim is 8, expected a multiple of 16"),
        ({"layers": 0}, "layers is 0, expected at least 1"),
        ({"weight_bits": 8}, "weight_bits is 8, expected 4 or 32"),
        ({"float_bits": 8}, "float_bits is 8, expected 16 or 32"),
        ({"float_bits": 16}, "weight_bits is 32, expected 4 or 16"),
    ],
)
def test_impossible_shape_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]


def test_wrong_weights_are_refused_by_name() -> None:
    weights = decoder_shape.random_weights(TINY, 0)
    with pytest.raises(ValueError, match=r"lm_head\.weight has shape \(37, 24\), expected None"):
        decoder_graph.build(TIED, weights)
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1]
    with pytest.raises(
        ValueError, match=r"model\.norm\.weight has shape \(23,\), expected \(24,\)"
    ):
        decoder_graph.build(TINY, weights)
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match=r"model\.norm\.weight has shape None, expected \(24,\)"):
        decoder_graph.build(TINY, weights)
