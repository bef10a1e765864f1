"""Bandwidth: how fast this machine reads memory now.

A buffer far larger than the caches is read with as many threads as a model gets, by loops of numpy
that leave the interpreter free; the rate is that of the quicker of two kinds of loop.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

BUFFER_BYTES = 512 << 20
FLOAT_BYTES = 4

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
