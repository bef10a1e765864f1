"""Decoder shape: sizes of a Llama-shaped model, and the weights and tables that follow from them.

Weights carry the Hugging Face names and the Hugging Face orientation (out, in), so a state dict is
a model's weights as it is; `weight_shapes` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lockstep.bench.int4 import BITS

Array = npt.NDArray[np.float32]

EMBED = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class DecoderShape:
    """The sizes that fix a graph."""

    layers: int
    hidden: int  # Width of the residual stream.
    heads: int  # Query heads.
    kv_heads: int  # Key and value heads; divides heads.
    head_dim: int  # A multiple of 16, which is what the attention kernel takes.
    intermediate: int  # Width of the gated MLP.
    vocab: int
    context_tokens: int  # Rows of the rotary tables: prompt and answer together.
    rope_base: float = 10_000.0
    rms_eps: float = 1e-5
    tied_embeddings: bool = False  # The output matrix is the embedding; no lm_head.weight.
    weight_bits: int = 32  # Of the matrices: `float_bits`, or 4 (bench/int4.py).
    float_bits: int = 32  # Of all else, keys, values and logits included: 32, or 16 for a GPU.

    def __post_init__(self) -> None:
        """Refuse sizes that no kernel could run.

        Raises:
            ValueError: a size below 1, kv_heads that do not divide heads, a bad head_dim.
        """
        for name, value in vars(self).items():
            if name not in ("rope_base", "rms_eps", "tied_embeddings") and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        if self.head_dim % 16:
            raise ValueError(f"head_dim is {self.head_dim}, expected a multiple of 16")
        if self.float_bits not in (16, 32):
            raise ValueError(f"float_bits is {self.float_bits}, expected 16 or 32")
        if self.weight_bits not in (BITS, self.float_bits):
            expected = f"{BITS} or {self.float_bits}"
            raise ValueError(f"weight_bits is {self.weight_bits}, expected {expected}")


def weight_shapes(shape: DecoderShape) -> dict[str, tuple[int, ...]]:
    """List the weights that `build` takes, in a fixed order.

    Returns:
        Hugging Face name to array shape; matrices are (out, in).
    """
    hidden, inner = shape.hidden, shape.intermediate
    q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer_shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (q_width, hidden),
        "self_attn.k_proj": (kv_width, hidden),
        "self_attn.v_proj": (kv_width, hidden),
        "self_attn.o_proj": (hidden, q_width),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {EMBED: (shape.vocab, hidden)}
    for layer in range(shape.layers):
        for name, size in layer_shapes.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = size
    shapes["model.norm.weight"] = (hidden,)
    if not shape.tied_embeddings:
        shapes[HEAD] = (shape.vocab, hidden)
    return shapes


def random_weights(shape: DecoderShape, seed: int) -> dict[str, Array]:
    """Draw weights for a model that speaks noise but computes sane numbers.

    Args:
        shape: The sizes.
        seed: Any integer from 0; the same seed gives the same bytes.

    Returns:
        One float32 array per name of `weight_shapes`. Norms lie around 1 and the rest is scaled
        so that logits spread by about 1: a lost norm or a swapped matrix is seen.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn: dict[str, Array] = {}
    for name, size in weight_shapes(shape).items():
        mean, spread = (1.0, 0.1) if len(size) == 1 else (0.0, size[1] ** -0.5)
        array = rng.standard_normal(size, dtype=np.float32)
        drawn[name] = np.float32(mean) + np.float32(spread) * array
    return drawn


def rotary_tables(shape: DecoderShape) -> tuple[Array, Array]:
    """Compute the cosine and sine tables of the rotary embedding.

    The angles are rounded to float32 as in the models' own code, because trained weights know
    those angles; cosine and sine are taken in float64 and rounded once, because float32 vector
    cosines differ between CPUs and the file's bytes must not.

    Returns:
        Cosines and sines, each float32 (context_tokens, head_dim / 2).
    """
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float64) / shape.head_dim
    frequencies = np.float32(1.0) / np.power(shape.rope_base, exponents).astype(np.float32)
    positions = np.arange(shape.context_tokens, dtype=np.float32)
    angles = np.outer(positions, frequencies).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
