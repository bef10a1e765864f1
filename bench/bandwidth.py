"""Bandwidth: how fast this machine reads memory now, and how much a decode step has to read.

A step at batch 1 multiplies one row by every matrix, so it cannot be faster than reading them
(workers/profile/bandwidth.py has the probe).
"""

from collections.abc import Mapping
from typing import Any

from lockstep.workers.profile.bandwidth import BUFFER_BYTES as BUFFER_BYTES
from lockstep.workers.profile.bandwidth import FLOAT_BYTES
from lockstep.workers.profile.bandwidth import Probe as Probe

INT4_BLOCK = 32  # Weights that share one float32 scale (bench/int4.py).


def step_bytes(shape: Mapping[str, Any], past: int) -> float:
    """Bytes that one row's decode step must read: every matrix once, and its keys and values.

    The embedding is looked up, so one row of it, which is nothing; the output matrix is read
    whole. Norms and rotary tables are left out (below 1 % for models of this kind).

    Args:
        shape: Sizes, as `bench.decoder_shape.DecoderShape` names them.
        past: Tokens whose keys and values there are.
    """
    hidden, inner = shape["hidden"], shape["intermediate"]
    q_width = shape["heads"] * shape["head_dim"]
    kv_width = shape["kv_heads"] * shape["head_dim"]
    layer = hidden * (2 * q_width + 2 * kv_width) + 3 * hidden * inner
    weights = shape["layers"] * layer + shape["vocab"] * hidden
    kept = shape["layers"] * 2 * kv_width * past * FLOAT_BYTES
    return float(weights * weight_bytes(shape.get("weight_bits", 32)) + kept)


def weight_bytes(bits: int) -> float:
    """Bytes of one weight; with four bits its share of the scale is in it."""
    return FLOAT_BYTES if bits == 32 else bits / 8 + FLOAT_BYTES / INT4_BLOCK
