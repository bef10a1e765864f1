"""Bandwidth: how fast this machine reads memory now, and how much a decode step has to read.

A step at batch 1 multiplies one row by every matrix, so it cannot be faster than reading them. The
probe reads a buffer far larger than the caches with as many threads as the model gets, by loops
of numpy that leave the interpreter free; the limit is the quicker of two kinds of loop.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

BUFFER_BYTES = 512 << 20
FLOAT_BYTES = 4
INT4_BLOCK = 32  # Weights that share one float32 scale (bench/int4.py).

Array = npt.NDArray[np.float32]


def _largest(part: Array) -> Any:
    return part.max()


def _square(part: Array) -> Any:
    return np.dot(part, part)


LOOPS: tuple[Callable[[Array], Any], ...] = (_largest, _square)


class Probe:
    """A buffer and threads to read it with. Use as a context."""

    def __init__(self, threads: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        # Ones, written: pages that were never written are one page of zeros, and in the cache.
        self._buffer = np.ones(buffer_bytes // FLOAT_BYTES, np.float32)
        self._parts = np.array_split(self._buffer, threads)
        self._threads = ThreadPoolExecutor(threads)

    def bytes_per_s(self) -> float:
        """Read all of it once in each way; the rate of the quicker one."""
        return max(self._read(loop) for loop in LOOPS)

    def _read(self, loop: Callable[[Array], Any]) -> float:
        begun = time.perf_counter_ns()
        for _ in self._threads.map(loop, self._parts):
            pass
        return self._buffer.nbytes / (time.perf_counter_ns() - begun) * 1e9

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()


def step_bytes(shape: Mapping[str, Any], past: int) -> float:
    """Bytes that one row's decode step must read: every matrix once, and its keys and values.

    The embedding is looked up, so one row of it, which is nothing; the output matrix is read
    whole. Norms and rotary tables are left out (below 1 % for models of this kind).

    Args:
        shape: Sizes, as `bench.decoder_graph.DecoderShape` names them.
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
